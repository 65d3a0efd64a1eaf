/**
 * Names, ports and labels of the installation, as published: upgrade and support tools, dashboards
 * and users' scripts select on them.
 * Invariant: nothing else in infra/ spells one of these.
 */

/** Every component of the installation; the label `app` and, after the release name, the object name. */
export type Component =
  | "agent-core"
  | "api-rest"
  | "csi-controller"
  | "csi-node"
  | "io-engine"
  | "operator-diskpool"
  | "metrics-exporter-pool"
  | "etcd"
  | "loki"
  | "promtail";

export const PORTS = {
  agentCore: 50051,
  restHttps: 8080,
  restHttp: 8081,
  ioEngine: 10124,
  csiNode: 10199,
  metricsExporter: 9502,
  etcdClient: 2379,
  etcdPeer: 2380,
  loki: 3100,
  promtail: 3101,
} as const;

/** Folder of the node plugin's socket below `<kubelet>/plugins`; not the driver's name, as published. */
export const CSI_PLUGIN_DIR = "io.openebs.mayastor";

export const RELEASE_LABEL = "openebs.io/release";
export const VERSION_LABEL = "openebs.io/version";
export const LOGGING_LABEL = "openebs.io/logging";
export const ENGINE_LABEL = "openebs.io/engine";

/** Class name that means: volumes on a folder of the node, made by this installation. */
export const MANUAL_STORAGE_CLASS = "manual";

/** Users that containers run as; every image works under any of them. */
export const UID = {
  /** Our own programs that need no privilege. */
  agent: 65532,
  /** etcd and loki: the owner of data that published installations left on volumes. */
  data: 1001,
} as const;
