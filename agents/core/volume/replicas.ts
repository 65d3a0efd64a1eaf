/**
 * The replicas of a volume: making further ones, attaching them to its nexus, taking them away.
 *
 * Invariant: callers hold the volume's guard.
 */
import { errorMessage, SvcError } from "#common/errors.ts";
import { childUri, type NexusChild, type NexusSpec } from "#common/types/nexus.ts";
import { poolOf } from "#common/types/replica.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import { replicaSizeMin } from "#common/volume_size.ts";
import { type Core, nexusInfoOf } from "../context.ts";
import { addChild, removeChild } from "../nexus/ops.ts";
import { createReplica, destroyOrDisown, makeAccessible } from "../replica/ops.ts";
import {
  explainPools,
  ofOneBlockSize,
  onDistinctNodes,
  type PoolItem,
  type ReplicaRequest,
  selectPools,
} from "../scheduling/pool.ts";
import {
  type ReplicaItem,
  removalCandidate,
  sortForAttach,
  unfitFor,
} from "../scheduling/replica.ts";
import {
  childOf,
  nodeOfReplica,
  poolItems,
  replicaItems,
  replicaRequest,
  replicasOfVolume,
  suspectNodes,
} from "../scheduling/snapshot.ts";
import { isReplicaFailing, pauseLeftMs } from "./fault_memory.ts";

/** Pools that may take replicas, best first, and what was asked of them. */
export type Choice = { readonly pools: readonly PoolItem[]; readonly request: ReplicaRequest };

/** Pools that may take further replicas, best first, one per node. @throws {SvcError} `resource-exhausted` */
export function poolCandidates(
  core: Core,
  volume: VolumeSpec,
  need: number,
  wantedCount: number,
): Choice {
  const items = poolItems(core, volume);
  const request = replicaRequest(core, volume, wantedCount);
  const fitting = selectPools(items, request, core.config);
  const pools = onDistinctNodes(ofOneBlockSize(fitting, need));
  if (pools.length >= need) return { pools, request };
  const why = explainPools(items, request, core.config);
  const mixed = onDistinctNodes(fitting).length > pools.length;
  const blocks = mixed ? `, ${pools.length} of which have one block size` : "";
  throw new SvcError(
    "resource-exhausted",
    `Not enough suitable pools available for replicas of ${request.size} bytes, ${pools.length}/${need} (${why}${blocks})`,
    { fields: { "volume.uuid": volume.uuid } },
  );
}

/** Pools that may take a replica instead of the one it has, best first; also another one of its own node. */
export function placesFor(core: Core, volume: VolumeSpec, replica: string): Choice {
  const spec = core.specs.replicas.get(replica);
  const node = nodeOfReplica(core, spec);
  const asked = replicaRequest(core, volume, volume.num_replicas);
  const request = node === null ? asked : { ...asked, movingFrom: { node, pool: poolOf(spec) } };
  return { pools: selectPools(poolItems(core, volume), request, core.config), request };
}

type Place = { readonly uuid: string; readonly pool: PoolItem };

/**
 * Places for replicas that are about to be made. Their space is taken in the turn of the event loop in which they are chosen;
 * a pool that was not among the first ones is judged again when it is its turn.
 * Invariant: release() is called at the end, whatever came of them: from then on the specs of the replicas count.
 */
export class Places {
  readonly #core: Core;
  readonly #volume: VolumeSpec;
  readonly #request: ReplicaRequest;
  readonly #ready: Place[];
  readonly #rest: PoolItem[];
  readonly #reserved: string[] = [];

  constructor(
    core: Core,
    volume: VolumeSpec,
    { pools, request, count }: Choice & { readonly count: number },
  ) {
    this.#core = core;
    this.#volume = volume;
    this.#request = request;
    this.#ready = pools.slice(0, count).map((pool) => this.#reserve(pool));
    this.#rest = pools.slice(count);
  }

  get size(): number {
    return this.#request.size;
  }

