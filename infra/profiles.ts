/**
 * Profiles: named sets of values between the defaults and what a user gives.
 * Invariant: a profile says only what it changes, and why.
 */
import type { Tree } from "./merge.ts";

const noLogs = { "loki-stack": { enabled: false } };
/** Volumes for our own etcd and logs where a cluster has no storage class yet: folders of the node. */
const nodeFolders = {
  etcd: { persistence: { storageClass: "manual" } },
  "loki-stack": { loki: { persistence: { storageClassName: "manual" } } },
};

export const PROFILES = {
  /** As documented: three etcd members, logs collected. */
  default: {},
  /** Storage only: no log collection, nothing that watches. */
  minimal: noLogs,
  /** One node: one etcd member in a folder of the node, one reactor core, no spare copies. */
  "single-node": {
    ...noLogs,
    etcd: { ...nodeFolders.etcd, replicaCount: 1, podAntiAffinityPreset: "" },
    io_engine: { cpuCount: 1 },
  },
  /**
   * Talos Linux: no storage class of its own, so etcd and loki use folders below /var, the only
   * writable part of the node; nvme_tcp and hugepages come from the machine configuration.
   */
  talos: nodeFolders,
  /** kind: the nodes are containers of one machine and share its cores. */
  kind: {
    ...noLogs,
    nodeSelector: { "kubernetes.io/arch": null },
    agents: { core: { resources: { requests: { cpu: "50m" } } } },
    etcd: { replicaCount: 1 },
    io_engine: {
      coreList: [0],
      nodeSelector: { "kubernetes.io/arch": null },
      resources: {
        limits: { cpu: "1", memory: "512Mi" },
        requests: { cpu: "100m", memory: "256Mi" },
      },
    },
  },
} as const satisfies Readonly<Record<string, Tree>>;

export type ProfileName = keyof typeof PROFILES;
export const PROFILE_NAMES = Object.keys(PROFILES) as readonly ProfileName[]; // keys of a const object
