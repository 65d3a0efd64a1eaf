/**
 * Key layout: where each object lives in the store.
 *
 * Why: upgrade tools and the previous releases read the same keys, so the layout is an interface.
 * Invariants: every v2 key starts with the cluster's prefix; ids are validated before they become
 * a path segment (ids.ts), so no id can reach into another kind.
 */
import { readFileSync } from "node:fs";
import { SvcError } from "../errors.ts";

export const SPEC_KINDS = [
  "VolumeSpec",
  "NodeSpec",
  "NexusSpec",
  "PoolSpec",
  "ReplicaSpec",
] as const;

export type SpecKind = (typeof SPEC_KINDS)[number];
export type StoredKind =
  | SpecKind
  | "CoreRegistryConfig"
  | "StoreLeaseLock"
  | "StoreLeaseOwner"
  | "SwitchOver"
  | "PurgedPool"
  | "PurgedNode"
  | "Volume";

/** The id of the only CoreRegistryConfig. */
export const REGISTRY_CONFIG_ID = "db98f8bb-4afc-45d0-85b9-24c99cc443f2";

export type ClusterPlace = {
  /** uid of the kube-system namespace, or what stands in for it outside Kubernetes. */
  readonly clusterUid: string;
  readonly namespace: string;
};

export type StoreKeys = ReturnType<typeof storeKeys>;

export function storeKeys({ clusterUid, namespace }: ClusterPlace) {
  const prefix = `/openebs.io/mayastor/apis/v0/clusters/${clusterUid}/namespaces/${namespace}`;
  const legacy = `/namespace/${namespace}/control-plane`;
  return {
    prefix,
    object: (kind: StoredKind, id: string) => `${prefix}/${kind}/${id}`,
    kindPrefix: (kind: StoredKind) => `${prefix}/${kind}/`,
    /** NexusInfo of a nexus; `volume` is null for a nexus without a volume. */
    nexusInfo: (volume: string | null, nexus: string) =>
      volume === null
        ? `${prefix}/nexus/${nexus}/info`
        : `${prefix}/volume/${volume}/nexus/${nexus}/info`,
    /** Every NexusInfo of a volume. */
    nexusInfosOf: (volume: string) => `${prefix}/volume/${volume}/nexus/`,
    legacyPrefix: `${legacy}/`,
    legacyKindPrefix: (kind: SpecKind) => `${legacy}/${kind}/`,
    /** The 1.0 NexusInfo: the bare uuid at the root of the key space. */
    legacyNexusInfo: (nexus: string) => nexus,
    leaseLockPrefix: (owner: string) => `${prefix}/StoreLeaseLock/${owner}/`,
    leaseLock: (owner: string, lease: bigint) =>
      `${prefix}/StoreLeaseLock/${owner}/${lease.toString(16)}`,
    leaseOwner: (owner: string) => `${prefix}/StoreLeaseOwner/${owner}`,
  };
}

export type Env = Readonly<Record<string, string | undefined>>;

/**
 * Where we run. Inside Kubernetes `kubeSystemUid` must find the uid of the kube-system namespace.
 * @throws {SvcError} `failed-precondition` when the uid cannot be read
 */
export async function clusterPlace(
  env: Env,
  kubeSystemUid: (() => Promise<string>) | null,
): Promise<ClusterPlace> {
  if (env["KUBERNETES_SERVICE_HOST"]) {
    if (!kubeSystemUid) {
      throw new SvcError(
        "failed-precondition",
        "Cannot find the cluster id: no access to the Kubernetes API",
      );
    }
    return {
      clusterUid: await kubeSystemUid(),
      namespace: env["MY_POD_NAMESPACE"] ?? "default",
    };
  }
  return { clusterUid: env["NOPLATFORM_UUID"] || machineId(), namespace: "default" };
}

function machineId(): string {
  try {
    return readFileSync("/etc/machine-id", "utf8").trim() || "dummy-uuid";
  } catch {
    return "dummy-uuid"; // a container often has no machine id; the documented fallback
  }
}
