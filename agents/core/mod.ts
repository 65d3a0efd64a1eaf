/**
 * agent-core put together: ports in, a running control plane out.
 *
 * Why a function and not main.ts: tests and the simulation make the same thing with their own clock, randomness,
 * store and engines.
 * Invariant: nothing is written, and no engine is changed, but by the one who holds the leader's lease.
 */
import type { Clock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { Random } from "#common/random.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import type { GrpcService } from "#common/rpc/grpc.ts";
import { makeJsonService } from "#common/rpc/json_server.ts";
import { type ClusterPlace, storeKeys } from "#common/store/keys.ts";
import { LeaderLease } from "#common/store/leader_lease.ts";
import type { ObjectStore, StoreOp } from "#common/store/mod.ts";
import type { Core, Trigger } from "./context.ts";
import type { EngineConnector } from "./engine/client.ts";
import { fencedConnector } from "./engine/fenced.ts";
import { loadSpecs } from "./load.ts";
import { registrationService } from "./node/registration.ts";
import { NodeService } from "./node/service.ts";
import type { CoreConfig } from "./options.ts";
import { Tombstones } from "./purge/tombstones.ts";
import { resolveDirty } from "./reconcile/dirty.ts";
import { DrainReconciler } from "./reconcile/drain.ts";
import { collectNexuses, collectReplicas } from "./reconcile/garbage.ts";
import { AwayReplicas } from "./reconcile/hot_spare.ts";
import { ALL_TRIGGERS, ReconcileLoop, type Task } from "./reconcile/loop.ts";
import { OldTargets } from "./reconcile/old_targets.ts";
import { reconcilePools } from "./reconcile/pool.ts";
import { reconcilePurged } from "./reconcile/purged.ts";
import { relievePools } from "./reconcile/relief.ts";
import { collectVolumes, reconcileVolumes } from "./reconcile/volume.ts";
import { reviveTarget } from "./reconcile/volume_nexus.ts";
import { Registry } from "./registry/registry.ts";
import { coreHandlers } from "./service.ts";
import { Guards } from "./specs/guards.ts";
import type { SpecWriter } from "./specs/table.ts";
import { makeSpecs } from "./specs/tables.ts";
import type { Recreate } from "./volume/target.ts";
import { WatchService } from "./volume/watch.ts";

export type CoreOptions = {
  readonly config: CoreConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: ObjectStore;
  readonly place: ClusterPlace;
  readonly connect: EngineConnector;
  /** MY_POD_NAME, or empty. */
  readonly instanceName: string;
  readonly signal: AbortSignal;
};

export type CoreAgent = {
  readonly core: Core;
  readonly nodes: NodeService;
  readonly loop: ReconcileLoop;
  readonly watches: WatchService;
  /** Revives a volume's present target: what republish and drain try first. */
  readonly recreate: Recreate;
  /** Registration and the internal API, for one server. */
  readonly services: readonly GrpcService[];
  /** Works until the signal, or until another instance takes over (then it rejects). */
  readonly run: () => Promise<void>;
};

/** How long after a node came or went everybody is read often. */
const UNREST_MS = 60_000;

export async function createCore(options: CoreOptions): Promise<CoreAgent> {
  const { config, clock, random, log, store, place, connect, instanceName, signal } = options;
  const keys = storeKeys(place);
  const lease = await LeaderLease.acquire(
    { store, keys, clock, log, ttlMs: config.storeLeaseTtlMs, instanceName },
    signal,
  );
  const write = (ops: readonly StoreOp[]) => lease.write(ops);
  const unrest = { untilMs: clock.monotonicMs() + UNREST_MS };
  const wake: { trigger: (reason: Trigger) => void; in: (ms: number) => void } = {
    trigger: () => {},
    in: () => {},
  };
  const changed: { spec: SpecWriter["onChange"] } = { spec: () => {} };
  const specs = makeSpecs({
    write,
    keyOf: (kind, id) => keys.object(kind, id),
    onChange: (kind, id) => changed.spec(kind, id),
  });
  const tombstones = new Tombstones({ write, keyOf: (kind, id) => keys.object(kind, id) });
  const registry = new Registry(clock, {
    isPool: (pool) => tombstones.isPool(pool, specs.pools.find(pool.id)?.uuid),
    isReplica: (uuid) => tombstones.isReplica(uuid),
  });
  const core: Core = {
    config,
    clock,
    random,
    log,
    store,
    keys,
    connect: fencedConnector(connect, () => lease.surelyLeads()),
    registry,
    specs,
    guards: new Guards(clock),
    tombstones,
    reservations: new Map(),
    drains: new Map(),
    write,
    writeIf: (when, ops) => lease.writeIf(when, ops),
    trigger: (reason) => {
      if (reason === "node-online" || reason === "node-offline") {
        unrest.untilMs = clock.monotonicMs() + UNREST_MS;
      }
      wake.trigger(reason);
    },
    wakeIn: (ms) => wake.in(ms),
    legacy: false,
    rebuildsStarting: 0,
  };
  try {
    const loader = { store, keys, write, log, pageSize: config.storePageSize };
    core.legacy = (await loadSpecs(loader, specs, tombstones)).legacy;
  } catch (error) {
    await lease.close();
    throw error;
  }
  const nodes = new NodeService(core, () => busyNodes(core, unrest.untilMs));
  const watches = new WatchService(core);
  changed.spec = (kind, id) => {
    if (kind === "VolumeSpec" && !specs.volumes.find(id)) watches.forget(id);
  };
  const recreate: Recreate = (volume, nexus) => reviveTarget(core, volume, nexus);
  const { reconcilePeriodMs: busyMs, reconcileIdlePeriodMs: idleMs } = config;
  const tasks = makeTasks(core, { recreate, drain: new DrainReconciler(core, recreate) });
  const loop = new ReconcileLoop({ clock, log, tasks, busyMs, idleMs });
  wake.trigger = (reason) => loop.trigger(reason);
  wake.in = (ms) => loop.wakeIn(ms);
  const handlers = coreHandlers({ core, nodes, watches, recreate });
  const services = [
    registrationService(nodes),
    makeJsonService(CORE_API, handlers, { log, clock }),
  ];

  const run = async () => {
    const stop = AbortSignal.any([signal, lease.replaced]);
    await nodes.start();
    log.info("ready", { volumes: specs.volumes.all().length, nodes: specs.nodes.all().length });
    await Promise.all([nodes.run(stop), loop.run(stop)]);
    await watches.close();
    registry.close();
    await lease.close();
    if (lease.replaced.aborted) {
      throw new SvcError("aborted", "Stopped: another agent-core took over");
    }
  };
  return { core, nodes, loop, watches, recreate, services, run };
}

function makeTasks(
  core: Core,
  { recreate, drain }: { readonly recreate: Recreate; readonly drain: DrainReconciler },
): Task[] {
  const away = new AwayReplicas();
  const closeAfterMs = new Map<string, number>();
  const old = new OldTargets(core);
  const soon: Trigger[] = ["start", "creating-to-deleting", "node-online"];
  return [
    {
      name: "dirty specs",
      every: 1,
      on: ALL_TRIGGERS,
      run: (signal) => resolveDirty(core, signal),
    },
    {
      name: "purged",
      every: 1,
      on: ALL_TRIGGERS,
      run: (signal) => reconcilePurged(core, { recreate, closeAfterMs }, signal),
    },
    { name: "pools", every: 1, on: ALL_TRIGGERS, run: (signal) => reconcilePools(core, signal) },
    {
      name: "pool relief",
      every: 1,
      on: ALL_TRIGGERS,
      run: (signal) => relievePools(core, signal),
    },
    {
      name: "nexuses",
      every: 1,
      on: [...soon, "changed"],
      run: (signal) => collectNexuses(core, old, signal),
    },
    {
      name: "volumes",
      every: 1,
      on: ALL_TRIGGERS,
      run: (signal) => reconcileVolumes(core, signal),
    },
    {
      name: "volume garbage",
      every: 5,
      on: [...soon, "replica-given-up", "volume-degraded"],
      run: (signal) => collectVolumes(core, away, signal),
    },
    { name: "replica garbage", every: 5, on: soon, run: (signal) => collectReplicas(core, signal) },
    { name: "drain", every: 1, on: ["changed"], run: (signal) => drain.run(signal) },
  ];
}

/** Nodes whose states change now: read often, so that what is shown and decided on is fresh. */
function busyNodes(core: Core, unrestUntilMs: number): ReadonlySet<string> {
  const { registry, specs, clock } = core;
  const busy = new Set<string>();
  if (clock.monotonicMs() < unrestUntilMs) {
    for (const node of registry.nodes()) busy.add(node.id);
    return busy;
  }
  for (const nexus of registry.nexuses()) {
    if (nexus.status !== "Online" || nexus.rebuilds > 0) busy.add(nexus.node);
  }
  for (const { target } of specs.volumes.all()) {
    if (target?.active && registry.nexus(target.nexus) === undefined) busy.add(target.node);
  }
  return busy;
}
