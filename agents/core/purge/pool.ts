/**
 * Giving up a pool for good: its disk or its node is lost.
 *
 * Why: a pool with replicas is never deleted, and those of a lost disk can never be; so it would stay for ever, its name
 * with it, and its volumes would count on replicas that nobody has.
 * Invariants: the tombstone is written before anything is forgotten, and every step after it can be repeated, so a crash
 * anywhere is carried on from; what is alive is never given up; the disk is never written to.
 */
import { SvcError } from "#common/errors.ts";
import type { PurgeCost } from "#common/openapi/model.ts";
import { childUri } from "#common/types/nexus.ts";
import type { PoolSpec } from "#common/types/pool.ts";
import type { PurgedPool } from "#common/types/purged.ts";
import { poolOf, poolUuidOf, type ReplicaSpec } from "#common/types/replica.ts";
import type { Core } from "../context.ts";
import { removeChild } from "../nexus/ops.ts";
import { costOf } from "./cost.ts";

export type PurgeOptions = {
  /** Also what nobody has another copy of. */
  readonly lastCopies: boolean;
};

/** Nobody answers for the node. */
export async function isNodeDown({ registry }: Core, node: string): Promise<boolean> {
  if (registry.isOnline(node)) return false;
  try {
    const answer = await registry.anyClient(node)?.probe();
    return answer === undefined || (answer.node !== null && answer.node !== node);
  } catch {
    return true; // no answer is the answer
  }
}

/** Why the pool is not lost; null: it is. */
async function whyAlive(core: Core, { id, node, status }: PoolSpec): Promise<string | null> {
  const { registry } = core;
  if (!registry.isOnline(node)) {
    if (await isNodeDown(core, node)) return null;
    return `the engine of node ${node} answers; wait until the node is Online`;
  }
  const state = registry.pool(id, node);
  if (state) {
    if (state.status === "Unknown" || state.status === "Faulted") return null;
    return `node ${node} has it and says that it is ${state.status}; delete it instead, after its replicas have gone`;
  }
  if (registry.importFailure(node, id) || status === "Deleting") return null;
  return `it has not been looked for on node ${node} yet; ask again in some seconds`;
}

export async function poolPurgeCost(core: Core, id: string): Promise<PurgeCost> {
  const spec = core.specs.pools.get(id);
  const cost = await costOf(core, { kind: "pool", id, pools: [id] });
  const refused = await whyAlive(core, spec);
  return refused === null ? cost : { ...cost, refused };
}

/** @throws {SvcError} `failed-precondition` */
export function checkPurge(cost: PurgeCost, { lastCopies }: PurgeOptions): void {
  const { kind, id, refused, last_copies, unowned, volumes } = cost;
  const refuse = (why: string) =>
    new SvcError("failed-precondition", `Cannot purge ${kind} ${id}: ${why}`);
  if (refused !== undefined) throw refuse(refused);
  if (lastCopies || last_copies + unowned === 0) return;
  const lost = volumes.filter((volume) => volume.last_copy).map(({ volume }) => volume);
  const what = [
    ...(lost.length > 0 ? [`the last copy that can be seen of volume ${lost.join(", ")}`] : []),
    ...(unowned > 0 ? [`${unowned} replicas that no volume owns`] : []),
  ];
  const unseen = volumes.filter((volume) => volume.last_copy && volume.target_unseen);
  const hint =
    unseen.length > 0
      ? `; the target of volume ${unseen.map(({ volume }) => volume).join(", ")} cannot be seen and may be going on without the other copies: move it (republish) or unpublish it first`
      : "";
  throw refuse(
    `it has ${what.join(", and ")}; giving these up needs to be confirmed (last_copies)${hint}`,
  );
}

/** Safe to repeat. @throws {SvcError} `not-found`, `failed-precondition` */
export function purgePool(core: Core, id: string, options: PurgeOptions): Promise<PurgeCost> {
  return core.guards.run(`pool/${id}`, async () => {
    const cost = await poolPurgeCost(core, id);
    if (!core.tombstones.openPool(id)) checkPurge(cost, options);
    await purgePoolHeld(core, id);
    return cost;
  });
}

