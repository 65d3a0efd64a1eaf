/**
 * Replica operations: create, destroy, share, unshare, disown.
 *
 * Invariants: a replica is offered to one node's nexus at a time, and only to that node's host NQN when access
 * lists are on; one that lost its owner is destroyed by garbage collection, now or when its node returns.
 */
import { isKind, SvcError } from "#common/errors.ts";
import { isCordoned } from "#common/types/node.ts";
import { poolOf, type ReplicaSpec } from "#common/types/replica.ts";
import { type Core, hostNqnOf, poolStateOf } from "../context.ts";
import type { EngineClient, ReplicaState } from "../engine/client.ts";

export type CreateReplicaRequest = {
  readonly uuid: string;
  readonly pool: string;
  readonly size: number;
  readonly thin: boolean;
  readonly volume: string | null;
  readonly share: "none" | "nvmf";
  readonly allowedHosts: readonly string[];
};

/** The node of a replica's pool. @throws {SvcError} `not-found` */
export function replicaNode(core: Core, spec: ReplicaSpec): string {
  const pool = poolOf(spec);
  const node = core.specs.pools.find(pool)?.node ?? poolStateOf(core, pool)?.node;
  if (node === undefined) throw new SvcError("not-found", `pool ${pool} not found`);
  return node;
}

function isSameReplica(spec: ReplicaSpec, request: CreateReplicaRequest): boolean {
  return (
    poolOf(spec) === request.pool &&
    spec.size === request.size &&
    spec.thin === request.thin &&
    spec.owners.volume === request.volume
  );
}

export function createReplica(core: Core, request: CreateReplicaRequest): Promise<ReplicaState> {
  const { specs, registry, guards } = core;
  const { uuid, pool, size, thin, volume } = request;
  return guards.run(`replica/${uuid}`, async () => {
    if (core.tombstones.openPool(pool)) {
      throw new SvcError("conflict", `Cannot create replica ${uuid}: pool ${pool} is being purged`);
    }
    const poolState = poolStateOf(core, pool);
    const node = specs.pools.find(pool)?.node ?? poolState?.node;
    if (node === undefined) throw new SvcError("not-found", `pool ${pool} not found`);
    if (isCordoned(specs.nodes.find(node))) {
      throw new SvcError(
        "failed-precondition",
        `Cannot create replica ${uuid}: node ${node} is cordoned`,
      );
    }
    const engine = registry.engine(node);
    if (!poolState) {
      throw new SvcError(
        "failed-precondition",
        `Cannot create replica ${uuid}: pool ${pool} is not loaded`,
      );
    }
    const found = specs.replicas.find(uuid);
    if (found) checkRecreate(core, found, request);
    else {
      await specs.replicas.insert({
        name: uuid,
        uuid,
        size,
        pool: poolState.uuid === "" ? pool : [pool, poolState.uuid],
        share: "none",
        thin,
        status: "Creating",
        managed: volume !== null,
        owners: { volume, disown_all: false },
        operation: { operation: "Create", result: null },
        allowed_hosts: [],
      });
    }
    let state: ReplicaState;
    try {
      state = registry.putReplica(await createOrFind(engine, request));
    } catch (error) {
      // Without an answer it may exist: then garbage collection destroys it.
      if (isKind(error, "unavailable", "deadline-exceeded", "aborted", "internal")) {
        await specs.replicas.condemn(uuid);
      } else {
        await specs.replicas.remove(uuid);
      }
      throw error;
    }
    await specs.replicas.commit(uuid);
    core.log.info("replica created", { "replica.uuid": uuid, "pool.id": pool, "node.id": node });
    if (request.share === "none") return state;
    return await shareReplicaHeld(core, uuid, request.allowedHosts);
  });
}

/**
 * A volume's replica in the making, left so by a crash: made now (asking again is safe), or given up.
 * True when it is whole.
 */
