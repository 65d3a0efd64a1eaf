/**
 * A whole control plane in one process, for tests: the real agent-core on engines in memory, a clock moved by hand
 * and the in-memory store (or any other).
 *
 * Invariant: nothing runs by itself: time passes in advance(), reconciling happens in settle().
 */
import { ManualClock } from "#common/clock.ts";
import { isKind } from "#common/errors.ts";
import { type Log, silentLog } from "#common/log.ts";
import { type Random, seededRandom } from "#common/random.ts";
import { MemoryStore } from "#common/store/memory.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import { type CoreAgent, createCore } from "../mod.ts";
import { type CoreConfig, coreConfig } from "../options.ts";
import { coreHandlers } from "../service.ts";
import { FakeCluster } from "./fake_engine.ts";
import { Link } from "./link.ts";

export const PLACE = { clusterUid: "test-cluster", namespace: "mayastor" };
const PASSES_MAX = 60;

export type RigOptions = {
  readonly nodes?: number;
  readonly args?: readonly string[];
  /** Fills the store before the agent starts. */
  readonly prepare?: (store: ObjectStore) => Promise<void>;
  readonly seed?: number;
  readonly log?: Log;
  /** Told of each connection that the agent makes to an engine. */
  readonly onDial?: (node: string) => void;
};

export class Rig {
  readonly clock = new ManualClock();
  readonly store: ObjectStore;
  readonly cluster: FakeCluster;
  readonly #config: CoreConfig;
  readonly #random: Random;
  readonly #log: Log;
  readonly #onDial: (node: string) => void;
  readonly #abort = new AbortController();
  /** Of the present agent. */
  link = new Link();
  #agent: CoreAgent | null = null;

  private constructor(options: RigOptions) {
    const { nodes = 3, args = [], seed = 1, log = silentLog } = options;
    this.store = new MemoryStore(this.clock);
    this.#config = coreConfig(args);
    this.#random = seededRandom(seed);
    this.#log = log;
    this.#onDial = options.onDial ?? (() => {});
    const nowMs = () => this.clock.now();
    this.cluster = new FakeCluster({ nodes, store: this.store, nowMs });
  }

  static async start(options: RigOptions = {}): Promise<Rig> {
    const rig = new Rig(options);
    await options.prepare?.(rig.store);
    await rig.startAgent();
    return rig;
  }

  get agent(): CoreAgent {
    if (!this.#agent) throw new Error("the agent is not running");
    return this.#agent;
  }

  get core() {
    return this.agent.core;
  }

  /** The internal API, called directly. */
  get api() {
    const { core, nodes, watches } = this.agent;
    return coreHandlers({ core, nodes, watches, recreate: this.agent.recreate });
  }

  /** Starts agent-core, as after a crash of the one before: the lease of that one runs out first. */
  async startAgent(): Promise<void> {
    let started = false;
    this.link = new Link();
    const starting = createCore({
      config: this.#config,
      clock: this.clock,
      random: this.#random,
      log: this.#log,
      store: this.link.store(this.store),
      place: PLACE,
      connect: this.link.connector((options) => {
        this.#onDial(options.node);
        return this.cluster.connect(options);
      }),
      instanceName: "test",
      signal: this.#abort.signal,
    }).finally(() => {
      started = true;
    });
    starting.catch(() => {}); // reported by the await below
    for (let step = 0; step < 400 && !started; step++) await this.clock.advance(250);
    this.#agent = await starting;
    await this.agent.nodes.start();
    await this.registerAll();
  }

  /** The agent is gone without a word. */
  crashAgent(): void {
    this.link.dead = true;
    this.#agent = null;
  }

  async registerAll(): Promise<void> {
    for (const engine of this.cluster.engines) {
      if (engine.alive) await this.register(engine.node).catch(unlessLater);
    }
    for (let turn = 0; turn < 200; turn++) await Promise.resolve();
  }

  async register(node: string, { changed = false } = {}): Promise<void> {
    const { endpoint, instanceUuid } = this.cluster.engine(node);
    const hostNqn = `nqn.2019-05.io.openebs:node-name:${node}`;
    const registration = { id: node, endpoint, instanceUuid, hostNqn, changed };
    await this.#withClock(this.agent.nodes.register(registration));
  }

  /** What pauses between its tries needs time, and nobody else moves the clock meanwhile. */
  async #withClock(work: Promise<void>): Promise<void> {
    let isDone = false;
    const watched = work.finally(() => {
      isDone = true;
    });
    watched.catch(() => {}); // awaited below
    for (let turn = 0; turn < 400 && !isDone; turn++) await Promise.resolve();
    while (!isDone) await this.clock.advance(250);
    await watched;
  }

