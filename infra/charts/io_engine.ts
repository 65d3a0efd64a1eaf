/**
 * io-engine: a DaemonSet on the labelled nodes, and the Service of its metrics exporter.
 *
 * Why OnDelete: a restart drops the nexuses of a node, so the upgrade chooses when.
 * Why no liveness probe: the same; an engine that cannot go on ends itself.
 */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { type Container, InstallChart, type Volume, type VolumeMount } from "../constructs/kube.ts";
import {
  HOST_NETWORK,
  hostPath,
  identity,
  NODE_NAME,
  ownImage,
  POD_IP,
  placementOf,
  podLabels,
  pullSecrets,
  QUICKLY_READY,
  resourcesOf,
  SMALL_GUARANTEED,
  TMP_MOUNT,
  TMP_VOLUME,
  tcpProbe,
  UNPRIVILEGED,
  waitContainers,
} from "../constructs/pod.ts";
import { PORTS } from "../names.ts";
import type { Values } from "../values.ts";

const DATA_DIR = "/var/local/io-engine/";
type EngineAmounts = Values["io_engine"]["resources"]["limits"];

/** The reactor cores: those listed, or `cpuCount` from core 1 on (core 0 serves the system). */
export function engineCores({ io_engine: { coreList, cpuCount } }: Values): readonly number[] {
  return coreList.length > 0 ? coreList : Array.from({ length: cpuCount }, (_, index) => index + 1);
}

export function exportsMetrics({ base, components }: Values): boolean {
  return base.metrics.enabled && components.metricsExporter;
}

export class IoEngineChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { values } = install;
    if (exportsMetrics(values)) this.addMetricsService();
    const name = this.named("io-engine");
    const exporter = exportsMetrics(values) ? [this.exporter()] : [];
    this.add(
      "DaemonSet",
      { name, component: "io-engine" },
      {
        spec: {
          minReadySeconds: 10,
          selector: { matchLabels: this.selector("io-engine") },
          updateStrategy: { type: "OnDelete" },
          template: {
            metadata: { labels: podLabels(this, "io-engine") },
            spec: {
              ...HOST_NETWORK,
              ...identity(name, { token: false }),
              ...placementOf(install, values.io_engine, {
                nodeSelector: values.io_engine.nodeSelector,
              }),
              ...pullSecrets(install),
              initContainers: waitContainers(install, values.base.initContainers, SMALL_GUARANTEED),
              containers: [...exporter, this.engine()],
              volumes: this.volumes(),
            },
          },
        },
      },
    );
  }

  private addMetricsService(): void {
    this.add(
      "Service",
      { name: this.named("metrics-exporter-pool"), component: "metrics-exporter-pool" },
      {
        spec: {
          type: "ClusterIP",
          selector: this.selector("io-engine"),
          ports: [{ name: "metrics", port: PORTS.metricsExporter, protocol: "TCP" }],
        },
      },
    );
  }

  /** Not probed: an engine stays ready when only its exporter is not. */
  private exporter(): Container {
    const { base, image, io_engine } = this.install.values;
    return {
      name: "metrics-exporter-pool",
      image: ownImage(this.install, "metrics-exporter-pool", "extensions"),
      imagePullPolicy: image.pullPolicy,
      command: ["metrics-exporter-pool"],
      args: [`-p${base.metrics.pollingInterval}`, `--api-versions=${io_engine.api}`],
      env: [NODE_NAME, POD_IP],
      ports: [{ name: "metrics", containerPort: PORTS.metricsExporter, protocol: "TCP" }],
      // The same in limits and requests, so that the pod keeps whole cores under a static CPU policy.
      resources: {
        limits: { cpu: "100m", memory: "192Mi" },
        requests: { cpu: "100m", memory: "192Mi" },
      },
      securityContext: { ...UNPRIVILEGED, seccompProfile: { type: "RuntimeDefault" } },
      volumeMounts: [TMP_MOUNT],
    };
  }

  private args(): string[] {
    const { io_engine } = this.install.values;
    const { iface, ptpl } = io_engine.target.nvmf;
    return [
      "-g$(MY_POD_IP)",
      "-N$(MY_NODE_NAME)",
      `-Rhttps://${this.named("agent-core")}:${PORTS.agentCore}`,
      `-y${DATA_DIR}config.yaml`,
      `-l${engineCores(this.install.values).join(",")}`,
      `-p=${this.named("etcd")}:${PORTS.etcdClient}`,
      ...(ptpl ? [`--ptpl-dir=${DATA_DIR}ptpl/`] : []),
      `--api-versions=${io_engine.api}`,
      ...(iface === "" ? [] : [`-T=${iface}`]),
      ...(io_engine.envcontext === "" ? [] : [`--env-context=--${io_engine.envcontext}`]),
      ...(io_engine.reactorFreezeDetection.enabled ? ["--reactor-freeze-detection"] : []),
    ];
  }

  private get hugepages(): boolean {
    return this.install.values.io_engine.resources.limits.hugepages2Mi !== "";
  }

  private engine(): Container {
    const { image, io_engine } = this.install.values;
    const cores = String(engineCores(this.install.values).length);
    const amounts = ({ cpu, memory, hugepages2Mi }: EngineAmounts) => ({
      cpu: cpu || cores,
      memory,
      "hugepages-2Mi": hugepages2Mi,
    });
    const { limits, requests } = io_engine.resources;
    const hugepageMount: VolumeMount = { name: "hugepage", mountPath: "/dev/hugepages" };
    return {
      name: "io-engine",
      image: ownImage(this.install, "io-engine", "dataPlane"),
      imagePullPolicy: image.pullPolicy,
      command: ["io-engine"],
      args: this.args(),
      env: [
        { name: "RUST_LOG", value: io_engine.logLevel },
        { name: "NVME_QPAIR_CONNECT_ASYNC", value: "true" },
        { name: "NVMF_TCP_MAX_QUEUE_DEPTH", value: "32" },
        NODE_NAME,
        POD_IP,
        { name: "NEXUS_NVMF_ANA_ENABLE", value: "1" },
        { name: "NEXUS_NVMF_RESV_ENABLE", value: "1" },
      ],
      ports: [{ name: "io-engine", containerPort: PORTS.ioEngine, protocol: "TCP" }],
      resources: resourcesOf({ limits: amounts(limits), requests: amounts(requests) }),
      // Raw disks of the node and io_uring: neither is allowed to a container by any lesser setting.
      securityContext: { privileged: true, readOnlyRootFilesystem: true },
      readinessProbe: tcpProbe(PORTS.ioEngine, QUICKLY_READY),
      volumeMounts: [
        { name: "device", mountPath: "/dev" },
        { name: "udev", mountPath: "/run/udev" },
        { name: "dshm", mountPath: "/dev/shm" },
        { name: "configlocation", mountPath: DATA_DIR },
        ...(this.hugepages ? [hugepageMount] : []),
        TMP_MOUNT,
      ],
    };
  }

  private volumes(): Volume[] {
    const hugepage: Volume = { name: "hugepage", emptyDir: { medium: "HugePages" } };
    return [
      hostPath("device", "/dev", "Directory"),
      hostPath("udev", "/run/udev", "DirectoryOrCreate"), // not every node runs udev
      { name: "dshm", emptyDir: { medium: "Memory", sizeLimit: "1Gi" } },
      hostPath("configlocation", DATA_DIR, "DirectoryOrCreate"),
      ...(this.hugepages ? [hugepage] : []),
      TMP_VOLUME,
    ];
  }
}
