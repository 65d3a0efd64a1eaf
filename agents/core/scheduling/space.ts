/**
 * The space of pools as decisions must see it: what the engines reported last, and what was decided since.
 *
 * Why: an engine's figures are as old as its last reading. Decisions on them alone, many at once or one after the other,
 * promise the same space again and again.
 * Invariants:
 * - A replica counts from the decision to make it: first as a reservation in memory, then by its spec in the store (so that
 *   the next leader counts it too), then as its engine's answer, at last in the engine's own figures; never twice.
 * - One that has gone since the figures were read counts no more.
 */
import { poolOf } from "#common/types/replica.ts";
import type { Core } from "../context.ts";
import type { PoolState, ReplicaState } from "../engine/client.ts";

const CLUSTER_BYTES_DEFAULT = 4 * 2 ** 20;

/** A replica that is about to be made. */
export type Reservation = {
  /** Of the replica. */
  readonly uuid: string;
  readonly pool: string;
  readonly node: string;
  readonly size: number;
  readonly thin: boolean;
};

/** By the replica's uuid. */
export type Reservations = Map<string, Reservation>;

export type PoolSpace = { readonly free: number; readonly committed: number };

type Replica = {
  readonly uuid: string;
  readonly pool: string;
  readonly node: string;
  readonly size: number;
  readonly allocated: number;
};

const placeOf = ({ node, pool }: { readonly node: string; readonly pool: string }) =>
  `${node}/${pool}`;

function clusterBytes(pool: PoolState | undefined): number {
  return pool?.clusterSize || CLUSTER_BYTES_DEFAULT;
}

function fromState({ uuid, pool, node, size, space }: ReplicaState): Replica {
  return { uuid, pool, node, size, allocated: space?.allocated ?? size };
}

/** Replicas of which the engine has not told yet: those that are reserved, and those whose specs are in the making or
 * condemned without an answer. */
function untold(core: Core): Replica[] {
  const { specs, registry, reservations } = core;
  const found = new Map<string, Replica>();
  const add = ({ uuid, pool, node, size, thin }: Reservation) => {
    if (registry.replica(uuid)) return;
    const cluster = clusterBytes(registry.pool(pool, node));
    const whole = Math.ceil(size / cluster) * cluster;
    found.set(uuid, { uuid, pool, node, size: whole, allocated: thin ? cluster : whole });
  };
  for (const reservation of reservations.values()) add(reservation);
  for (const spec of specs.replicas.all()) {
    if (specs.replicas.phase(spec) === "Created") continue; // told, or lost
    const pool = poolOf(spec);
    const node = specs.pools.find(pool)?.node;
    if (node !== undefined) add({ ...spec, pool, node });
  }
  return [...found.values()];
}

/** The space of every pool that is loaded, in the registry's order. */
export function poolSpaces(core: Core): ReadonlyMap<PoolState, PoolSpace> {
  const { registry } = core;
  const changes = new Map<string, { allocated: number; committed: number }>();
  const count = (replica: Replica, sign: 1 | -1) => {
    const key = placeOf(replica);
    const change = changes.get(key) ?? { allocated: 0, committed: 0 };
    change.allocated += sign * replica.allocated;
    change.committed += sign * replica.size;
    changes.set(key, change);
  };
  for (const { id } of registry.nodes()) {
    const { came, went } = registry.sinceRead(id);
    for (const state of came) count(fromState(state), 1);
    for (const state of went) count(fromState(state), -1);
  }
  for (const replica of untold(core)) count(replica, 1);
  return new Map(
    registry.pools().map((state) => {
      const change = changes.get(placeOf({ node: state.node, pool: state.id }));
      const used = Math.max(0, state.used + (change?.allocated ?? 0));
      const free = Math.max(0, state.capacity - used);
      return [state, { free, committed: Math.max(0, state.committed + (change?.committed ?? 0)) }];
    }),
  );
}

/** The block size of a pool's disk and so of its replicas: as its engine tells, else as its disk's URI asks for. */
export function blockSizeOfPool(
  state: Pick<PoolState, "blockSize" | "disks"> | undefined,
  disks: readonly string[] = state?.disks ?? [],
): number | null {
  if (state?.blockSize) return state.blockSize;
  const asked = /[?&]blk_size=(\d{3,6})(?:&|$)/.exec(disks[0] ?? "")?.[1];
  return asked === undefined ? null : Number(asked);
}
