/**
 * Pool operations: create, import, destroy.
 *
 * Invariants: a pool has exactly one disk; an import never makes a new pool, so data is never formatted away;
 * a pool with replicas stays; one that was given up for good is never taken for the one that has its name now.
 */
import { assertNever, errorMessage, isKind, SvcError } from "#common/errors.ts";
import { parsePoolId } from "#common/ids.ts";
import { isCordoned } from "#common/types/node.ts";
import type { PoolSpec } from "#common/types/pool.ts";
import { poolOf } from "#common/types/replica.ts";
import type { Core } from "../context.ts";
import type { PoolState } from "../engine/client.ts";
import { costlyReplicas } from "../purge/cost.ts";
import { purgePoolHeld } from "../purge/pool.ts";

export type CreatePoolRequest = {
  readonly node: string;
  readonly id: string;
  readonly disks: readonly string[];
  readonly labels: Readonly<Record<string, string>> | null;
};

function sameMap(
  a: Readonly<Record<string, string>> | null,
  b: Readonly<Record<string, string>> | null,
): boolean {
  const entries = Object.entries(a ?? {});
  return (
    entries.length === Object.keys(b ?? {}).length &&
    entries.every(([key, value]) => b?.[key] === value)
  );
}

/** The other names of each device of a node, as far as its engine tells. */
async function namesOfDisks(
  engine: ReturnType<Core["registry"]["engine"]>,
): Promise<(path: string) => string> {
  try {
    const devices = await engine.blockDevices({ all: true });
    const first = new Map<string, string>();
    for (const { devname, devlinks } of devices) {
      for (const name of [devname, ...devlinks]) first.set(name, devname);
    }
    return (path) => first.get(path) ?? path;
  } catch {
    return (path) => path; // the creation itself will tell what is wrong with the engine
  }
}

