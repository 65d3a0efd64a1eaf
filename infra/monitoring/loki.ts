/**
 * loki: keeps the logs that promtail sends; one member with a volume.
 * Names, labels and the volume claim are those of published installations, so that existing logs stay.
 */
import type { App } from "cdk8s";
import { stringify } from "yaml";
import type { Install } from "../config.ts";
import { claimTemplate } from "../constructs/claim.ts";
import { type Container, InstallChart, type Labels } from "../constructs/kube.ts";
import {
  CHOWN_ONLY,
  DEFAULT_SECCOMP,
  httpProbe,
  identity,
  initContainer,
  placementOf,
  podLabels,
  pullSecrets,
  SMALL,
} from "../constructs/pod.ts";
import { MANUAL_STORAGE_CLASS, PORTS } from "../names.ts";
import { canonicalQuantity } from "../quantity.ts";

const DATA = "/data";
const CONFIG_KEY = "loki.yaml";
/** What loki has in memory goes to its disk when it ends, which takes as long as there is much of it; as in its own chart. */
const FLUSH_SECONDS = 4800;
const DATA_MOUNT = { name: "storage", mountPath: DATA };

export class LokiChart extends InstallChart {
  private readonly name: string;

  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    this.name = this.named("loki");
    this.addVolume();
    this.add(
      "ConfigMap",
      { name: this.name, component: "loki" },
      { data: { [CONFIG_KEY]: stringify(this.config()) } },
    );
    this.addServices();
    this.addStatefulSet();
  }

  private get values() {
    return this.install.values["loki-stack"].loki;
  }

  /** Selects the pod; the same as published, and stable. */
  private get members(): Labels {
    return { app: "loki", release: this.install.release };
  }

  private addVolume(): void {
    const { persistence } = this.values;
    if (!persistence.enabled || persistence.storageClassName !== MANUAL_STORAGE_CLASS) return;
    const labels = { "statefulset.kubernetes.io/pod-name": `${this.name}-0` };
    this.add(
      "PersistentVolume",
      { name: "loki-volume-0", labels },
      {
        spec: {
          accessModes: ["ReadWriteOnce"],
          capacity: { storage: canonicalQuantity(persistence.size) },
          hostPath: {
            path: `/var/local/${this.install.release}/loki`,
            type: "DirectoryOrCreate",
          },
          persistentVolumeReclaimPolicy: persistence.reclaimPolicy,
          storageClassName: MANUAL_STORAGE_CLASS,
          // Any claim of that class would do for Kubernetes; etcd's are of another size.
          claimRef: {
            apiVersion: "v1",
            kind: "PersistentVolumeClaim",
            name: `storage-${this.name}-0`,
            namespace: this.install.namespace,
          },
        },
      },
    );
  }

  private config() {
    const { compactor, limits_config } = this.values.config;
    const folder = (name: string) => `${DATA}/loki/${name}`;
    return {
      auth_enabled: false,
      analytics: { reporting_enabled: false },
      compactor: {
        ...compactor,
        shared_store: "filesystem",
        working_directory: folder("boltdb-shipper-compactor"),
      },
      ingester: {
        chunk_block_size: 262_144,
        chunk_idle_period: "3m",
        chunk_retain_period: "1m",
        lifecycler: { ring: { kvstore: { store: "inmemory" }, replication_factor: 1 } },
        max_transfer_retries: 0,
        wal: { dir: folder("wal") },
      },
      limits_config: {
        ...limits_config,
        enforce_metric_name: false,
        max_entries_limit_per_query: 5000,
        reject_old_samples: true,
        reject_old_samples_max_age: "168h",
      },
      schema_config: {
        configs: [
          {
            from: "2020-10-24",
            index: { period: "24h", prefix: "index_" },
            object_store: "filesystem",
            schema: "v11",
            store: "boltdb-shipper",
          },
        ],
      },
      server: { http_listen_port: PORTS.loki },
      storage_config: {
        boltdb_shipper: {
          active_index_directory: folder("boltdb-shipper-active"),
          cache_location: folder("boltdb-shipper-cache"),
          cache_ttl: "24h",
          shared_store: "filesystem",
        },
        filesystem: { directory: folder("chunks") },
      },
    };
  }

  private addServices(): void {
    const { type, port, nodePort } = this.values.service;
    const fixed = type === "NodePort" && nodePort !== "" ? { nodePort } : {};
    const http = { name: "http-metrics", port, targetPort: "http-metrics", protocol: "TCP" };
    this.add(
      "Service",
      { name: this.name, component: "loki", labels: this.members },
      { spec: { type, selector: this.members, ports: [{ ...http, ...fixed }] } },
    );
    this.add(
      "Service",
      {
        name: `${this.name}-headless`,
        component: "loki",
        labels: { ...this.members, variant: "headless" },
      },
      {
        spec: {
          clusterIP: "None",
          selector: this.members,
          ports: [{ ...http, port: PORTS.loki }],
        },
      },
    );
  }

  private addStatefulSet(): void {
    const { install } = this;
    const { persistence, securityContext } = this.values;
    const storage = persistence.storageClassName;
    const claim = claimTemplate("storage", persistence.size, storage);
    this.add(
      "StatefulSet",
      { name: this.name, component: "loki", labels: this.members },
      {
        spec: {
          replicas: 1,
          selector: { matchLabels: this.members },
          serviceName: `${this.name}-headless`,
          updateStrategy: { type: "RollingUpdate" },
          template: {
            metadata: { labels: { ...podLabels(this, "loki"), ...this.members } },
            spec: {
              ...identity(this.name, { token: false }),
              ...placementOf(install, this.values),
              ...pullSecrets(install),
              securityContext: { ...securityContext, ...DEFAULT_SECCOMP },
              terminationGracePeriodSeconds: FLUSH_SECONDS,
              initContainers: this.initContainers(),
              containers: [this.container()],
              volumes: [
                { name: "config", configMap: { name: this.name } },
                ...(persistence.enabled ? [] : [{ name: "storage", emptyDir: {} }]),
              ],
            },
          },
          ...(persistence.enabled ? { volumeClaimTemplates: [claim] } : {}),
        },
      },
    );
  }

  private initContainers(): Container[] {
    return this.values.initContainers.map((container) => ({
      ...initContainer(this.install, container, { resources: SMALL, securityContext: CHOWN_ONLY }),
      volumeMounts: container.volumeMounts ?? [DATA_MOUNT],
    }));
  }

  private container(): Container {
    const ready = { port: PORTS.loki, path: "/ready" };
    return {
      name: "loki",
      image: this.values.image,
      imagePullPolicy: "IfNotPresent",
      args: [`-config.file=/etc/loki/${CONFIG_KEY}`],
      ports: [{ name: "http-metrics", containerPort: PORTS.loki, protocol: "TCP" }],
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"] },
        readOnlyRootFilesystem: true,
      },
      readinessProbe: httpProbe(ready, { initialDelaySeconds: 45 }),
      livenessProbe: httpProbe(ready, { initialDelaySeconds: 45, failureThreshold: 6 }),
      volumeMounts: [DATA_MOUNT, { name: "config", mountPath: "/etc/loki" }],
    };
  }
}
