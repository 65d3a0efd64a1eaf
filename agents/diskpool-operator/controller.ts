/**
 * The controller: brings DiskPools and pools together, one step of one resource at a time.
 *
 * Invariants: it reads the resource as it is now, not the event that woke it, so late and repeated runs are
 * harmless; a resource has its finalizer before its pool is made, and keeps it until the pool is gone.
 */
import type { Clock } from "#common/clock.ts";
import { assertNever, isKind, type SvcError, toSvcError } from "#common/errors.ts";
import type { KubeClient } from "#common/kubernetes/client.ts";
import { Informer } from "#common/kubernetes/informer.ts";
import { WorkQueue } from "#common/kubernetes/work_queue.ts";
import type { Log } from "#common/log.ts";
import type { Random } from "#common/random.ts";
import {
  afterCreate,
  afterDestroy,
  afterFailedCreate,
  afterLook,
  afterPurge,
  beforeDestroy,
  CREATED_BY,
  type DestroyStep,
  type Devices,
  ERROR_MS,
  type EventDraft,
  firstStep,
  isElsewhere,
  type Outcome,
  offerPurge,
  type Seen,
  seenFailure,
} from "./decide.ts";
import type { Events, Pools, Resources } from "./ports.ts";
import { collectionPath, type DiskPool, parseDiskPool } from "./resource.ts";

/** Pools are made on different nodes: a slow one holds up few. */
const CONCURRENCY = 8;
const RETRY_MS = 1_000;

export type ControllerOptions = {
  readonly pools: Pools;
  readonly resources: Resources;
  readonly events: Events;
  readonly intervalMs: number;
  /** Off: a failed creation is not explained by the devices of the node. */
  readonly validateDevices: boolean;
  readonly log: Log;
};

/** What writes leave behind, so that the next step starts from it. */
export type Memory = { learn(object: unknown): void };

/** One resource's turn; resolves to when to look again, or null for only on a change. */
export class Reconciler {
  readonly #options: ControllerOptions;
  readonly #memory: Memory;
  /** Uids of resources that have been let go: their pools have been told about. */
  readonly #released = new Set<string>();

  constructor(options: ControllerOptions, memory: Memory) {
    this.#options = options;
    this.#memory = memory;
  }

  /** The object is gone. */
  forget(uid: string): void {
    this.#released.delete(uid);
    this.#options.events.forget(uid);
  }

  async reconcile(resource: DiskPool, signal: AbortSignal): Promise<number | null> {
    const { resources } = this.#options;
    if (this.#released.has(resource.uid)) return null; // the watch has not seen yet that it is gone
    const step = firstStep(resource);
    switch (step.do) {
      case "nothing":
        return null;
      case "protect":
        this.#memory.learn(await resources.protect(resource, signal));
        return 0;
      case "report":
        this.#memory.learn(await resources.report(resource, step.status, signal));
        return 0;
      case "create":
        return await this.#apply(resource, await this.#create(resource, signal), signal);
      case "look": {
        const { intervalMs } = this.#options;
        const outcome = afterLook(resource, await this.#look(resource, signal), { intervalMs });
        return await this.#apply(resource, outcome, signal);
      }
      case "destroy":
        return await this.#destroy(resource, signal);
      default:
        return assertNever(step);
    }
  }

  async #apply(
    resource: DiskPool,
    { status, events, afterMs }: Outcome,
    signal: AbortSignal,
  ): Promise<number> {
    const { log } = this.#options;
    await this.#tell(resource, events, signal);
    if (status !== null) {
      this.#memory.learn(await this.#options.resources.report(resource, status, signal));
      const { state, cr_state, pool_status } = status;
      log.info("diskpool reported", { diskpool: resource.name, state, cr_state, pool_status });
    }
    return afterMs;
  }

  async #tell(
    resource: DiskPool,
    events: readonly EventDraft[],
    signal: AbortSignal,
  ): Promise<void> {
    for (const event of events) await this.#options.events.post(resource, event, signal);
    this.#options.events.settle(resource.uid, events);
  }

  async #look({ name }: DiskPool, signal: AbortSignal): Promise<Seen> {
    try {
      return { is: "there", pool: await this.#options.pools.get(name, signal) };
    } catch (error) {
      signal.throwIfAborted();
      return seenFailure(toSvcError(error));
    }
  }