/** `/dev/sda` of `aio:///dev/sda?blk_size=512`; what is no path is as it is. */
function diskPath(disk: string): string {
  return disk.replace(/^(?:aio|uring):\/\//, "").replace(/\?.*$/, "");
}

/**
 * A disk belongs to the pool whose spec names it, also while that pool is not imported: making another one there would
 * wipe it. The guard of the node's disks holds until the new spec is written.
 * @throws {SvcError} `in-use`
 */
function checkDiskIsFree(
  pools: readonly PoolSpec[],
  { id, node, disks }: CreatePoolRequest,
  nameOf: (path: string) => string,
): void {
  const wanted = new Set(disks.map((disk) => nameOf(diskPath(disk))));
  for (const other of pools) {
    if (other.id === id || other.node !== node) continue;
    const disk = other.disks.find((taken) => wanted.has(nameOf(diskPath(taken))));
    if (disk === undefined) continue;
    throw new SvcError(
      "in-use",
      `Cannot create pool ${id}: disk ${disk} of node ${node} belongs to pool ${other.id}; delete that pool first, or take another disk`,
    );
  }
}

/** @throws {SvcError} kinds as documented for re-creation */
function checkRecreate(spec: PoolSpec, request: CreatePoolRequest, phase: string): void {
  switch (phase) {
    case "Creating": {
      const same =
        spec.node === request.node &&
        spec.disks.join("\n") === request.disks.join("\n") &&
        sameMap(spec.labels, request.labels);
      if (same) return;
      throw new SvcError("conflict", `Cannot create pool ${spec.id}: other parameters than before`);
    }
    case "Created":
      throw new SvcError("already-exists", `Cannot create pool ${spec.id}: it already exists`);
    default:
      throw new SvcError("deleting", `Cannot create pool ${spec.id}: it is being deleted`);
  }
}

export async function createPool(core: Core, request: CreatePoolRequest): Promise<void> {
  const { specs, registry, guards } = core;
  const { node, disks, labels } = request;
  const id = parsePoolId(request.id); // it becomes a segment of a key
  return guards.run(`pool/${id}`, async () => {
    if (disks.length !== 1) {
      throw new SvcError(
        "invalid-argument",
        `Cannot create pool ${id}: want exactly one disk, got ${disks.length}`,
      );
    }
    if (isCordoned(specs.nodes.get(node))) {
      throw new SvcError(
        "failed-precondition",
        `Cannot create pool ${id}: node ${node} is cordoned`,
      );
    }
    if (core.tombstones.openPool(id)) {
      throw new SvcError("conflict", `Cannot create pool ${id}: one of that name is being purged`);
    }
    const engine = registry.engine(node);
    const found = specs.pools.find(id);
    if (found) checkRecreate(found, request, specs.pools.phase(found));
    const names = await namesOfDisks(engine);
    await guards.run(`disks/${node}`, async () => {
      checkDiskIsFree(specs.pools.all(), request, names);
      if (found) return;
      const operation = { operation: "Create", result: null } as const;
      const copy = labels && { ...labels };
      await specs.pools.insert({
        node,
        id,
        disks: [...disks],
        status: "Creating",
        labels: copy,
        operation,
      });
    });
    try {
      const state = await createOrFind(core, node, { id, disks }, engine);
      await closePurged(core, state, disks);
      const { uuid } = state;
      if (uuid !== "") await specs.pools.update(id, (old) => ({ ...old, uuid }));
      registry.putPool(state);
    } catch (error) {
      // Creating also imports, so the disk may hold an older pool of this name: undoing by destroying could wipe
      // it. Forgetting is safe: if the pool came to be, asking again finds it.
      await specs.pools.remove(id);
      throw error;
    }
    await specs.pools.commit(id);
    core.log.info("pool created", { "pool.id": id, "node.id": node });
  });
}

/**
 * The disk still has a pool that was given up: it is left as it is.
 * @throws {SvcError} `failed-precondition`
 */
async function closePurged(
  { registry }: Core,
  state: PoolState,
  disks: readonly string[],
): Promise<void> {
  if (!registry.isPurgedPool(state)) return;
  const { id, node, uuid } = state;
  await registry.engine(node).exportPool(id);
  throw new SvcError(
    "failed-precondition",
    `Cannot use disk ${disks.join(", ")} of node ${node} for pool ${id}: on it is a pool that was purged (uuid ${uuid}), and its data; wipe the disk (wipefs --all) if nobody needs that, or take another disk`,
  );
}

async function createOrFind(
  core: Core,
  node: string,
  request: { readonly id: string; readonly disks: readonly string[] },
  engine: ReturnType<Core["registry"]["engine"]>,
): Promise<PoolState> {
  try {
    return await engine.createPool(request);
  } catch (error) {
    if (!isKind(error, "already-exists")) throw error;
    // Left by an attempt that never got its answer.
    const { pools } = await engine.load();
    const state = pools.find((pool) => pool.id === request.id && pool.node === node);
    if (!state) throw error;
    core.log.info("pool was there already", { "pool.id": request.id });
    return state;
  }
}

/** Brings back a pool after its engine restarted. */
export async function importPool(core: Core, spec: PoolSpec): Promise<void> {
  const { registry, log } = core;
  const engine = registry.engine(spec.node);
  try {
    const state = await engine.importPool({ id: spec.id, disks: spec.disks });
    await closePurged(core, state, spec.disks);
    registry.putPool(state);
  } catch (error) {
    if (!isKind(error, "already-exists")) {
      registry.putImportFailure(spec.node, spec.id, errorMessage(error));
      throw error;
    }
  }
  // Its replicas came with it: read them.
  const mark = registry.mark(spec.node);
  registry.apply(spec.node, mark, await engine.load());
  log.info("pool imported", { "pool.id": spec.id, "node.id": spec.node });
}

export function destroyPool(core: Core, id: string): Promise<void> {
  return core.guards.run(`pool/${id}`, () => destroyPoolHeld(core, id));
}

/** For callers that hold the pool's guard. */
export async function destroyPoolHeld(core: Core, id: string): Promise<void> {
  const { specs, registry, log } = core;
  const spec = specs.pools.get(id);
  const inUse = () => new SvcError("in-use", `Cannot destroy pool ${id}: it has replicas`);
  const replicas = specs.replicas.all().filter((replica) => poolOf(replica) === id);
  if (costlyReplicas(core, new Set([id])).length > 0) throw inUse();
  const engine = onlineEngine(core, spec);
  if (replicas.length > 0) {
    // Nobody wants them any more. Where the pool is they go first; where it is not, nothing is left to be destroyed.
    if (registry.pool(id, spec.node) || !(await isGone(core, spec))) throw inUse();
    await purgePoolHeld(core, id);
    return;
  }
  await specs.pools.carryOut(id, "Destroy", () => destroyOrConfirm(engine, spec), {
    destroys: true,
  });
  registry.dropPool(spec.node, id);
  log.info("pool destroyed", { "pool.id": id, "node.id": spec.node });
}

/** @throws {SvcError} `failed-precondition`, with the way out */
function onlineEngine({ registry }: Core, { id, node }: PoolSpec) {
  if (registry.isOnline(node)) return registry.engine(node);
  const known = registry.node(node);
  throw new SvcError(
    known ? "failed-precondition" : "not-found",
    `Cannot destroy pool ${id}: node ${node} is ${known?.status.toLowerCase() ?? "not found"}; if it is lost for good, purge the pool`,
  );
}

/** Its engine finds nothing of it on its disk. */
async function isGone(core: Core, spec: PoolSpec): Promise<boolean> {
  try {
    await importPool(core, spec);
    return false;
  } catch (error) {
    if (isKind(error, "invalid-argument", "not-found")) return true;
    throw error;
  }
}

/** A pool the engine has not loaded is imported first: destroying means wiping its superblock. */
async function destroyOrConfirm(
  engine: ReturnType<Core["registry"]["engine"]>,
  spec: PoolSpec,
): Promise<void> {
  try {
    await engine.destroyPool(spec.id);
    return;
  } catch (error) {
    if (!isKind(error, "not-found")) throw error;
  }
  try {
    await engine.importPool({ id: spec.id, disks: spec.disks });
  } catch (error) {
    if (isKind(error, "invalid-argument", "not-found")) return; // gone already
    throw error;
  }
  await engine.destroyPool(spec.id);
}

/** What a crash left of an operation on a pool. */
export async function resolvePool(core: Core, spec: PoolSpec): Promise<void> {
  const { specs, registry } = core;
  if (!spec.operation || !registry.isOnline(spec.node)) return;
  const { operation } = spec.operation;
  switch (operation) {
    case "Create":
      if (registry.pool(spec.id, spec.node)) await specs.pools.commit(spec.id);
      else await specs.pools.remove(spec.id); // as a failed creation, see above
      return;
    case "Destroy":
      await specs.pools.condemn(spec.id); // destroying is safe to repeat
      return;
    default:
      assertNever(operation);
  }
}
