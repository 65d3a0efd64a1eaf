/**
 * Which pool gets a replica: the published filters in order, then the published weights.
 *
 * Pure: a snapshot in, an ordered list out; the same snapshot always gives the same order.
 * Invariant: a pool that fails one filter is never returned, whatever its score.
 */
import { MIB } from "#common/units.ts";

/** Below this much free space a pool takes nothing. */
export const FREE_WATERMARK = Number(16n * MIB);

export type PoolItem = {
  readonly id: string;
  readonly node: string;
  readonly nodeOnline: boolean;
  readonly nodeCordoned: boolean;
  readonly status: "Unknown" | "Online" | "Degraded" | "Faulted";
  /** Managed: the control plane has a spec of it. */
  readonly hasSpec: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly capacity: number;
  readonly free: number;
  readonly committed: number;
  /** Of its disk; null: not known. */
  readonly blockSize: number | null;
  readonly replicaCount: number;
  /** Replicas of the same affinity group on this pool and on this node. */
  readonly groupOnPool: number;
  readonly groupOnNode: number;
};

export type ReplicaRequest = {
  /** Of the replica: the volume's, and what its target keeps for itself. */
  readonly size: number;
  /** Of the volume's other replicas; null: there are none, or it is not known. */
  readonly blockSize: number | null;
  readonly thin: boolean;
  readonly published: boolean;
  /** null: any node. */
  readonly allowedNodes: readonly string[] | null;
  readonly poolLabels: Readonly<Record<string, string>>;
  /** Nodes that hold a replica of this volume already. */
  readonly usedNodes: readonly string[];
  /** A move within one node may use another pool of that node. */
  readonly movingFrom?: { readonly node: string; readonly pool: string };
  /** Bytes the volume's largest replica has allocated; null: unknown; 0: the first replicas. */
  readonly allocated: number | null;
  readonly inGroup: boolean;
  readonly replicaCount: number;
  /** Nodes that hold replicas of other volumes of the group: excluded when the volume has one replica. */
  readonly groupNodes: readonly string[];
};

export type Commitment = {
  readonly poolCommitment: number;
  readonly volumeCommitment: number;
  readonly volumeCommitmentInitial: number;
};

/** All the replicas of a volume have blocks of one size: no target can be made of others. */
function hasBlockSize(pool: PoolItem, { blockSize }: ReplicaRequest): boolean {
  return blockSize === null || pool.blockSize === null || pool.blockSize === blockSize;
}

type Filter = (pool: PoolItem, request: ReplicaRequest, limits: Commitment) => boolean;

function isUnusedNode(pool: PoolItem, { usedNodes, movingFrom }: ReplicaRequest): boolean {
  if (movingFrom && pool.node === movingFrom.node) return pool.id !== movingFrom.pool;
  return !usedNodes.includes(pool.node);
}

function hasFree(pool: PoolItem, request: ReplicaRequest): boolean {
  return pool.free > (request.thin ? FREE_WATERMARK : request.size);
}

function hasThinFree(pool: PoolItem, request: ReplicaRequest, limits: Commitment): boolean {
  if (!request.thin) return true;
  const { size } = request;
  const allocated = request.allocated ?? size;
  const percent = allocated === 0 ? limits.volumeCommitmentInitial : limits.volumeCommitment;
  return pool.free > Math.min(allocated + (percent * size) / 100, size);
}

function withinCommitment(pool: PoolItem, { size }: ReplicaRequest, limits: Commitment): boolean {
  return (pool.committed + size) * 100 < limits.poolCommitment * pool.capacity;
}

type PoolFilter = {
  readonly name: string;
  readonly holds: Filter;
  /** The rule in figures, where it has any. */
  readonly figures?: (request: ReplicaRequest, limits: Commitment) => string;
};

/** In the published order; each name says what must hold. */
export const POOL_FILTERS: readonly PoolFilter[] = [
  { name: "node is not cordoned", holds: (pool) => !pool.nodeCordoned },
  { name: "node is online", holds: (pool) => pool.nodeOnline },
  {
    name: "node is allowed",
    holds: (pool, { allowedNodes }) => allowedNodes === null || allowedNodes.includes(pool.node),
  },
  { name: "node holds no replica of the volume", holds: isUnusedNode },
  {
    name: "pool is usable",
    holds: (pool) => pool.hasSpec && pool.status !== "Faulted" && pool.status !== "Unknown",
  },
  {
    name: "pool has the block size of the volume's replicas",
    holds: hasBlockSize,
    figures: ({ blockSize }) => `${blockSize} bytes`,
  },
  {
    name: "pool is large enough",
    holds: (pool, { size }) => pool.capacity > size,
  },
  { name: "pool has free space", holds: hasFree },
  {
    name: "pool has the labels",
    holds: (pool, { poolLabels }) =>
      Object.entries(poolLabels).every(([key, value]) => pool.labels[key] === value),
  },
  {
    name: "pool has free space for a thin volume",
    holds: hasThinFree,
    figures: ({ size }, { volumeCommitment, volumeCommitmentInitial }) =>
      `more than ${volumeCommitmentInitial} % of ${size} bytes for the first replicas, what is allocated and ${volumeCommitment} % for others`,
  },
  {
    name: "pool is not overcommitted",
    holds: withinCommitment,
    figures: ({ size }, { poolCommitment }) =>
      `all replicas with another ${size} bytes below ${poolCommitment} % of its capacity`,
  },
  {
    name: "node holds no replica of the affinity group",
    holds: (pool, { inGroup, replicaCount, groupNodes }) =>
      !inGroup || replicaCount !== 1 || !groupNodes.includes(pool.node),
  },
];

