/**
 * Nodes: who is there, and is it alive.
 *
 * Why: an engine registers every few seconds; silence means a probe, and a failed probe means Offline.
 * Invariants: one full read per node at a time; a node is Online only after its states were read; a changed
 * instance uuid means the engine restarted, so it is dialled anew and everything is read again; going Offline forgets
 * its states; a name stays with the engine that has it while that one answers (`name.ts`).
 */
import { errorMessage, SvcError } from "#common/errors.ts";
import { Gate } from "#common/gate.ts";
import { parseNodeId } from "#common/ids.ts";
import { isNqn } from "#common/nqn.ts";
import type { NodeSpec } from "#common/types/node.ts";
import type { Core } from "../context.ts";
import type { BlockDevice } from "../engine/client.ts";
import { type Answer, isHolder, mayTakeName } from "./name.ts";

export type Registration = {
  readonly id: string;
  readonly endpoint: string;
  readonly instanceUuid: string | null;
  readonly hostNqn: string | null;
  /** The engine says that something on it changed. */
  readonly changed?: boolean;
};

/** How often the watchdog looks; well below any sensible deadline. */
const WATCH_PERIOD_MS = 500;
/** How often a node is read while something on it is in motion. */
export const BUSY_PERIOD_MS = 2000;
const LOAD_ATTEMPTS = 3;
/** An engine that is only busy for a moment does not lose its name to the next who asks for it. */
const HOLDER_PROBES = 2;
/** A contender that is not heard of for so long is gone. */
const CONTENDER_MS = 60_000;
/** One that keeps asking is logged so often. */
const CONTENDER_LOG_MS = 600_000;
/** An engine that has just registered is there: when it cannot be read it is tried again before its next word. */
const JOIN_PAUSES_MS = [250, 1000] as const;

/** "again": there was news while the work was under way, so its result may be old. */
type Work = "none" | "running" | "again";
type Seen = {
  lastMs: number;
  pollMs: number;
  loading: Promise<boolean> | null;
  joining: Work;
  refreshing: Work;
  /** The engine said itself that it goes: its name is free. */
  left: boolean;
  /** Monotonic; of the last engine that was refused the name. */
  contender: { readonly endpoint: string; heardMs: number; loggedMs: number } | null;
};

export class NodeService {
  readonly #core: Core;
  readonly #seen = new Map<string, Seen>();
  readonly #gate: Gate;
  /** Says which nodes are worth reading often now. */
  readonly #busyNodes: () => ReadonlySet<string>;

  constructor(core: Core, busyNodes: () => ReadonlySet<string>) {
    this.#core = core;
    this.#busyNodes = busyNodes;
    this.#gate = new Gate((error) => core.log.error("node work failed", { error }));
  }

