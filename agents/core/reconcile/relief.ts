/**
 * Relief of pools without space: the largest replica that stopped for want of space is made anew on another pool.
 *
 * Why: thin replicas may together want more than their pool has. What the largest one sets free lets the others come
 * back, each by a partial rebuild.
 * Invariants: only a replica that holds no current copy is moved, so no volume has fewer good copies than before, not even
 * for a moment; it goes after the new one is a child of the nexus, whose rebuild reads from another; one move a pool at
 * a time, and none while one of the pool's children can come back as it is.
 */
import type { NexusSpec } from "#common/types/nexus.ts";
import { poolOf } from "#common/types/replica.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import { type Core, hasRebuildSlot } from "../context.ts";
import type { NexusState } from "../engine/client.ts";
import { childOf, replicasOfVolume } from "../scheduling/snapshot.ts";
import { attachReplica, createReplicaOn, placesFor, removeReplica } from "../volume/replicas.ts";
import { forEach } from "./each.ts";
import { hasRoom } from "./hot_spare.ts";
import type { Outcome } from "./loop.ts";

/** A child of a degraded nexus that stopped because its pool has no space. */
export type FullChild = {
  readonly volume: string;
  readonly replica: string;
  readonly pool: string;
  readonly allocated: number;
  /** Its pool has room for it again: it comes back as it is. */
  readonly canReturn: boolean;
  /** Its volume has all it should have, and another pool may take it. */
  readonly canMove: boolean;
  /** Its volume is being changed: what comes of it is waited for. */
  readonly isBusy: boolean;
};

/** Pure decision: which replicas are moved now, one a pool. */
export function reliefOf(children: readonly FullChild[]): FullChild[] {
  const moves: FullChild[] = [];
  for (const pool of new Set(children.map((child) => child.pool))) {
    const ofPool = children.filter((child) => child.pool === pool);
    if (ofPool.some(({ canReturn, isBusy }) => canReturn || isBusy)) continue;
    const [largest] = ofPool
      .filter(({ canMove }) => canMove)
      .sort((a, b) => b.allocated - a.allocated || (a.replica < b.replica ? -1 : 1));
    if (largest) moves.push(largest);
  }
  return moves;
}

type Seen = {
  readonly volume: VolumeSpec;
  readonly nexus: NexusSpec;
  readonly state: NexusState;
  readonly owned: number;
};

/** An operation, a rebuild, or a move that stopped halfway, whose surplus the hot spare takes away. */
function isBusy({ volume, nexus, state, owned }: Seen): boolean {
  const count = volume.num_replicas;
  const operation = volume.operation !== null || nexus.operation !== null;
  return operation || state.rebuilds > 0 || owned > count || state.children.length > count;
}

function isWhole(core: Core, { volume, state, owned }: Seen): boolean {
  const { num_replicas, policy } = volume;
  const created = core.specs.volumes.phase(volume) === "Created";
  const isHere = state.children.length === num_replicas && owned === num_replicas;
  return created && policy.self_heal && isHere;
}

/** As seen now; read in one turn of the event loop. */
function fullChildren(core: Core): FullChild[] {
  const { specs, registry } = core;
  const found: FullChild[] = [];
  for (const state of registry.nexuses()) {
    if (state.status !== "Degraded" || !registry.isOnline(state.node)) continue;
    if (!state.children.some(({ reason }) => reason === "NoSpace")) continue;
    const nexus = specs.nexuses.find(state.uuid);
    const volume = nexus?.owner ? specs.volumes.find(nexus.owner) : undefined;
    if (!nexus || !volume?.target?.active || volume.target.nexus !== nexus.uuid) continue;
    const replicas = replicasOfVolume(core, volume.uuid);
    const all: Seen = { volume, nexus, state, owned: replicas.length };
    for (const spec of replicas) {
      const seen = registry.replica(spec.uuid);
      if (childOf(spec.uuid, nexus, state)?.reason !== "NoSpace" || seen?.status !== "Online") {
        continue;
      }
      found.push({
        ...{ volume: volume.uuid, replica: spec.uuid, pool: poolOf(spec) },
        allocated: seen.space?.allocated ?? seen.size,
        canReturn: hasRoom(core, volume, spec.uuid),
        canMove: isWhole(core, all) && placesFor(core, volume, spec.uuid).pools.length > 0,
        isBusy: isBusy(all),
      });
    }
  }
  return found;
}

async function move(core: Core, { volume: uuid, replica, pool }: FullChild): Promise<void> {
  const volume = core.specs.volumes.get(uuid);
  const nexus = core.specs.nexuses.get(volume.target?.nexus ?? "");
  const successor = await createReplicaOn(core, volume, placesFor(core, volume, replica));
  // What fails or stops from here on leaves one too many: the hot spare keeps whichever is the nexus's child.
  await attachReplica(core, nexus, successor);
  await removeReplica(core, volume, replica);
  core.log.info("replica moved from a pool without space", {
    ...{ "volume.uuid": uuid, "replica.uuid": replica, "pool.id": pool, successor },
  });
}

export function relievePools(core: Core, signal: AbortSignal): Promise<Outcome> {
  return forEach(core, reliefOf(fullChildren(core)), {
    name: "pool relief",
    signal,
    guardOf: ({ volume }) => `volume/${volume}`,
    step: async ({ replica }) => {
      const due = reliefOf(fullChildren(core)).find((child) => child.replica === replica);
      if (!due) return "idle"; // no more, now that we hold the guard
      // A replica that may not be rebuilt yet would be one too many, and taken away again.
      if (!hasRebuildSlot(core)) return "idle";
      await move(core, due);
      return "busy";
    },
  });
}