/** For callers that hold the pool's guard, and have checked that it may be. */
export async function purgePoolHeld(core: Core, id: string): Promise<void> {
  const { specs, tombstones, log } = core;
  const spec = specs.pools.find(id);
  if (spec && !tombstones.openPool(id)) {
    await tombstones.putPool(tombstoneOf(core, spec));
    log.warn("pool is being purged", { "pool.id": id, "node.id": spec.node });
  }
  await carryOnPool(core, id);
}

function replicasOn(core: Core, pool: string): ReplicaSpec[] {
  return core.specs.replicas.all().filter((spec) => poolOf(spec) === pool);
}

function tombstoneOf(core: Core, spec: PoolSpec): PurgedPool {
  const { registry, random, clock } = core;
  const replicas = replicasOn(core, spec.id);
  const [told = null] = replicas.flatMap((replica) => poolUuidOf(replica) ?? []);
  const seen = registry.pool(spec.id, spec.node)?.uuid ?? "";
  return {
    uuid: random.uuid(),
    pool: spec.id,
    node: spec.node,
    disks: [...spec.disks],
    pool_uuid: seen === "" ? (spec.uuid ?? told) : seen,
    replicas: replicas.map(({ uuid }) => uuid),
    at: clock.now(),
    state: "Purging",
  };
}

/** From the tombstone to the end. Callers hold the pool's guard. */
export async function carryOnPool(core: Core, id: string): Promise<void> {
  const { specs, registry, tombstones, log } = core;
  const open = tombstones.openPool(id);
  if (!open) return;
  registry.forgetPool(open.node, id);
  let tombstone = open;
  // One that was in the making when the purge began may be written down meanwhile.
  for (let replicas = replicasOn(core, id); replicas.length > 0; replicas = replicasOn(core, id)) {
    const names = new Set([...tombstone.replicas, ...replicas.map(({ uuid }) => uuid)]);
    if (names.size > tombstone.replicas.length) {
      tombstone = { ...tombstone, replicas: [...names] };
      await tombstones.putPool(tombstone); // named before it is forgotten, like the others
    }
    for (const replica of replicas) await forgetReplica(core, replica);
  }
  await specs.pools.remove(id);
  await tombstones.putPool({ ...tombstone, state: "Purged" });
  log.warn("pool purged", {
    "pool.id": id,
    "node.id": open.node,
    replicas: tombstone.replicas.length,
  });
  core.trigger("changed");
  core.trigger("replica-given-up");
}

async function forgetReplica(core: Core, { uuid, owners }: ReplicaSpec): Promise<void> {
  const { specs, guards, log } = core;
  const forget = () => guards.run(`replica/${uuid}`, () => specs.replicas.remove(uuid));
  const { volume } = owners;
  if (volume === null) return await forget();
  await guards.run(`volume/${volume}`, async () => {
    await detachPurged(core, volume, uuid).catch((error: unknown) => {
      log.warn("purged replica is detached later", { "replica.uuid": uuid, error });
    });
    await forget();
  });
  log.warn("purged replica left its volume", { "replica.uuid": uuid, "volume.uuid": volume });
}

/**
 * Takes the child over a purged replica from the target, unless it is the only one that is whole. Callers hold the volume's
 * guard. True: it was there and is gone.
 */
export async function detachPurged(core: Core, volume: string, replica: string): Promise<boolean> {
  const { specs, registry } = core;
  const target = specs.volumes.find(volume)?.target;
  const nexus = target?.active ? specs.nexuses.find(target.nexus) : undefined;
  const state = nexus && registry.nexus(nexus.uuid);
  if (!nexus || nexus.operation || !state) return false;
  const known = nexus.children.find(
    (child) => "Replica" in child && child.Replica.uuid === replica,
  );
  const uri = known ? childUri(known) : undefined;
  const child = state.children.find((found) => found.uri === uri);
  const others = state.children.filter(
    (found) => found !== child && found.status === "Online" && found.rebuildProgress === null,
  );
  if (!child || others.length === 0) return false;
  await removeChild(core, nexus.uuid, child.uri);
  return true;
}