  /** The next one to try; null: there is no further one. */
  next(): Place | null {
    const ready = this.#ready.shift();
    if (ready) return ready;
    for (let pool = this.#rest.shift(); pool; pool = this.#rest.shift()) {
      const { id, node } = pool;
      const now = poolItems(this.#core, this.#volume).filter(
        (item) => item.id === id && item.node === node,
      );
      const [still] = selectPools(now, this.#request, this.#core.config);
      if (still) return this.#reserve(still);
    }
    return null;
  }

  /** It came to nothing: others may have its space. */
  giveBack({ uuid }: Place): void {
    this.#core.reservations.delete(uuid);
  }

  release(): void {
    for (const uuid of this.#reserved) this.#core.reservations.delete(uuid);
  }

  #reserve(pool: PoolItem): Place {
    const uuid = this.#core.random.uuid();
    const { size } = this.#request;
    const { thin } = this.#volume;
    this.#core.reservations.set(uuid, { uuid, pool: pool.id, node: pool.node, size, thin });
    this.#reserved.push(uuid);
    return { uuid, pool };
  }
}

/** Makes up to `count` replicas on the places, in order; returns those that worked. */
export async function createReplicas(
  core: Core,
  volume: VolumeSpec,
  { places, count }: { readonly places: Places; readonly count: number },
): Promise<{ created: string[]; lastError: unknown }> {
  const created: string[] = [];
  let lastError: unknown = null;
  try {
    while (created.length < count) {
      const place = places.next();
      if (!place) break;
      const { uuid, pool } = place;
      try {
        // Unshared until a target needs it: nobody else may reach it meanwhile.
        const of = { uuid, pool: pool.id, size: places.size, thin: volume.thin } as const;
        await createReplica(core, {
          ...{ ...of, volume: volume.uuid, share: "none", allowedHosts: [] },
        });
        created.push(uuid);
      } catch (error) {
        lastError = error;
        places.giveBack(place);
        const fields = { "volume.uuid": volume.uuid, "pool.id": pool.id, error };
        core.log.warn("replica cannot be created", fields);
      }
    }
  } finally {
    places.release();
  }
  return { created, lastError };
}

/** Makes one replica on one of the pools. @throws {SvcError} when none of them took it */
export async function createReplicaOn(
  core: Core,
  volume: VolumeSpec,
  choice: Choice,
): Promise<string> {
  const places = new Places(core, volume, { ...choice, count: 1 });
  const { created, lastError } = await createReplicas(core, volume, { places, count: 1 });
  const [replica] = created;
  if (replica !== undefined) return replica;
  throw new SvcError("resource-exhausted", "Cannot create a further replica: no pool took it", {
    cause: lastError ?? undefined,
  });
}

/** The nexus child over a replica, after making it reachable from the nexus's node. */
export async function childFor(core: Core, replica: string, node: string): Promise<NexusChild> {
  const share_uri = await makeAccessible(core, replica, node);
  return { Replica: { uuid: replica, share_uri } };
}

/** Adds a replica to the volume's live nexus; its rebuild starts. */
export async function attachReplica(core: Core, nexus: NexusSpec, replica: string): Promise<void> {
  const child = await childFor(core, replica, nexus.node);
  await addChild(core, nexus.uuid, child);
}

/** Takes the child over a replica out of the nexus, if there is one. */
export async function detachReplica(core: Core, nexus: NexusSpec, replica: string): Promise<void> {
  const child = nexus.children.find(
    (known) => "Replica" in known && known.Replica.uuid === replica,
  );
  // One whose adding got no answer is in its state alone, and would lose its replica while it is in use.
  const uri = child
    ? childUri(child)
    : childOf(replica, nexus, core.registry.nexus(nexus.uuid))?.uri;
  if (uri !== undefined) await removeChild(core, nexus.uuid, uri);
}

export type AttachPlan =
  | { readonly attach: ReplicaItem }
  | { readonly discard: ReplicaItem }
  | null;

/** Which replica is attached next; one that does not fit, or whose pool cannot hold the rebuild, is discarded instead. */
export async function planAttach(
  core: Core,
  volume: VolumeSpec,
  nexus: NexusSpec,
): Promise<AttachPlan> {
  const info = await nexusInfoOf(core, { volume: volume.uuid, nexus: nexus.uuid });
  const items = replicaItems(core, volume);
  const [unfit] = unfitFor(items, { info, sizeMin: replicaSizeMin(volume.size) });
  if (unfit) {
    const fields = { "volume.uuid": volume.uuid, "replica.uuid": unfit.uuid };
    const why = { size: unfit.size, "block.size": unfit.blockSize };
    core.log.info("replica does not fit beside the others and is given up", { ...fields, ...why });
    return { discard: unfit };
  }
  const suspects = new Set(suspectNodes(core, volume));
  const usable = items.filter((item) => !suspects.has(item.node));
  const pauses = new Map(
    replicasOfVolume(core, volume.uuid).map((spec) => [spec.uuid, pauseLeftMs(core, spec)]),
  );
  const isFailing = ({ uuid }: ReplicaItem) =>
    isReplicaFailing(core, core.specs.replicas.get(uuid));
  const sorted = sortForAttach(usable, { node: nexus.node, info });
  const ready = sorted.filter(({ uuid }) => (pauses.get(uuid) ?? 0) === 0);
  const best = ready.find((item) => !isFailing(item)) ?? ready[0];
  if (!best) {
    const soonest = Math.min(...sorted.map(({ uuid }) => pauses.get(uuid) ?? 0));
    if (sorted.length > 0) core.wakeIn(soonest);
    return null;
  }
  const largest = Math.max(0, ...items.map((item) => item.allocated ?? 0));
  const growth = largest - (best.allocated ?? 0);
  const slack = 16 * 1024 * 1024;
  if (volume.thin && best.poolFree <= growth + slack) return { discard: best };
  return { attach: best };
}

/** The replica to give up, or null when every one is needed, or when nobody can say which ones are. */
export async function planRemoval(
  core: Core,
  volume: VolumeSpec,
  wanted: number,
): Promise<ReplicaItem | null> {
  const target = volume.target;
  // A target that cannot be seen may be serving from any of them, and alone from the one on its own node.
  if (target?.active && !core.registry.nexus(target.nexus)) return null;
  const info = target
    ? await nexusInfoOf(core, { volume: volume.uuid, nexus: target.nexus })
    : null;
  const node = target?.active ? target.node : null;
  return removalCandidate(replicaItems(core, volume), { node, info, wanted });
}

/** Detaches and destroys one replica of the volume. */
export async function removeReplica(
  core: Core,
  volume: VolumeSpec,
  replica: string,
): Promise<void> {
  const nexus = volume.target?.active ? core.specs.nexuses.find(volume.target.nexus) : undefined;
  if (nexus) await detachReplica(core, nexus, replica);
  await destroyOrDisown(core, replica);
}

/** One more replica, attached at once when there is a live nexus. */
export async function addReplica(
  core: Core,
  volume: VolumeSpec,
  wantedCount: number,
): Promise<string> {
  return await createReplicaOn(core, volume, poolCandidates(core, volume, 1, wantedCount));
}

/** Attaches what is there until the nexus has the wanted number of children; errors are for later passes. */
export async function tryAttach(core: Core, volume: VolumeSpec, replica: string): Promise<void> {
  const nexus = volume.target?.active ? core.specs.nexuses.find(volume.target.nexus) : undefined;
  if (!nexus) return;
  try {
    await attachReplica(core, nexus, replica);
  } catch (error) {
    // The child-count reconciler attaches it as soon as that is possible.
    const fields = { "volume.uuid": volume.uuid, "replica.uuid": replica };
    core.log.warn("replica is attached later", { ...fields, reason: errorMessage(error) });
  }
}
