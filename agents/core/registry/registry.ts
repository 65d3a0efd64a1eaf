/**
 * Registry: what the engines reported last.
 *
 * Why: decisions and answers read it instead of asking every engine each time.
 * Invariants: states of a node exist only while it is Online (or just becoming so): what we cannot see we do not claim to know;
 * a full read that started before a change made since is not applied (it would undo the change in memory).
 */
import type { Clock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import type {
  EngineClient,
  NexusState,
  PoolState,
  ReplicaState,
  Snapshot,
} from "../engine/client.ts";
import type { Contender } from "../node/name.ts";

export type NodeStatus = "Online" | "Offline" | "Unknown";

export type NodeView = {
  readonly id: string;
  readonly endpoint: string;
  readonly status: NodeStatus;
  readonly hostNqn: string | null;
  readonly instanceUuid: string | null;
  /** It registered, or was probed, since we started. */
  readonly seen: boolean;
  /** A probe found nobody there; unlike Offline it also says so of nodes never seen since we started. */
  readonly down: boolean;
  /** Another engine wanted its name lately and was refused. */
  readonly contender: Contender | null;
  /** When its states were read in full, monotonic ms; null while unknown. */
  readonly loadedAtMs: number | null;
  /** Wall clock, ms: when the status became what it is; null until somebody learnt it. */
  readonly statusSince: number | null;
};

/** The last try to import a pool that its engine refused. */
export type ImportFailure = { readonly message: string; readonly sinceMs: number };

type NodeEntry = {
  view: NodeView;
  client: EngineClient | null;
  generation: number;
  readonly pools: Map<string, PoolState>;
  readonly replicas: Map<string, ReplicaState>;
  /** Replicas as they were when the node was read in full: those that the figures of its pools include. */
  readonly counted: Map<string, ReplicaState>;
  readonly nexuses: Map<string, NexusState>;
  readonly importFailures: Map<string, ImportFailure>;
  /** Pools that were given up for good and are there all the same. */
  returned: readonly PoolState[];
};

/** Tells what was given up for good: nobody else gets to see it. */
export type Purged = {
  readonly isPool: (pool: PoolState) => boolean;
  readonly isReplica: (uuid: string) => boolean;
};

export class Registry {
  readonly #clock: Clock;
  readonly #purged: Purged;
  readonly #nodes = new Map<string, NodeEntry>();

  constructor(clock: Clock, purged: Purged = { isPool: () => false, isReplica: () => false }) {
    this.#clock = clock;
    this.#purged = purged;
  }

  // ---- nodes

  nodes(): NodeView[] {
    return [...this.#nodes.values()].map((entry) => entry.view);
  }

  node(id: string): NodeView | undefined {
    return this.#nodes.get(id)?.view;
  }

  isOnline(id: string): boolean {
    return this.#nodes.get(id)?.view.status === "Online";
  }

  /** Surely not there: what was under way on it will not end by itself. */
  isDown(id: string): boolean {
    return this.#nodes.get(id)?.view.down ?? true;
  }

  /** Adds a node or changes what is known of it. */
  setNode(
    id: string,
    change: Partial<Omit<NodeView, "id">> & { readonly client?: EngineClient },
  ): void {
    const { client, ...view } = change;
    const entry = this.#nodes.get(id) ?? this.#insert(id);
    const before = entry.view.status;
    entry.view = { ...entry.view, ...view };
    if (view.status !== undefined && view.status !== before) this.#statusChanged(entry);
    if (client && entry.client !== client) {
      entry.client?.close();
      entry.client = client;
    }
  }

  /** Offline or Unknown: what it had is no longer known. */
  setGone(id: string, status: "Offline" | "Unknown"): void {
    const entry = this.#nodes.get(id);
    if (!entry) return;
    const down = entry.view.down || status === "Offline";
    const before = entry.view.status;
    entry.view = { ...entry.view, status, down, loadedAtMs: null };
    if (status !== before) this.#statusChanged(entry);
    entry.generation += 1;
    entry.pools.clear();
    entry.replicas.clear();
    entry.counted.clear();
    entry.nexuses.clear();
    entry.importFailures.clear();
    entry.returned = [];
  }

  /**
   * The engine of an online node.
   * @throws {SvcError} `failed-precondition`, `not-found`
   */
  engine(id: string): EngineClient {
    const entry = this.#nodes.get(id);
    if (!entry) throw new SvcError("not-found", `node ${id} not found`);
    if (entry.view.status !== "Online" || !entry.client) {
      throw new SvcError(
        "failed-precondition",
        `node ${id} is ${entry.view.status.toLowerCase()}`,
        {
          fields: { "node.id": id },
        },
      );
    }
    return entry.client;
  }

  /** The client of a node in any status: for probes. */
  anyClient(id: string): EngineClient | null {
    return this.#nodes.get(id)?.client ?? null;
  }

  // ---- full reads

  /** Marks the start of a full read; apply() with the mark refuses a read that a change overtook. */
  mark(id: string): number {
    return this.#nodes.get(id)?.generation ?? 0;
  }

  /** `joining`: the node is about to be Online; of any other that is not, nothing is taken. */
  apply(
    id: string,
    mark: number,
    snapshot: Snapshot,
    { joining = false }: { readonly joining?: boolean } = {},
  ): boolean {
    const entry = this.#nodes.get(id);
    if (!entry || entry.generation !== mark) return false;
    if (entry.view.status !== "Online" && !joining) return false; // it went while it was read
    const { pools, replicas, returned } = this.#live(snapshot);
    fill(entry.pools, pools, (pool) => pool.id);
    for (const pool of pools) entry.importFailures.delete(pool.id);
    fill(entry.replicas, replicas, (replica) => replica.uuid);
    fill(entry.counted, replicas, (replica) => replica.uuid);
    entry.returned = returned;
    fill(entry.nexuses, snapshot.nexuses, (nexus) => nexus.uuid);
    entry.view = { ...entry.view, loadedAtMs: this.#clock.monotonicMs() };
    return true;
  }

  /** What came back although it was given up is set apart: its replicas are nobody's any more. */
  #live({ pools, replicas }: Snapshot) {
    const returned = pools.filter((pool) => this.#purged.isPool(pool));
    if (returned.length === 0) {
      return {
        pools,
        replicas: replicas.filter(({ uuid }) => !this.#purged.isReplica(uuid)),
        returned,
      };
    }
    const gone = new Set(returned.map(({ id }) => id));
    return {
      pools: pools.filter(({ id }) => !gone.has(id)),
      replicas: replicas.filter(
        ({ uuid, pool }) => !gone.has(pool) && !this.#purged.isReplica(uuid),
      ),
      returned,
    };
  }

  /** Pools of the node that were given up for good and are there all the same. */
  returned(node: string): readonly PoolState[] {
    return this.#nodes.get(node)?.returned ?? [];
  }

  isPurgedPool(state: PoolState): boolean {
    return this.#purged.isPool(state);
  }

  /** It was given up for good just now: what is known of it is forgotten. */
  forgetPool(node: string, id: string): void {
    const entry = this.#nodes.get(node);
    if (!entry) return;
    const state = entry.pools.get(id);
    this.dropPool(node, id);
    if (state) entry.returned = [...entry.returned, state];
    for (const replica of [...entry.replicas.values()]) {
      if (replica.pool === id) this.dropReplica(node, replica.uuid);
    }
  }

  /** It was given up for good. */
  dropNode(id: string): void {
    this.#nodes.get(id)?.client?.close();
    this.#nodes.delete(id);
  }

  // ---- single changes, from the answers to our own calls

  putPool(state: PoolState): PoolState {
    this.#changed(state.node)?.pools.set(state.id, state);
    this.#nodes.get(state.node)?.importFailures.delete(state.id);
    return state;
  }

  putReplica(state: ReplicaState): ReplicaState {
    this.#changed(state.node)?.replicas.set(state.uuid, state);
    return state;
  }

  putNexus(state: NexusState): NexusState {
    this.#changed(state.node)?.nexuses.set(state.uuid, state);
    return state;
  }

  /** The engine cannot import the pool; the first failure of a row gives the time. */
  putImportFailure(node: string, pool: string, message: string): void {
    const entry = this.#nodes.get(node);
    if (entry?.view.status !== "Online") return;
    const sinceMs = entry.importFailures.get(pool)?.sinceMs ?? this.#clock.now();
    entry.importFailures.set(pool, { message, sinceMs });
  }

  /** Why the pool is not there although its node is; undefined: it is there, or was not tried. */
  importFailure(node: string, pool: string): ImportFailure | undefined {
    return this.#nodes.get(node)?.importFailures.get(pool);
  }

  dropPool(node: string, id: string): void {
    this.#nodes.get(node)?.importFailures.delete(id);
    this.#changed(node)?.pools.delete(id);
  }

  dropReplica(node: string, uuid: string): void {
    this.#changed(node)?.replicas.delete(uuid);
  }

  dropNexus(node: string, uuid: string): void {
    this.#changed(node)?.nexuses.delete(uuid);
  }

  // ---- look-ups

  pools(node?: string): PoolState[] {
    return this.#collect(node, (entry) => entry.pools);
  }

  replicas(node?: string): ReplicaState[] {
    return this.#collect(node, (entry) => entry.replicas);
  }

  nexuses(node?: string): NexusState[] {
    return this.#collect(node, (entry) => entry.nexuses);
  }

  /** Of one node when given: engines know nothing of each other, so two may have a pool of one name. */
  pool(id: string, node?: string): PoolState | undefined {
    if (node !== undefined) return this.#nodes.get(node)?.pools.get(id);
    return this.#first((entry) => entry.pools.get(id));
  }

  /** Replicas that came and went since the node was read in full: what the figures of its pools do not show yet. */
  sinceRead(node: string): { readonly came: ReplicaState[]; readonly went: ReplicaState[] } {
    const entry = this.#nodes.get(node);
    if (!entry) return { came: [], went: [] };
    const { replicas, counted } = entry;
    return {
      came: [...replicas.values()].filter(({ uuid }) => !counted.has(uuid)),
      went: [...counted.values()].filter(({ uuid }) => !replicas.has(uuid)),
    };
  }

  replica(uuid: string): ReplicaState | undefined {
    return this.#first((entry) => entry.replicas.get(uuid));
  }

  nexus(uuid: string): NexusState | undefined {
    return this.#first((entry) => entry.nexuses.get(uuid));
  }

  close(): void {
    for (const entry of this.#nodes.values()) entry.client?.close();
  }

  #insert(id: string): NodeEntry {
    const entry: NodeEntry = {
      view: {
        id,
        endpoint: "",
        status: "Unknown",
        hostNqn: null,
        instanceUuid: null,
        seen: false,
        down: false,
        contender: null,
        loadedAtMs: null,
        statusSince: null,
      },
      client: null,
      generation: 0,
      pools: new Map(),
      replicas: new Map(),
      counted: new Map(),
      nexuses: new Map(),
      importFailures: new Map(),
      returned: [],
    };
    this.#nodes.set(id, entry);
    return entry;
  }

  #statusChanged(entry: NodeEntry): void {
    entry.view = { ...entry.view, statusSince: this.#clock.now() };
  }

  #changed(node: string): NodeEntry | null {
    const entry = this.#nodes.get(node);
    if (entry?.view.status !== "Online") return null;
    entry.generation += 1;
    return entry;
  }

  #collect<T>(node: string | undefined, pick: (entry: NodeEntry) => Map<string, T>): T[] {
    if (node !== undefined) {
      const entry = this.#nodes.get(node);
      return entry ? [...pick(entry).values()] : [];
    }
    return [...this.#nodes.values()].flatMap((entry) => [...pick(entry).values()]);
  }

  #first<T>(pick: (entry: NodeEntry) => T | undefined): T | undefined {
    for (const entry of this.#nodes.values()) {
      const found = pick(entry);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

function fill<T>(map: Map<string, T>, states: readonly T[], keyOf: (state: T) => string): void {
  map.clear();
  for (const state of states) map.set(keyOf(state), state);
}
