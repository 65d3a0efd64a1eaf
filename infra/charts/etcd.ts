/**
 * etcd: StatefulSet, its two Services and, for the class `manual`, its volumes.
 *
 * Names, labels, volume claims and the data folder are those of published installations, so that an
 * existing cluster's members and data are taken over.
 * Invariant: the fields of the StatefulSet that cannot be changed (selector, claims) have no version in them.
 */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { claimTemplate } from "../constructs/claim.ts";
import { type Container, type EnvVar, InstallChart, type Labels } from "../constructs/kube.ts";
import {
  CHOWN_ONLY,
  DEFAULT_SECCOMP,
  httpProbe,
  identity,
  placementOf,
  pullSecrets,
  QUICKLY_READY,
  resourcesOf,
  SMALL,
  tcpProbe,
} from "../constructs/pod.ts";
import { MANUAL_STORAGE_CLASS, PORTS, RELEASE_LABEL, UID, VERSION_LABEL } from "../names.ts";
import { canonicalQuantity } from "../quantity.ts";

const MOUNT_PATH = "/bitnami/etcd";
const DATA_DIR = `${MOUNT_PATH}/data`;

export class EtcdChart extends InstallChart {
  private readonly name: string;

  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    this.name = this.named("etcd");
    const { etcd } = install.values;
    if (etcd.persistence.enabled && etcd.persistence.storageClass === MANUAL_STORAGE_CLASS) {
      for (let index = 0; index < etcd.replicaCount; index++) this.addVolume(index);
    }
    this.addServices();
    this.addStatefulSet();
  }

  /** Selects the members; the same as published, and stable. */
  private get members(): Labels {
    return {
      "app.kubernetes.io/instance": this.install.release,
      "app.kubernetes.io/name": "etcd",
    };
  }

  private addVolume(index: number): void {
    const { persistence } = this.install.values.etcd;
    const pod = `${this.name}-${index}`;
    this.add(
      "PersistentVolume",
      { name: `etcd-volume-${index}`, labels: { "statefulset.kubernetes.io/pod-name": pod } },
      {
        spec: {
          accessModes: ["ReadWriteOnce"],
          capacity: { storage: canonicalQuantity(persistence.size) },
          hostPath: {
            path: `/var/local/${this.install.release}/etcd/pod-${index}`,
            type: "DirectoryOrCreate",
          },
          persistentVolumeReclaimPolicy: persistence.reclaimPolicy,
          storageClassName: MANUAL_STORAGE_CLASS,
        },
      },
    );
  }

  private addServices(): void {
    const { type, nodePorts } = this.install.values.etcd.service;
    const port = (name: "client" | "peer", number: number) => {
      const wanted = name === "client" ? nodePorts.clientPort : nodePorts.peerPort;
      const fixed = type === "NodePort" && wanted !== "" ? { nodePort: wanted } : {};
      return { name, port: number, targetPort: name, protocol: "TCP", ...fixed };
    };
    const meta = { component: "etcd", labels: this.members } as const;
    this.add(
      "Service",
      { ...meta, name: this.name },
      {
        spec: {
          type,
          selector: this.members,
          ports: [port("client", PORTS.etcdClient), port("peer", PORTS.etcdPeer)],
        },
      },
    );
    this.add(
      "Service",
      { ...meta, name: `${this.name}-headless` },
      {
        spec: {
          clusterIP: "None",
          // Members find each other by these names before any of them can be ready.
          publishNotReadyAddresses: true,
          selector: this.members,
          ports: [
            { name: "client", port: PORTS.etcdClient, targetPort: "client", protocol: "TCP" },
            { name: "peer", port: PORTS.etcdPeer, targetPort: "peer", protocol: "TCP" },
          ],
        },
      },
    );
  }

  private addStatefulSet(): void {
    const { install } = this;
    const { etcd } = install.values;
    const { persistence } = etcd;
    const storage = persistence.storageClass;
    const claim = claimTemplate("data", persistence.size, storage);
    const affinity = this.antiAffinity();
    this.add(
      "StatefulSet",
      { name: this.name, component: "etcd", labels: this.members },
      {
        spec: {
          replicas: etcd.replicaCount,
          podManagementPolicy: "Parallel", // the first member waits for the others
          selector: { matchLabels: this.members },
          serviceName: `${this.name}-headless`,
          updateStrategy: { type: "RollingUpdate" },
          template: {
            metadata: {
              labels: {
                ...this.members,
                [RELEASE_LABEL]: install.release,
                [VERSION_LABEL]: install.version,
                ...etcd.podLabels,
              },
            },
            spec: {
              ...identity(this.name, { token: false }),
              ...placementOf(install, etcd, { nodeSelector: etcd.nodeSelector }),
              ...pullSecrets(install),
              ...(affinity === null ? {} : { affinity }),
              securityContext: { ...DEFAULT_SECCOMP, fsGroup: UID.data },
              // No empty lists: the server does not keep them, and each `kubectl apply` would send them again.
              ...(persistence.enabled && etcd.volumePermissions.enabled
                ? { initContainers: [this.chown()] }
                : {}),
              containers: [this.container()],
              ...(persistence.enabled ? {} : { volumes: [{ name: "data", emptyDir: {} }] }),
            },
          },
          ...(persistence.enabled ? { volumeClaimTemplates: [claim] } : {}),
        },
      },
    );
  }

  private antiAffinity() {
    const preset = this.install.values.etcd.podAntiAffinityPreset;
    const podAffinityTerm = {
      labelSelector: { matchLabels: this.members },
      topologyKey: "kubernetes.io/hostname",
    };
    switch (preset) {
      case "hard":
        return {
          podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [podAffinityTerm] },
        };
      case "soft":
        return {
          podAntiAffinity: {
            preferredDuringSchedulingIgnoredDuringExecution: [{ podAffinityTerm, weight: 1 }],
          },
        };
      default:
        return null;
    }
  }

  /** fsGroup does not reach folders of a node. */
  private chown(): Container {
    return {
      name: "volume-permissions",
      image: this.install.values.etcd.volumePermissions.image,
      imagePullPolicy: "IfNotPresent",
      command: [
        "sh",
        "-c",
        `mkdir -p ${DATA_DIR} && chmod 700 ${DATA_DIR} && chown -R ${UID.data}:${UID.data} ${MOUNT_PATH}`,
      ],
      resources: SMALL,
      securityContext: CHOWN_ONLY,
      volumeMounts: [{ name: "data", mountPath: MOUNT_PATH }],
    };
  }

  private env(): EnvVar[] {
    const { etcd } = this.install.values;
    const domain = `${this.name}-headless.${this.install.namespace}.svc.${etcd.clusterDomain}`;
    const peer = (pod: string) => `http://${pod}.${domain}:${PORTS.etcdPeer}`;
    const members = Array.from({ length: etcd.replicaCount }, (_, index) => {
      const pod = `${this.name}-${index}`;
      return `${pod}=${peer(pod)}`;
    });
    const client = `http://$(MY_POD_NAME).${domain}:${PORTS.etcdClient}`;
    const service = `http://${this.name}.${this.install.namespace}.svc.${etcd.clusterDomain}:${PORTS.etcdClient}`;
    const settings: Readonly<Record<string, string>> = {
      ETCD_NAME: "$(MY_POD_NAME)",
      ETCD_DATA_DIR: DATA_DIR,
      ETCD_LISTEN_CLIENT_URLS: `http://0.0.0.0:${PORTS.etcdClient}`,
      ETCD_ADVERTISE_CLIENT_URLS: `${client},${service}`,
      ETCD_LISTEN_PEER_URLS: `http://0.0.0.0:${PORTS.etcdPeer}`,
      ETCD_INITIAL_ADVERTISE_PEER_URLS: peer("$(MY_POD_NAME)"),
      ETCD_INITIAL_CLUSTER: members.join(","),
      ETCD_INITIAL_CLUSTER_STATE: etcd.initialClusterState,
      ETCD_INITIAL_CLUSTER_TOKEN: "etcd-cluster-k8s",
      ETCD_AUTO_COMPACTION_MODE: etcd.autoCompactionMode,
      ETCD_AUTO_COMPACTION_RETENTION: String(etcd.autoCompactionRetention),
      ...(etcd.debug ? { ETCD_LOG_LEVEL: "debug" } : {}),
    };
    return [
      { name: "MY_POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      ...Object.entries(settings).map(([name, value]) => ({ name, value })),
      ...etcd.extraEnvVars,
    ];
  }

  private container(): Container {
    const { etcd } = this.install.values;
    return {
      name: "etcd",
      image: etcd.image,
      imagePullPolicy: "IfNotPresent",
      command: ["etcd"],
      env: this.env(),
      ports: [
        { name: "client", containerPort: PORTS.etcdClient, protocol: "TCP" },
        { name: "peer", containerPort: PORTS.etcdPeer, protocol: "TCP" },
      ],
      resources: resourcesOf(etcd.resources),
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"] },
        readOnlyRootFilesystem: true,
        runAsGroup: UID.data,
        runAsNonRoot: true,
        runAsUser: UID.data,
      },
      // Healthy means: sees a leader. Only a member that does not listen is restarted for it.
      readinessProbe: httpProbe({ port: PORTS.etcdClient, path: "/health" }, QUICKLY_READY),
      livenessProbe: tcpProbe(PORTS.etcdClient, {
        initialDelaySeconds: 60,
        periodSeconds: 30,
        failureThreshold: 5,
      }),
      volumeMounts: [{ name: "data", mountPath: MOUNT_PATH }],
    };
  }
}