  /** Every node is looked at: dead ones go Offline, live ones are read. */
  async look(): Promise<void> {
    const { registry } = this.core;
    await this.registerAll();
    for (const { id, status } of registry.nodes()) {
      if (await this.agent.nodes.isDown(id)) {
        if (status === "Online") registry.setGone(id, "Offline");
        else registry.setNode(id, { down: true });
      } else {
        await this.agent.nodes.reload(id);
      }
    }
  }

  /** Reconciles until nothing is left to do (or it never ends: an error). */
  async settle(): Promise<void> {
    const signal = this.#abort.signal;
    for (let pass = 0; pass < PASSES_MAX; pass++) {
      await this.look();
      const outcome = await this.agent.loop.pass(signal);
      const rebuilt = await this.cluster.rebuildStep();
      if (outcome === "idle" && !rebuilt) return;
    }
    throw new Error(`still busy after ${PASSES_MAX} passes`);
  }

  /** A fixed number of passes, for states that never get idle. */
  async passes(count: number): Promise<void> {
    for (let pass = 0; pass < count; pass++) {
      await this.look();
      await this.agent.loop.pass(this.#abort.signal);
      await this.cluster.rebuildStep();
    }
  }

  /** A pool on every node. */
  async createPools(): Promise<void> {
    for (const { node } of this.cluster.engines) {
      const pool = node.replace("node", "pool");
      await this.#call("CreatePool", { node, pool, disks: ["/dev/sdb"] });
    }
  }

  async createVolume(
    uuid: string,
    options: { replicas?: number; size?: number; thin?: boolean } = {},
  ) {
    const { replicas = 3, size = 2 ** 28, thin = false } = options;
    const body = { policy: { self_heal: true }, replicas, size, thin };
    return await this.#call("CreateVolume", { volume: uuid, body });
  }

  async publish(uuid: string, node?: string) {
    const protocol = "nvmf" as const;
    const request = { volume: uuid, protocol, publishContext: {}, frontendNodes: [] };
    return await this.#call("PublishVolume", node === undefined ? request : { ...request, node });
  }

  async volume(uuid: string) {
    return await this.#call("GetVolume", { volume: uuid });
  }

  #call<Name extends keyof ReturnType<typeof coreHandlers>>(
    name: Name,
    request: Parameters<ReturnType<typeof coreHandlers>[Name]>[0],
  ): ReturnType<ReturnType<typeof coreHandlers>[Name]> {
    return call(this.api, name, request);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.store.close();
  }
}

/** An engine that is told to ask again, or that the store failed, does so by itself. */
function unlessLater(error: unknown): void {
  if (!isKind(error, "unavailable", "failed-persist")) throw error;
}

type Api = ReturnType<typeof coreHandlers>;

/** Calls a handler as the server would, without a network. */
export function call<Name extends keyof Api>(
  api: Api,
  name: Name,
  request: Parameters<Api[Name]>[0],
): ReturnType<Api[Name]> {
  // Handlers of this API use nothing of the call's context; the types of one name belong together.
  const handler = api[name] as (request: unknown) => ReturnType<Api[Name]>;
  return handler(request);
}