  async #create(resource: DiskPool, signal: AbortSignal): Promise<Outcome> {
    const { pools, intervalMs, log } = this.#options;
    const { name, spec } = resource;
    const labels = { ...spec.topology?.labelled, ...CREATED_BY };
    let made = true;
    try {
      await pools.create({ node: spec.node, pool: name, disks: spec.disks, labels }, signal);
      log.info("pool created", { "pool.id": name, "node.id": spec.node });
    } catch (error) {
      signal.throwIfAborted();
      const failure = toSvcError(error);
      made = false;
      const seen = await this.#look(resource, signal);
      const exists = isKind(failure, "already-exists");
      const elsewhere = seen.is === "there" && isElsewhere(resource, seen.pool);
      if (!exists && !elsewhere) {
        log.warn("pool not created", { "pool.id": name, "node.id": spec.node, error: failure });
        const devices = await this.#devices(spec.node, signal);
        return afterFailedCreate(resource, { error: failure, devices });
      }
    }
    const seen = await this.#look(resource, signal);
    return afterCreate(resource, {
      made,
      pool: seen.is === "there" ? seen.pool : null,
      intervalMs,
    });
  }

  async #devices(node: string, signal: AbortSignal): Promise<Devices> {
    if (!this.#options.validateDevices) return { of: "nobody" };
    try {
      return { of: "node", devices: await this.#options.pools.devices(node, signal) };
    } catch (error) {
      signal.throwIfAborted();
      return isKind(error, "not-found") ? { of: "unknown-node" } : { of: "nobody" };
    }
  }

  async #destroy(resource: DiskPool, signal: AbortSignal): Promise<number | null> {
    const { pools, resources, log } = this.#options;
    const { name, spec } = resource;
    const step = beforeDestroy(resource, await this.#look(resource, signal));
    if (step.do !== "destroy") return await this.#conclude(resource, step, signal);
    if (step.status !== null) {
      // The finalizer is taken off this newer version below.
      const written = await resources.report(resource, step.status, signal);
      this.#memory.learn(written);
      return await this.#destroy(parseDiskPool(written), signal);
    }
    try {
      await pools.destroy({ node: spec.node, pool: name }, signal);
      log.info("pool destroyed", { "pool.id": name, "node.id": spec.node });
      return await this.#conclude(resource, afterDestroy(null), signal);
    } catch (error) {
      signal.throwIfAborted();
      const failure = toSvcError(error);
      const step = isKind(failure, "not-found")
        ? afterDestroy(failure)
        : await this.#giveUp(resource, failure, signal);
      return await this.#conclude(resource, step, signal);
    }
  }

  /** The pool cannot be destroyed: it is given up for good if the resource says so, else that is offered. */
  async #giveUp(
    { name, purge }: DiskPool,
    failure: SvcError,
    signal: AbortSignal,
  ): Promise<DestroyStep> {
    const { pools, log } = this.#options;
    if (purge === "no") {
      const cost = await pools.purgeCost(name, signal).catch(() => null); // only a hint
      signal.throwIfAborted();
      return offerPurge(failure, cost);
    }
    try {
      await pools.purge(name, purge === "last-copies", signal);
      log.warn("pool purged", { "pool.id": name, reason: failure.message });
      return afterPurge(null);
    } catch (error) {
      signal.throwIfAborted();
      return afterPurge(toSvcError(error));
    }
  }

  async #conclude(
    resource: DiskPool,
    step: DestroyStep,
    signal: AbortSignal,
  ): Promise<number | null> {
    if (step.do === "destroy") return ERROR_MS; // not a conclusion
    const { resources, log } = this.#options;
    if (step.do === "wait") {
      await this.#tell(resource, step.events, signal);
      return step.afterMs;
    }
    await resources.release(resource, signal);
    this.#released.add(resource.uid);
    await this.#tell(resource, step.events, signal);
    log.info("diskpool released", { diskpool: resource.name });
    return null;
  }
}

/** Runs until the signal is aborted; safe to run again after. */
export async function runController(
  {
    client,
    namespace,
    clock,
    random,
    ...options
  }: ControllerOptions & {
    readonly client: KubeClient;
    readonly namespace: string;
    readonly clock: Clock;
    readonly random: Random;
  },
  signal: AbortSignal,
): Promise<void> {
  const { log } = options;
  const uids = new Map<string, string>();
  const queue = new WorkQueue({
    clock,
    random,
    concurrency: CONCURRENCY,
    delayMs: RETRY_MS,
    delayMsMax: ERROR_MS,
    onError: (name, error) => log.warn("diskpool not reconciled", { diskpool: name, error }),
  });
  const informer = new Informer<DiskPool>({
    client,
    path: collectionPath(namespace),
    parse: parseDiskPool,
    onChange: (name) => queue.add(name),
    clock,
    random,
    log,
  });
  const reconciler = new Reconciler(options, informer);
  const handle = async (name: string): Promise<number | null> => {
    const resource = informer.get(name);
    const known = uids.get(name);
    if (known !== undefined && known !== resource?.uid) reconciler.forget(known);
    if (resource === undefined) {
      uids.delete(name);
      return null;
    }
    uids.set(name, resource.uid);
    return await reconciler.reconcile(resource, signal);
  };
  await Promise.all([informer.run(signal), queue.run(handle, signal)]);
}
