/** What must exist before the rest: the namespace and the priority class. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";

/**
 * The namespace admits privileged pods: io-engine and csi-node use devices and mounts of their node.
 * Nothing is warned about: whoever installs this has read as much in the README.
 */
export class NamespaceChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const labels = {
      "pod-security.kubernetes.io/enforce": "privileged",
      "pod-security.kubernetes.io/audit": "privileged",
      "pod-security.kubernetes.io/warn": "privileged",
    };
    this.add("Namespace", { name: install.namespace, labels }, {});
  }
}

const PRIORITY = 1_000_000_000; // the highest a user's class may have

export class PriorityClassChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    this.add(
      "PriorityClass",
      { name: this.named("cluster-critical") },
      {
        description: "Used for critical pods that must run in the cluster",
        preemptionPolicy: "PreemptLowerPriority",
        value: PRIORITY,
      },
    );
  }
}
