/**
 * What a node drain may not take away at once.
 * Single pods get no budget: it would only make drains hang; they come back on another node.
 */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";

export class DisruptionBudgetsChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { apis, etcd } = install.values;
    if (etcd.replicaCount > 1) {
      const quorum = Math.floor(etcd.replicaCount / 2) + 1;
      const selector = { matchLabels: this.selector("etcd") };
      this.add(
        "PodDisruptionBudget",
        { name: this.named("etcd"), component: "etcd" },
        { spec: { minAvailable: quorum, selector } },
      );
    }
    if (apis.rest.replicaCount > 1) {
      const selector = { matchLabels: this.selector("api-rest") };
      this.add(
        "PodDisruptionBudget",
        { name: this.named("api-rest"), component: "api-rest" },
        { spec: { maxUnavailable: 1, selector } },
      );
    }
  }
}