type Criterion = {
  readonly weight: number;
  readonly better: "lower" | "higher";
  readonly measure: (pool: PoolItem) => number;
};

function overCommitment(pool: PoolItem): number {
  return Math.max(0, pool.committed - pool.capacity);
}

/** The published weights. */
function criteriaOf({ thin, inGroup, replicaCount }: ReplicaRequest): readonly Criterion[] {
  const grouped = inGroup && replicaCount > 1;
  const weights = thin
    ? grouped
      ? { replicas: 15, group: 10, free: 40, over: 35 }
      : { replicas: 25, group: 0, free: 40, over: 35 }
    : grouped
      ? { replicas: 25, group: 15, free: 60, over: 0 }
      : { replicas: 40, group: 0, free: 60, over: 0 };
  return [
    { weight: weights.replicas, better: "lower", measure: (pool) => pool.replicaCount },
    {
      weight: weights.group,
      better: "lower",
      measure: (pool) => pool.groupOnPool + pool.groupOnNode,
    },
    { weight: weights.free, better: "higher", measure: (pool) => pool.free },
    { weight: weights.over, better: "lower", measure: overCommitment },
  ];
}

/** How much better `a` is than `b`: positive when `a` wins. */
export function comparePools(a: PoolItem, b: PoolItem, request: ReplicaRequest): number {
  let total = 0;
  for (const { weight, better, measure } of criteriaOf(request)) {
    const [left, right] = [measure(a), measure(b)];
    const sum = left + right;
    const grade = sum === 0 ? 50 : (100 * left) / sum;
    const own = better === "higher" ? grade : 100 - grade;
    total += weight * (own - (100 - own));
  }
  return total;
}

const STATUS_RANK = { Online: 0, Degraded: 1, Faulted: 2, Unknown: 3 } as const;

/** Pools that may take the replica, best first. */
export function selectPools(
  pools: readonly PoolItem[],
  request: ReplicaRequest,
  limits: Commitment,
): PoolItem[] {
  return pools
    .filter((pool) => POOL_FILTERS.every(({ holds }) => holds(pool, request, limits)))
    .sort(
      (a, b) =>
        STATUS_RANK[a.status] - STATUS_RANK[b.status] ||
        comparePools(b, a, request) ||
        (a.id < b.id ? -1 : 1),
    );
}

/** For people: how many pools each filter left. */
export function explainPools(
  pools: readonly PoolItem[],
  request: ReplicaRequest,
  limits: Commitment,
): string {
  let left = [...pools];
  const parts = [`${pools.length} pools`];
  for (const { name, holds, figures } of POOL_FILTERS) {
    const before = left.length;
    left = left.filter((pool) => holds(pool, request, limits));
    if (left.length === before) continue;
    parts.push(`${left.length} where ${name}${figures ? ` (${figures(request, limits)})` : ""}`);
  }
  return parts.join(", ");
}

/** The first pool of each node, in order. */
export function onDistinctNodes(pools: readonly PoolItem[]): PoolItem[] {
  const nodes = new Set<string>();
  return pools.filter((pool) => {
    if (nodes.has(pool.node)) return false;
    nodes.add(pool.node);
    return true;
  });
}

/** Of pools with different block sizes those of one: the size of the best pool that has enough others on other nodes. */
export function ofOneBlockSize(pools: readonly PoolItem[], need: number): readonly PoolItem[] {
  const sizes = new Set(pools.flatMap(({ blockSize }) => blockSize ?? []));
  if (sizes.size < 2) return pools;
  const groups = [...sizes].map((size) =>
    pools.filter(({ blockSize }) => blockSize === null || blockSize === size),
  );
  const reach = (group: readonly PoolItem[]) => onDistinctNodes(group).length;
  const enough = groups.find((group) => reach(group) >= need);
  return enough ?? groups.reduce((best, group) => (reach(group) > reach(best) ? group : best));
}
