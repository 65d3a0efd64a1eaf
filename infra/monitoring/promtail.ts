/**
 * promtail: reads the logs of our pods from each node and sends them to loki.
 * Invariant: only pods of the installation's namespace that are labelled for logging are read.
 */
import { createHash } from "node:crypto";
import type { App } from "cdk8s";
import { parse, stringify } from "yaml";
import type { Install } from "../config.ts";
import { type Container, InstallChart, type Labels } from "../constructs/kube.ts";
import {
  DEFAULT_SECCOMP,
  forRelease,
  hostPath,
  httpProbe,
  identity,
  placementOf,
  podLabels,
  pullSecrets,
} from "../constructs/pod.ts";
import { PORTS } from "../names.ts";

const CONFIG_KEY = "promtail.yaml";
const POD_META = "__meta_kubernetes_pod";

export class PromtailChart extends InstallChart {
  private readonly name: string;

  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    this.name = this.named("promtail");
    const config = stringify(this.config(), { lineWidth: 0 });
    this.add(
      "ConfigMap",
      { name: this.name, component: "promtail" },
      { data: { [CONFIG_KEY]: config } },
    );
    this.addDaemonSet(config);
  }

  private get values() {
    return this.install.values["loki-stack"].promtail;
  }

  private get members(): Labels {
    return {
      "app.kubernetes.io/instance": this.install.release,
      "app.kubernetes.io/name": "promtail",
    };
  }

  private scrapeConfigs(): unknown {
    const own = this.values.config.snippets.scrapeConfigs;
    if (own !== "") return parse(forRelease(own, this.install));
    return [
      {
        job_name: `${this.install.release}-pods-name`,
        pipeline_stages: [{ cri: {} }],
        kubernetes_sd_configs: [{ role: "pod", namespaces: { names: [this.install.namespace] } }],
        relabel_configs: [
          {
            source_labels: [`${POD_META}_label_openebs_io_logging`],
            action: "keep",
            regex: "true",
          },
          { source_labels: [`${POD_META}_node_name`], target_label: "hostname" },
          // promtail reads only what is on its own node, told by this one.
          { source_labels: [`${POD_META}_node_name`], target_label: "__host__" },
          { action: "labelmap", regex: `${POD_META}_label_(.+)` },
          { source_labels: ["__meta_kubernetes_namespace"], target_label: "job" },
          { source_labels: [`${POD_META}_name`], target_label: "pod" },
          { source_labels: [`${POD_META}_container_name`], target_label: "container" },
          {
            source_labels: [`${POD_META}_uid`, `${POD_META}_container_name`],
            separator: "/",
            target_label: "__path__",
            replacement: "/var/log/pods/*$1/*.log",
          },
        ],
      },
    ];
  }

  private config() {
    return {
      server: { log_level: "info", http_listen_port: PORTS.promtail },
      clients: [{ url: forRelease(this.values.config.lokiAddress, this.install) }],
      positions: { filename: "/run/promtail/positions.yaml" },
      scrape_configs: this.scrapeConfigs(),
    };
  }

  private addDaemonSet(config: string): void {
    const checksum = createHash("sha256").update(config).digest("hex");
    this.add(
      "DaemonSet",
      { name: this.name, component: "promtail", labels: this.members },
      {
        spec: {
          selector: { matchLabels: this.members },
          updateStrategy: { type: "RollingUpdate" },
          template: {
            metadata: {
              labels: { ...podLabels(this, "promtail"), ...this.members },
              annotations: { "checksum/config": checksum }, // it reads its configuration at start only
            },
            spec: {
              ...identity(this.name, { token: true }),
              ...placementOf(this.install, this.values),
              ...pullSecrets(this.install),
              securityContext: DEFAULT_SECCOMP,
              containers: [this.container()],
              volumes: [
                { name: "config", configMap: { name: this.name } },
                hostPath("run", "/run/promtail", "DirectoryOrCreate"),
                hostPath("containers", "/var/lib/docker/containers"),
                hostPath("pods", "/var/log/pods"),
              ],
            },
          },
        },
      },
    );
  }

  private container(): Container {
    return {
      name: "promtail",
      image: this.values.image,
      imagePullPolicy: "IfNotPresent",
      args: [`-config.file=/etc/promtail/${CONFIG_KEY}`],
      env: [{ name: "HOSTNAME", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } }],
      ports: [{ name: "http-metrics", containerPort: PORTS.promtail, protocol: "TCP" }],
      // Root, because log files of containers are root's.
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"] },
        readOnlyRootFilesystem: true,
        runAsGroup: 0,
        runAsUser: 0,
      },
      readinessProbe: httpProbe(
        { port: PORTS.promtail, path: "/ready" },
        { initialDelaySeconds: 10, failureThreshold: 5 },
      ),
      volumeMounts: [
        { name: "config", mountPath: "/etc/promtail" },
        { name: "run", mountPath: "/run/promtail" },
        { name: "containers", mountPath: "/var/lib/docker/containers", readOnly: true },
        { name: "pods", mountPath: "/var/log/pods", readOnly: true },
      ],
    };
  }
}
