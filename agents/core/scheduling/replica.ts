/**
 * Which replicas a nexus is made of, which one is attached next, and which one goes first. Pure.
 *
 * Invariants: a replica that NexusInfo does not call healthy never becomes a source of data; after a nexus that
 * was not shut down cleanly exactly one child is used, because only one copy can be trusted to be complete.
 */
import type { NexusInfo } from "#common/types/cluster.ts";
import type { ChildReason } from "../engine/client.ts";

export type ReplicaItem = {
  readonly uuid: string;
  readonly node: string;
  readonly pool: string;
  readonly size: number;
  /** null: not known. */
  readonly blockSize: number | null;
  readonly online: boolean;
  readonly poolFree: number;
  /** Of this replica; null while unknown. */
  readonly allocated: number | null;
  /** The nexus's child over it, when there is one. */
  readonly child: {
    readonly status: "Unknown" | "Online" | "Degraded" | "Faulted";
    readonly reason: ChildReason;
    readonly rebuildProgress: number | null;
  } | null;
  readonly groupOnPool: number;
};

export type NexusRequest = {
  readonly node: string;
  readonly size: number;
  readonly replicaCount: number;
  readonly info: NexusInfo | null;
  /** Nodes of earlier nexuses that may still write to their local replica. */
  readonly suspectNodes: readonly string[];
};

export function isHealthy(uuid: string, info: NexusInfo | null): boolean {
  return info === null || info.children.some((child) => child.uuid === uuid && child.healthy);
}

/** Children of a new nexus, local first. Empty when there is no usable one. */
export function selectForNexus(
  replicas: readonly ReplicaItem[],
  { node, size, replicaCount, info, suspectNodes }: NexusRequest,
): ReplicaItem[] {
  const rank = (replica: ReplicaItem) => (replica.node === node ? 0 : 1);
  const nodes = new Set<string>();
  const usable = replicas
    .filter((replica) => replica.online && replica.size >= size)
    .filter((replica) => isHealthy(replica.uuid, info))
    .filter((replica) => !suspectNodes.includes(replica.node))
    .sort((a, b) => rank(a) - rank(b))
    .filter((replica) => {
      if (nodes.has(replica.node)) return false;
      nodes.add(replica.node);
      return true;
    });
  const most = info !== null && !info.clean_shutdown ? 1 : replicaCount;
  return sameBlocks(usable).slice(0, most);
}

/**
 * A nexus has blocks of one size. Healthy replicas with different ones never were in one nexus: most of them decide, and
 * of equally many the first.
 */
function sameBlocks(replicas: readonly ReplicaItem[]): readonly ReplicaItem[] {
  const sizes = new Set(replicas.flatMap(({ blockSize }) => blockSize ?? []));
  if (sizes.size < 2) return replicas;
  return [...sizes]
    .map((size) => replicas.filter(({ blockSize }) => blockSize === null || blockSize === size))
    .reduce((best, group) => (group.length > best.length ? group : best));
}

/**
 * Replicas that can never become children of the nexus beside those it has: of another block size, or smaller than all of them
 * and without room for the whole volume. Nothing can have been written to them through it. Those of pools with other
 * cluster sizes may differ and fit all the same.
 */
export function unfitFor(
  replicas: readonly ReplicaItem[],
  { info, sizeMin }: { readonly info: NexusInfo | null; readonly sizeMin: number },
): ReplicaItem[] {
  const children = replicas.filter(({ child }) => child !== null);
  const blockSizes = new Set(children.flatMap(({ blockSize }) => blockSize ?? []));
  const least = Math.min(...children.map(({ size }) => size));
  const isRecorded = ({ uuid }: ReplicaItem) =>
    info?.children.some((child) => child.uuid === uuid && child.healthy) ?? false;
  return replicas.filter(
    (replica) =>
      replica.online &&
      replica.child === null &&
      !isRecorded(replica) &&
      children.length > 0 &&
      ((replica.size < least && replica.size < sizeMin) ||
        (replica.blockSize !== null && blockSizes.size > 0 && !blockSizes.has(replica.blockSize))),
  );
}

/** Replicas to attach to a live nexus, best first: local, then healthy, then by free space. */
export function sortForAttach(
  replicas: readonly ReplicaItem[],
  { node, info }: { readonly node: string; readonly info: NexusInfo | null },
): ReplicaItem[] {
  const local = (replica: ReplicaItem) => (replica.node === node ? 0 : 1);
  const healthy = (replica: ReplicaItem) =>
    info?.children.some((child) => child.uuid === replica.uuid && child.healthy) ? 0 : 1;
  return replicas
    .filter((replica) => replica.online && replica.child === null)
    .sort(
      (a, b) =>
        local(a) - local(b) ||
        healthy(a) - healthy(b) ||
        b.poolFree - a.poolFree ||
        (a.uuid < b.uuid ? -1 : 1),
    );
}

/** Worst first. */
const CHILD_RANK = { Faulted: 0, Unknown: 1, Degraded: 2, Online: 3 } as const;

/** Replicas in the order in which they may go: the first one is missed least. */
export function sortForRemoval(
  replicas: readonly ReplicaItem[],
  { node, info }: { readonly node: string | null; readonly info: NexusInfo | null },
): ReplicaItem[] {
  const healthy = (replica: ReplicaItem) => (isHealthy(replica.uuid, info) ? 1 : 0);
  const child = ({ child }: ReplicaItem) => {
    if (!child) return -1;
    // An engine shows it as Degraded, but it takes no writes: one that is being rebuilt is worth more.
    return child.reason === "NoSpace" ? CHILD_RANK.Faulted : CHILD_RANK[child.status];
  };
  const rebuilt = (replica: ReplicaItem) => replica.child?.rebuildProgress ?? 100;
  const local = (replica: ReplicaItem) => (node !== null && replica.node === node ? 1 : 0);
  return [...replicas].sort(
    (a, b) =>
      healthy(a) - healthy(b) ||
      child(a) - child(b) ||
      rebuilt(a) - rebuilt(b) ||
      local(a) - local(b) ||
      b.groupOnPool - a.groupOnPool ||
      (a.online === b.online ? 0 : a.online ? 1 : -1) ||
      (a.uuid < b.uuid ? -1 : 1),
  );
}

/**
 * The replica to remove when there are more than wanted; null when removing any would cost a healthy copy
 * that is still needed.
 */
export function removalCandidate(
  replicas: readonly ReplicaItem[],
  options: {
    readonly node: string | null;
    readonly info: NexusInfo | null;
    readonly wanted: number;
  },
): ReplicaItem | null {
  const [first] = sortForRemoval(replicas, options);
  if (!first) return null;
  const isGood = (replica: ReplicaItem) =>
    replica.online &&
    isHealthy(replica.uuid, options.info) &&
    (replica.child === null || replica.child.status === "Online");
  if (!isGood(first)) return first;
  return replicas.filter(isGood).length > options.wanted ? first : null;
}