  /** At start: everybody we know is probed. */
  async start(): Promise<void> {
    const { specs, registry, tombstones } = this.#core;
    const nodes = specs.nodes.all().filter(({ id }) => tombstones.node(id)?.state !== "Purging");
    for (const spec of nodes) this.#know(spec);
    await Promise.all(
      nodes.map(async (spec) => {
        const client = registry.anyClient(spec.id);
        try {
          const found = await client?.probe();
          if (found && found.node !== null && found.node !== spec.id) {
            throw new SvcError("unavailable", `its address now belongs to node ${found.node}`);
          }
          registry.setNode(spec.id, { instanceUuid: found?.instanceUuid ?? null });
          await this.#bringOnline(spec.id);
        } catch (error) {
          // It may register later; until then its status is Unknown, as nobody has seen it.
          this.#core.log.info("node does not answer yet", {
            "node.id": spec.id,
            reason: errorMessage(error),
          });
        }
      }),
    );
  }

  /**
   * An engine says that it is there.
   * @throws {SvcError} `invalid-argument`, `failed-persist`; `already-exists`: another has the name and answers
   */
  async register(registration: Registration): Promise<void> {
    const id = parseNodeId(registration.id);
    this.#checkNotPurging(id);
    const before = this.#core.registry.node(id);
    // The holder's heartbeat waits for nobody who wants its name.
    if (before && before.instanceUuid !== null && isHolder(before, registration)) {
      return await this.#admit(id, registration);
    }
    await this.#core.guards.run(`name/${id}`, async () => {
      this.#checkNotPurging(id);
      await this.#checkName(id, registration);
      await this.#admit(id, registration);
    });
  }

  /** @throws {SvcError} `unavailable` */
  #checkNotPurging(id: string): void {
    if (this.#core.tombstones.node(id)?.state !== "Purging") return;
    throw new SvcError("unavailable", `Cannot register node ${id}: it is being purged; ask again`);
  }

  /** @throws {SvcError} `already-exists` */
  async #checkName(id: string, claim: Registration): Promise<void> {
    const { registry, specs, tombstones } = this.#core;
    const purged = tombstones.node(id);
    const spec = specs.nodes.find(id);
    if (purged && !spec) this.#core.log.warn("purged node is back as a new one", { "node.id": id });
    if (spec && !registry.node(id)) this.#know(spec);
    const holder = registry.node(id);
    if (!holder || holder.endpoint === "" || isHolder(holder, claim) || this.#entry(id).left)
      return;
    if (mayTakeName({ id, holder, claim, answer: await this.#askHolder(id) })) return;
    this.#refused(id, claim.endpoint);
    throw new SvcError(
      "already-exists",
      `Cannot register node ${id} at ${claim.endpoint}: an engine of that name answers at ${holder.endpoint}; stop one of the two, or give it another node name`,
    );
  }

  /** Null: there is nobody. On a connection of its own: the one in use may be in a pause after a failure. */
  async #askHolder(id: string): Promise<Answer | null> {
    const { registry, connect } = this.#core;
    const endpoint = registry.node(id)?.endpoint;
    if (endpoint === undefined) return null;
    const client = connect({ node: id, endpoint });
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          return await client.probe();
        } catch {
          if (attempt === HOLDER_PROBES) return null; // no answer is the answer
        }
      }
    } finally {
      client.close();
    }
  }

  #refused(id: string, endpoint: string): void {
    const { registry, clock, log } = this.#core;
    const seen = this.#entry(id);
    const nowMs = clock.monotonicMs();
    const same = seen.contender?.endpoint === endpoint ? seen.contender : null;
    const due = same === null || nowMs - same.loggedMs >= CONTENDER_LOG_MS;
    if (due) {
      const holder = registry.node(id)?.endpoint;
      const fields = { "node.id": id, "grpc.endpoint": endpoint, "grpc.endpoint.holder": holder };
      log.warn("node name is used twice: registration refused", fields);
    }
    seen.contender = { endpoint, heardMs: nowMs, loggedMs: due ? nowMs : same.loggedMs };
    const sinceMs = same ? registry.node(id)?.contender?.sinceMs : undefined;
    registry.setNode(id, { contender: { endpoint, sinceMs: sinceMs ?? clock.now() } });
  }

  #forgetContender(id: string): void {
    this.#entry(id).contender = null;
    if (this.#core.registry.node(id)?.contender) {
      this.#core.registry.setNode(id, { contender: null });
    }
  }

  async #admit(id: string, registration: Registration): Promise<void> {
    const { registry, log } = this.#core;
    const { endpoint, instanceUuid } = registration;
    if (!/^.+:\d+$/.test(endpoint)) {
      throw new SvcError("invalid-argument", `Cannot register ${id}: bad endpoint "${endpoint}"`);
    }
    const hostNqn =
      registration.hostNqn !== null && isNqn(registration.hostNqn) ? registration.hostNqn : null;
    await this.#persist(id, { endpoint, hostNqn });
    const before = registry.node(id);
    const moved = before?.endpoint !== endpoint || registry.anyClient(id) === null;
    const restarted =
      before?.instanceUuid != null && instanceUuid !== null && before.instanceUuid !== instanceUuid;
    registry.setNode(id, { endpoint, instanceUuid, hostNqn });
    this.#entry(id).left = false;
    this.#touch(id);
    if (before?.status === "Online" && !moved && !restarted) {
      if (registration.changed) this.#refresh(id);
      return;
    }
    if (restarted) {
      log.info("engine restarted", { "node.id": id });
      registry.setGone(id, "Unknown");
    }
    this.#join(id, moved || restarted);
  }

  /** Writes the node's spec when it is new or registered otherwise before. */
  async #persist(
    id: string,
    { endpoint, hostNqn }: { readonly endpoint: string; readonly hostNqn: string | null },
  ): Promise<void> {
    const { specs, guards } = this.#core;
    const isSame = (): boolean => {
      const known = specs.nodes.find(id);
      return known?.endpoint === endpoint && (known.node_nqn ?? null) === hostNqn;
    };
    if (isSame()) return;
    // Under the guard: a cordon that is just being written must not be lost.
    await guards.run(`node/${id}`, async () => {
      if (isSame()) return;
      const base = specs.nodes.find(id) ?? { id, endpoint, labels: {}, draining_volumes: [] };
      const { node_nqn: _, ...rest } = base;
      const spec = { ...rest, endpoint };
      await specs.nodes.put(hostNqn === null ? spec : { ...spec, node_nqn: hostNqn });
    });
  }

  /** An engine says that it goes. `instance`: which, where it tells; only the one that has the name frees it. */
  async deregister(id: string, instance: string | null = null): Promise<void> {
    const { registry, log, trigger } = this.#core;
    const holder = registry.node(id);
    if (!holder) return;
    const other = instance !== null && holder.instanceUuid !== null;
    if (other ? instance !== holder.instanceUuid : await this.#isContender(id)) {
      log.info("deregistration of another engine ignored", { "node.id": id });
      this.#forgetContender(id);
      return;
    }
    this.#entry(id).left = true;
    registry.setNode(id, { seen: true });
    registry.setGone(id, "Unknown");
    log.info("node deregistered", { "node.id": id });
    trigger("node-offline");
  }

  /** Two used the name lately and one of them goes without saying which: it was not the holder if that one answers. */
  async #isContender(id: string): Promise<boolean> {
    return this.#entry(id).contender !== null && (await this.#askHolder(id)) !== null;
  }

  /** Probes right now: true when the node is surely not there. */
  async isDown(id: string): Promise<boolean> {
    const client = this.#core.registry.anyClient(id);
    if (!client) return true;
    try {
      const { node } = await client.probe();
      return node !== null && node !== id; // its address may be somebody else's now
    } catch {
      return true; // no answer in time is what down means
    }
  }

  /** @throws {SvcError} `not-found`, `failed-precondition`, or the engine's own */
  async blockDevices(id: string, all: boolean): Promise<BlockDevice[]> {
    this.#core.specs.nodes.get(id);
    return await this.#core.registry.engine(id).blockDevices({ all });
  }

  /** Reads a node that is Online in full. False when it did not answer or went meanwhile. */
  reload(id: string): Promise<boolean> {
    return this.#read(id, { joining: false });
  }

  async #read(id: string, options: { readonly joining: boolean }): Promise<boolean> {
    const seen = this.#entry(id);
    seen.loading ??= this.#load(id, options).finally(() => {
      seen.loading = null;
    });
    return await seen.loading;
  }

  /** Watchdog and polls, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#core;
    while (!signal.aborted) {
      try {
        await clock.sleep(WATCH_PERIOD_MS, signal);
      } catch {
        break; // asked to stop
      }
      this.#watch();
      this.#poll();
    }
    await this.#gate.close();
  }

  #watch(): void {
    const { registry, clock, config } = this.#core;
    for (const { id, status } of registry.nodes()) {
      const seen = this.#entry(id);
      const heardMs = seen.contender?.heardMs;
      if (heardMs !== undefined && clock.monotonicMs() - heardMs > CONTENDER_MS) {
        this.#forgetContender(id);
      }
      const silentMs = clock.monotonicMs() - seen.lastMs;
      const watched = status === "Online" || (status === "Unknown" && !registry.isDown(id));
      if (!watched || silentMs <= config.nodeDeadlineMs) continue;
      seen.lastMs = clock.monotonicMs(); // one probe per missed deadline
      this.#gate.enter(() => this.#probe(id));
    }
  }

  async #probe(id: string): Promise<void> {
    const { log, registry, trigger } = this.#core;
    const before = registry.node(id)?.status;
    if (await this.isDown(id)) {
      if (before === "Online") this.#goOffline(id, "no registration and no answer to a probe");
      else {
        registry.setNode(id, { down: true });
        trigger("node-offline");
      }
      return;
    }
    if (before !== "Online") {
      await this.#bringOnline(id); // it lives, though it does not register (yet)
      return;
    }
    log.warn("node missed its registration but answers", { "node.id": id });
  }

  #goOffline(id: string, reason: string): void {
    const { registry, log, trigger } = this.#core;
    registry.setGone(id, "Offline");
    log.warn("node is offline", { "node.id": id, reason });
    trigger("node-offline");
    // Whoever had children there knows more now than at its last poll.
    for (const node of registry.nodes()) {
      if (node.status === "Online") this.#gate.enter(async () => void (await this.reload(node.id)));
    }
  }

  #poll(): void {
    const { registry, clock, config } = this.#core;
    const busy = this.#busyNodes();
    for (const { id, status } of registry.nodes()) {
      if (status !== "Online") continue;
      const seen = this.#entry(id);
      const periodMs = busy.has(id)
        ? Math.min(BUSY_PERIOD_MS, config.cachePeriodMs)
        : config.cachePeriodMs;
      if (clock.monotonicMs() - seen.pollMs < periodMs || seen.loading) continue;
      this.#gate.enter(async () => {
        if (await this.reload(id)) return;
        if (await this.isDown(id)) this.#goOffline(id, "no answer to a poll nor to a probe");
      });
    }
  }

  /** Dials a node and reads it; `fresh`: what runs already may have talked to its former life. */
  #join(id: string, fresh: boolean): void {
    const seen = this.#entry(id);
    if (seen.joining !== "none") {
      if (fresh) seen.joining = "again";
      return;
    }
    seen.joining = "running";
    const started = this.#gate.enter(async () => {
      try {
        do {
          seen.joining = "running";
          await this.#dial(id);
        } while (this.#entry(id).joining === "again");
      } finally {
        seen.joining = "none";
      }
    });
    if (!started) seen.joining = "none"; // closing
  }

  async #dial(id: string): Promise<void> {
    const { registry, clock } = this.#core;
    for (const pauseMs of [...JOIN_PAUSES_MS, null]) {
      const endpoint = registry.node(id)?.endpoint;
      if (endpoint === undefined) return;
      this.#connect(id, endpoint);
      if ((await this.#bringOnline(id)) || pauseMs === null) return;
      await clock.sleep(pauseMs);
      if (this.#entry(id).joining === "again") return;
    }
  }

  /** Reads a node again because something on it changed; news that comes meanwhile is read for too. */
  #refresh(id: string): void {
    const seen = this.#entry(id);
    if (seen.refreshing !== "none") {
      seen.refreshing = "again";
      return;
    }
    seen.refreshing = "running";
    const started = this.#gate.enter(async () => {
      try {
        do {
          seen.refreshing = "running";
          await seen.loading; // a read that began before the news is too old
          await this.reload(id);
        } while (this.#entry(id).refreshing === "again");
      } finally {
        seen.refreshing = "none";
      }
    });
    if (!started) seen.refreshing = "none"; // closing
  }

  async #bringOnline(id: string): Promise<boolean> {
    const { registry, log, trigger } = this.#core;
    const before = registry.node(id)?.status;
    registry.setNode(id, { seen: true });
    this.#touch(id);
    await this.#entry(id).loading; // a read that began before may be of its former life
    if (!(await this.#read(id, { joining: true }))) {
      registry.setGone(id, "Unknown");
      return false;
    }
    registry.setNode(id, { status: "Online", down: false });
    if (before !== "Online") {
      log.info("node is online", { "node.id": id });
      trigger("node-online");
    }
    return true;
  }

  async #load(id: string, options: { readonly joining: boolean }): Promise<boolean> {
    const { registry, clock, log } = this.#core;
    const seen = this.#entry(id);
    for (let attempt = 1; attempt <= LOAD_ATTEMPTS; attempt++) {
      if (!options.joining && !registry.isOnline(id)) return false; // it went while it was read
      seen.pollMs = clock.monotonicMs();
      const mark = registry.mark(id);
      const client = registry.anyClient(id);
      if (!client) return false;
      try {
        const before = this.#health(id);
        const applied = registry.apply(id, mark, await client.load(), options);
        if (!applied) continue; // a change overtook the read: read again
        if (this.#health(id) !== before) this.#core.trigger("volume-degraded");
        return true;
      } catch (error) {
        log.warn("node cannot be read", { "node.id": id, error });
        return false;
      }
    }
    return true; // busy with changes, so alive; the next poll reads it
  }

  /** Changes whenever something a reconciler looks at changes. */
  #health(id: string): string {
    const { registry } = this.#core;
    const nexuses = registry.nexuses(id).map((nexus) => {
      const children = nexus.children.map((child) => `${child.uri} ${child.status}`);
      return [nexus.uuid, nexus.status, nexus.share, ...children].join(" ");
    });
    const pools = registry.pools(id).map((pool) => `${pool.id} ${pool.status}`);
    return [...nexuses, ...pools, registry.replicas(id).length].join("|");
  }

  /** What the store says of a node is all there is until it is heard of. */
  #know(spec: NodeSpec): void {
    const { registry } = this.#core;
    registry.setNode(spec.id, { endpoint: spec.endpoint, hostNqn: spec.node_nqn ?? null });
    this.#connect(spec.id, spec.endpoint);
  }

  #connect(id: string, endpoint: string): void {
    this.#core.registry.setNode(id, { client: this.#core.connect({ node: id, endpoint }) });
  }

  #touch(id: string): void {
    this.#entry(id).lastMs = this.#core.clock.monotonicMs();
  }

  #entry(id: string): Seen {
    const found = this.#seen.get(id);
    if (found) return found;
    const nowMs = this.#core.clock.monotonicMs();
    const entry: Seen = {
      lastMs: nowMs,
      pollMs: nowMs,
      loading: null,
      joining: "none",
      refreshing: "none",
      left: false,
      contender: null,
    };
    this.#seen.set(id, entry);
    return entry;
  }
}