export async function finishReplica(core: Core, spec: ReplicaSpec): Promise<boolean> {
  const { specs, guards, log } = core;
  const { uuid, size, thin, owners } = spec;
  const isCreated = () => {
    const present = specs.replicas.find(uuid);
    return present !== undefined && specs.replicas.phase(present) === "Created";
  };
  if (isCreated()) return true;
  try {
    const of = { uuid, pool: poolOf(spec), size, thin, volume: owners.volume } as const;
    await createReplica(core, { ...of, share: "none", allowedHosts: [] });
  } catch (error) {
    log.info("replica in the making is given up", { "replica.uuid": uuid, error });
    await guards.run(`replica/${uuid}`, async () => {
      const present = specs.replicas.find(uuid);
      if (present && specs.replicas.phase(present) === "Creating") {
        await specs.replicas.condemn(uuid); // on an engine or not: garbage collection sees to it
      }
    });
  }
  return isCreated(); // or resolved by a reconciler while we waited
}

function checkRecreate(core: Core, spec: ReplicaSpec, request: CreateReplicaRequest): void {
  const phase = core.specs.replicas.phase(spec);
  if (phase === "Creating") {
    if (isSameReplica(spec, request)) return;
    throw new SvcError(
      "conflict",
      `Cannot create replica ${spec.uuid}: other parameters than before`,
    );
  }
  if (phase === "Created") {
    throw new SvcError("already-exists", `Cannot create replica ${spec.uuid}: it already exists`);
  }
  throw new SvcError("deleting", `Cannot create replica ${spec.uuid}: it is being deleted`);
}

async function createOrFind(
  engine: EngineClient,
  { uuid, pool, size, thin, volume }: CreateReplicaRequest,
): Promise<ReplicaState> {
  try {
    const share = "none";
    return await engine.createReplica({
      uuid,
      name: uuid,
      pool,
      size,
      thin,
      share,
      allowedHosts: [],
      entityId: volume,
    });
  } catch (error) {
    if (!isKind(error, "already-exists")) throw error;
    const { replicas } = await engine.load();
    const state = replicas.find((replica) => replica.uuid === uuid && replica.pool === pool);
    if (!state) throw error;
    return state;
  }
}

export function destroyReplica(core: Core, uuid: string): Promise<void> {
  return core.guards.run(`replica/${uuid}`, () => destroyReplicaHeld(core, uuid));
}

/**
 * An engine that has just restarted knows no replica at all: one is gone only when its pool is there without it.
 * @throws {SvcError} `failed-precondition`
 */
async function checkGone(
  engine: EngineClient,
  { uuid, pool }: { readonly uuid: string; readonly pool: string },
): Promise<void> {
  const { pools, replicas } = await engine.load();
  const loaded = pools.some((state) => state.id === pool);
  if (loaded && !replicas.some((state) => state.uuid === uuid)) return;
  throw new SvcError(
    "failed-precondition",
    `Cannot destroy replica ${uuid}: pool ${pool} is being loaded; it is tried again`,
  );
}

/** For callers that hold the replica's guard. */
export async function destroyReplicaHeld(core: Core, uuid: string): Promise<void> {
  const { specs, registry, log } = core;
  const spec = specs.replicas.find(uuid);
  if (!spec) return;
  const pool = poolOf(spec);
  const node = replicaNode(core, spec);
  const engine = registry.engine(node);
  if (!registry.pool(pool, node)) {
    throw new SvcError(
      "failed-precondition",
      `Cannot destroy replica ${uuid}: pool ${pool} is not loaded`,
    );
  }
  const destroy = async () => {
    try {
      await engine.destroyReplica({ uuid, pool });
    } catch (error) {
      if (!isKind(error, "not-found")) throw error;
      await checkGone(engine, { uuid, pool });
    }
  };
  if (spec.operation) await specs.replicas.condemn(uuid);
  await specs.replicas.carryOut(uuid, "Destroy", destroy, { destroys: true });
  registry.dropReplica(node, uuid);
  log.info("replica destroyed", { "replica.uuid": uuid, "pool.id": pool, "node.id": node });
}

/** Takes a replica from its volume: from here on it is garbage. */
export async function disownReplica(core: Core, uuid: string): Promise<void> {
  await core.guards.run(`replica/${uuid}`, async () => {
    const spec = core.specs.replicas.find(uuid);
    if (!spec || spec.owners.volume === null) return;
    const owners = { volume: null, disown_all: false };
    await core.specs.replicas.carryOut(uuid, { OwnerUpdate: owners }, async () => {}, {
      allow: ["Creating", "Created", "Deleting"],
    });
    core.log.info("replica disowned", { "replica.uuid": uuid, "volume.uuid": spec.owners.volume });
  });
}

