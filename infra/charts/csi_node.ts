/** csi-node: the node plugin on every node, with the registrar that tells the kubelet about it. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { type Container, InstallChart } from "../constructs/kube.ts";
import {
  csiImage,
  HOST_NETWORK,
  hostPath,
  identity,
  logEnv,
  NODE_NAME,
  ownImage,
  POD_IP,
  placementOf,
  podLabels,
  pullSecrets,
  QUICKLY_READY,
  resourcesOf,
  TMP_MOUNT,
  TMP_VOLUME,
  tcpProbe,
} from "../constructs/pod.ts";
import { CSI_PLUGIN_DIR, PORTS } from "../names.ts";
import { engineCores } from "./io_engine.ts";

/** The topology that both CSI services report, as options. */
export function segmentArgs({ values }: Install): string[] {
  return Object.entries(values.csi.node.topology.segments).map(
    ([key, value]) => `--node-selector=${key}=${value}`,
  );
}

export class CsiNodeChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const name = this.named("csi-node");
    const { csi, nodeSelector } = install.values;
    const { kubeletDir, topology } = csi.node;
    const selected = topology.nodeSelector
      ? { ...nodeSelector, ...topology.segments }
      : nodeSelector;
    this.add(
      "DaemonSet",
      { name, component: "csi-node" },
      {
        spec: {
          minReadySeconds: 10,
          selector: { matchLabels: this.selector("csi-node") },
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1 } },
          template: {
            metadata: { labels: podLabels(this, "csi-node") },
            spec: {
              // The NVMe/TCP connections that the kernel makes belong to the host's network.
              ...HOST_NETWORK,
              ...identity(name, { token: false }),
              ...placementOf(install, csi.node, { nodeSelector: selected }),
              ...pullSecrets(install),
              containers: [this.plugin(), this.registrar()],
              volumes: [
                hostPath("device", "/dev", "Directory"),
                hostPath("sys", "/sys", "Directory"),
                hostPath("run-udev", "/run/udev", "DirectoryOrCreate"), // not every node runs udev
                hostPath(
                  "registration-dir",
                  `${kubeletDir}/plugins_registry/`,
                  "DirectoryOrCreate",
                ),
                hostPath("plugin-dir", this.pluginDir(), "DirectoryOrCreate"),
                hostPath("kubelet-dir", kubeletDir, "Directory"),
                TMP_VOLUME,
              ],
            },
          },
        },
      },
    );
  }

  private pluginDir(): string {
    return `${this.install.values.csi.node.kubeletDir}/plugins/${CSI_PLUGIN_DIR}/`;
  }

  private plugin(): Container {
    const { csi, image } = this.install.values;
    const { kubeletDir, nvme, pluginMounthPath, socketPath } = csi.node;
    const option = (name: string, value: string) => (value === "" ? [] : [`--${name}=${value}`]);
    return {
      name: "csi-node",
      image: ownImage(this.install, "csi-node", "controlPlane"),
      imagePullPolicy: image.pullPolicy,
      command: ["csi-node"],
      args: [
        `--csi-socket=${pluginMounthPath}/${socketPath}`,
        "--node-name=$(MY_NODE_NAME)",
        `--grpc-endpoint=$(MY_POD_IP):${PORTS.csiNode}`,
        // As later versions have it: asked where a volume's target has moved.
        `--rest-endpoint=http://${this.named("api-rest")}:${PORTS.restHttp}`,
        ...option("nvme-core-io-timeout", nvme.io_timeout),
        ...option("nvme-ctrl-loss-tmo", nvme.ctrl_loss_tmo),
        ...option("nvme-keep-alive-tmo", nvme.keep_alive_tmo),
        `--nvme-nr-io-queues=${engineCores(this.install.values).length}`,
        ...segmentArgs(this.install),
      ],
      env: [
        ...logEnv(this.install, csi.node.logLevel),
        NODE_NAME,
        POD_IP,
        { name: "RUST_BACKTRACE", value: "1" },
      ],
      resources: resourcesOf(csi.node.resources),
      // It mounts for the kubelet and connects NVMe devices: both need the node's own view.
      securityContext: { privileged: true, readOnlyRootFilesystem: true },
      readinessProbe: tcpProbe(PORTS.csiNode, QUICKLY_READY),
      volumeMounts: [
        { name: "device", mountPath: "/dev" },
        { name: "sys", mountPath: "/sys" },
        { name: "run-udev", mountPath: "/run/udev" },
        { name: "plugin-dir", mountPath: pluginMounthPath },
        { name: "kubelet-dir", mountPath: kubeletDir, mountPropagation: "Bidirectional" },
        TMP_MOUNT,
      ],
    };
  }

  private registrar(): Container {
    const { csi } = this.install.values;
    const { pluginMounthPath, socketPath } = csi.node;
    const amounts = { cpu: "100m", memory: "50Mi" };
    return {
      name: "csi-driver-registrar",
      image: csiImage(this.install.values, "csi-node-driver-registrar", csi.image.registrarTag),
      imagePullPolicy: csi.image.pullPolicy,
      args: [
        `--csi-address=${pluginMounthPath}/${socketPath}`,
        `--kubelet-registration-path=${this.pluginDir()}${socketPath}`,
      ],
      ports: [{ name: "mayastor-node", containerPort: PORTS.csiNode, protocol: "TCP" }],
      resources: { limits: amounts, requests: amounts },
      // Root, because the kubelet's folders are root's; nothing beyond that.
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"] },
        readOnlyRootFilesystem: true,
        runAsUser: 0,
        seccompProfile: { type: "RuntimeDefault" },
      },
      volumeMounts: [
        { name: "plugin-dir", mountPath: pluginMounthPath },
        { name: "registration-dir", mountPath: "/registration" },
      ],
    };
  }
}
