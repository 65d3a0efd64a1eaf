/**
 * csi-controller with its sidecars, and the CSIDriver object.
 *
 * The sidecars elect no leader, as published: the strategy keeps a second pod from running beside
 * the first. The pod serves a socket only, so there is nothing on the network to probe.
 */
import type { App } from "cdk8s";
import { DRIVER_NAME } from "#common/csi/driver.ts";
import type { Install } from "../config.ts";
import { type Container, InstallChart } from "../constructs/kube.ts";
import {
  csiImage,
  DEFAULT_SECCOMP,
  HOST_NETWORK,
  identity,
  logEnv,
  ownImage,
  placementOf,
  podLabels,
  pullSecrets,
  resourcesOf,
  TMP_MOUNT,
  TMP_VOLUME,
  UNPRIVILEGED,
  waitContainers,
} from "../constructs/pod.ts";
import { PORTS } from "../names.ts";
import { segmentArgs } from "./csi_node.ts";

const SOCKET_DIR = "/var/lib/csi/sockets/pluginproxy/";
const SOCKET = `${SOCKET_DIR}csi.sock`;
const SOCKET_MOUNT = { name: "socket-dir", mountPath: SOCKET_DIR };

export class CsiControllerChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const name = this.named("csi-controller");
    const { base, csi } = install.values;
    this.add(
      "CSIDriver",
      { name: DRIVER_NAME },
      {
        spec: {
          // What Kubernetes assumes for a driver that says nothing, as published installations do.
          attachRequired: true,
          fsGroupPolicy: "ReadWriteOnceWithFSType",
          podInfoOnMount: false,
          volumeLifecycleModes: ["Persistent"],
        },
      },
    );
    const wait = {
      enabled: base.initRestContainer.enabled,
      containers: base.initRestContainer.initContainer,
    };
    this.add(
      "Deployment",
      { name, component: "csi-controller" },
      {
        spec: {
          replicas: 1,
          strategy: { type: "Recreate" },
          selector: { matchLabels: this.selector("csi-controller") },
          template: {
            metadata: { labels: podLabels(this, "csi-controller") },
            spec: {
              ...HOST_NETWORK,
              ...identity(name, { token: true }),
              ...placementOf(install, csi.controller),
              ...pullSecrets(install),
              securityContext: DEFAULT_SECCOMP,
              initContainers: waitContainers(install, wait),
              containers: [
                this.sidecar("csi-provisioner", csi.image.provisionerTag, [
                  "--feature-gates=Topology=true",
                  "--strict-topology=false",
                  "--default-fstype=ext4",
                  "--extra-create-metadata",
                ]),
                this.sidecar("csi-attacher", csi.image.attacherTag, []),
                this.controller(),
              ],
              volumes: [{ name: "socket-dir", emptyDir: {} }, TMP_VOLUME],
            },
          },
        },
      },
    );
  }

  private sidecar(name: string, tag: string, args: readonly string[]): Container {
    const { csi } = this.install.values;
    return {
      name,
      image: csiImage(this.install.values, name, tag),
      imagePullPolicy: csi.image.pullPolicy,
      args: ["--v=2", "--csi-address=$(ADDRESS)", ...args],
      env: [{ name: "ADDRESS", value: SOCKET }],
      securityContext: UNPRIVILEGED,
      volumeMounts: [SOCKET_MOUNT],
    };
  }

  private controller(): Container {
    const { csi, image } = this.install.values;
    return {
      name: "csi-controller",
      image: ownImage(this.install, "csi-controller", "controlPlane"),
      imagePullPolicy: image.pullPolicy,
      args: [
        `--csi-socket=${SOCKET}`,
        `--rest-endpoint=http://${this.named("api-rest")}:${PORTS.restHttp}`,
        ...segmentArgs(this.install),
      ],
      env: logEnv(this.install, csi.controller.logLevel),
      resources: resourcesOf(csi.controller.resources),
      securityContext: UNPRIVILEGED,
      volumeMounts: [SOCKET_MOUNT, TMP_MOUNT],
    };
  }
}