/** Destroys a volume's replica now, or leaves it to garbage collection when it cannot be reached. */
export async function destroyOrDisown(core: Core, uuid: string): Promise<void> {
  try {
    await destroyReplica(core, uuid);
  } catch (error) {
    core.log.info("replica is destroyed later", { "replica.uuid": uuid, error });
    await disownReplica(core, uuid);
  }
}

export function shareReplica(
  core: Core,
  uuid: string,
  allowedHosts: readonly string[],
): Promise<ReplicaState> {
  return core.guards.run(`replica/${uuid}`, () => shareReplicaHeld(core, uuid, allowedHosts));
}

async function shareReplicaHeld(
  core: Core,
  uuid: string,
  allowedHosts: readonly string[],
): Promise<ReplicaState> {
  const { specs, registry } = core;
  const engine = registry.engine(replicaNode(core, specs.replicas.get(uuid)));
  const hosts = [...allowedHosts];
  return await specs.replicas.carryOut(uuid, { Share: ["nvmf", hosts] }, async () =>
    registry.putReplica(await engine.shareReplica({ uuid, allowedHosts: hosts })),
  );
}

export function unshareReplica(core: Core, uuid: string): Promise<ReplicaState> {
  const { specs, registry, guards } = core;
  return guards.run(`replica/${uuid}`, async () => {
    const engine = registry.engine(replicaNode(core, specs.replicas.get(uuid)));
    return await specs.replicas.carryOut(uuid, "Unshare", async () =>
      registry.putReplica(await engine.unshareReplica(uuid)),
    );
  });
}

/**
 * Makes a replica reachable from a target's node and nobody else, and gives the URI for the nexus:
 * a local bdev on the same node, an NVMe-oF target that admits just that node elsewhere.
 */
export async function makeAccessible(
  core: Core,
  uuid: string,
  targetNode: string,
): Promise<string> {
  const state = core.registry.replica(uuid);
  if (!state) {
    throw new SvcError("failed-precondition", `Cannot use replica ${uuid}: it is not online`);
  }
  if (state.node === targetNode) {
    if (state.share === "none") return state.uri;
    return (await unshareReplica(core, uuid)).uri;
  }
  const wanted = core.config.hostsAcl.replicas ? [hostNqnOf(core, targetNode)] : [];
  const same = [...state.allowedHosts].sort().join() === [...wanted].sort().join();
  if (state.share === "nvmf" && same) return state.uri;
  // An engine takes an empty list as "no change": only unsharing clears an old list.
  if (state.share === "nvmf" && wanted.length === 0) await unshareReplica(core, uuid);
  return (await shareReplica(core, uuid, wanted)).uri;
}

/** What a crash left of an operation on a replica. */
export async function resolveReplica(core: Core, spec: ReplicaSpec): Promise<void> {
  const { specs, registry } = core;
  if (!spec.operation) return;
  const { operation } = spec.operation;
  if (typeof operation === "object" && "OwnerUpdate" in operation) {
    await specs.replicas.commit(spec.uuid); // ownership is only ours to know
    return;
  }
  const node = specs.pools.find(poolOf(spec))?.node;
  const offline = node === undefined || registry.isDown(node);
  const known = node !== undefined && registry.isOnline(node) && registry.pool(poolOf(spec), node);
  const state = registry.replica(spec.uuid);
  if (operation === "Create") {
    if (state) await specs.replicas.commit(spec.uuid);
    else if (known || offline) await specs.replicas.condemn(spec.uuid);
  } else if (operation === "Destroy") {
    if (known || offline) await specs.replicas.condemn(spec.uuid);
  } else if (state || offline) {
    const shared = state?.share === "nvmf";
    const done = state !== undefined && (operation === "Unshare" ? !shared : shared);
    if (done) await specs.replicas.commit(spec.uuid);
    else await specs.replicas.cancel(spec.uuid);
  }
}
