/**
 * Engines in memory, for tests: pools and replicas on "disks" that outlive a crash, nexuses that do not.
 *
 * Why: operations and reconcilers are tested against something that fails as engines do: calls that are refused,
 * lost before or lost after they took effect; children that fault when their node dies; rebuilds that take time.
 * Invariants: a nexus writes its NexusInfo before it shows a change, as the engine does, replaces only what it wrote
 * last, and ends itself when it cannot; a rebuild moves forward only when the test says so (`rebuildStep`).
 */
import { SvcError } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import type {
  ChildState,
  CreateNexus,
  EngineClient,
  EngineConnector,
  NexusState,
  PoolState,
  ReplicaState,
} from "../engine/client.ts";
import { statusOnPool } from "../engine/convert.ts";
import { replicaOfUri } from "../scheduling/snapshot.ts";
import { FakeData } from "./fake_data.ts";

const GIB = 2 ** 30;
const CLUSTER_BYTES = 4 * 2 ** 20;
/** What a nexus keeps of each child for itself. */
export const NEXUS_OVERHEAD = 5 * 2 ** 20 + 16 * 2 ** 10 + 2 * 512;

type Disk = { pool: string; uuid: string; replicas: Map<string, ReplicaState>; capacity: number };
type FakeChild = {
  uri: string;
  status: ChildState["status"];
  reason: ChildState["reason"];
  progress: number | null;
  faultedAtMs: number | null;
  hasIoLog: boolean;
  /** Blocks written since it faulted: what a partial rebuild copies. */
  missed: Set<number>;
};
type FakeNexus = {
  request: CreateNexus;
  status: "open" | "shutdown";
  shared: boolean;
  allowedHosts: readonly string[];
  /** Hosts that were connected, with their controllers that were not shut down. */
  hosts: Map<string, number>;
  children: FakeChild[];
  /** Revision of the record that it put last; "lost" when one could not be put. */
  recorded: bigint | "none" | "lost";
  /** The put before, to its end: one at a time, as the engine does it. */
  recording: Promise<unknown>;
  /** Stopped when no other was healthy: it alone has the data, and its record says so. */
  lastGood: FakeChild | null;
};

/** Decides what happens to a call; throw to refuse it. "lost": it takes effect, the answer does not come. */
export type CallFault = (call: { readonly node: string; readonly name: string }) => "ok" | "lost";

export class FakeEngine {
  node: string;
  readonly endpoint: string;
  readonly ip: string;
  readonly cluster: FakeCluster;
  /** By device path; survive a crash. */
  readonly disks = new Map<string, Disk>();
  /** Pools that are loaded: name to disk. */
  readonly pools = new Map<string, Disk>();
  readonly nexuses = new Map<string, FakeNexus>();
  /** By pool; those not named are Online. Unknown: its disk does not answer. */
  readonly poolStatus = new Map<string, PoolState["status"]>();
  /** Of the pools' disks, by pool; 512 where nothing else is said. */
  readonly blockSizes = new Map<string, number>();
  poolsMade = 0;
  /** Tells what the published interface does not: block sizes and connected hosts. */
  tellsMore = true;
  /** Connected hosts, by nexus. */
  readonly hosts = new Map<string, number>();
  instanceUuid: string;
  /** Also when it is asked, not only at its registration. */
  tellsInstance = true;
  alive = true;
  /** agent-core's calls get through; its nexuses and replicas work either way. */
  reachable = true;
  /** Its link to the other engines. */
  linked = true;
  /** Another implementation: it cannot say how hosts left a target. */
  tellsNoHosts = false;
  #starts = 0;

  constructor(cluster: FakeCluster, index: number) {
    this.cluster = cluster;
    this.node = `node-${index}`;
    this.ip = `10.0.0.${index}`;
    this.endpoint = `${this.ip}:10124`;
    this.instanceUuid = this.#nextInstance();
  }

  /** As SIGKILL: what was in memory is gone. */
  kill(): void {
    this.alive = false;
    this.pools.clear();
    this.nexuses.clear();
  }

  restart(): void {
    this.kill();
    this.alive = true;
    this.instanceUuid = this.#nextInstance();
  }

  replica(uuid: string): ReplicaState | undefined {
    if (!this.alive) return undefined;
    for (const disk of this.pools.values()) {
      if (this.poolStatus.get(disk.pool) === "Unknown") continue;
      const replica = disk.replicas.get(uuid);
      if (replica) return replica;
    }
    return undefined;
  }

  #nextInstance(): string {
    this.#starts += 1;
    return `00000000-0000-4000-8000-${this.ip.replaceAll(".", "").padStart(8, "0")}${String(this.#starts).padStart(4, "0")}`;
  }
}

export class FakeCluster {
  readonly engines: FakeEngine[];
  readonly #store: ObjectStore;
  readonly #nowMs: () => number;
  /** Every call that took effect, in order: `node name`. */
  readonly calls: string[] = [];
  readonly data = new FakeData();
  /** Replicas whose disks fail: no rebuild onto one of them gets to its end. */
  readonly bad = new Set<string>();
  /** How often a rebuild onto a replica began. */
  readonly rebuilds = new Map<string, number>();
  fault: CallFault = () => "ok";
  /** What happens elsewhere before a call takes effect. */
  meanwhile: (call: { readonly node: string; readonly name: string }) => Promise<void> =
    async () => {};

  constructor(options: {
    readonly nodes: number;
    readonly store: ObjectStore;
    readonly nowMs: () => number;
  }) {
    this.#store = options.store;
    this.#nowMs = options.nowMs;
    this.engines = Array.from(
      { length: options.nodes },
      (_, index) => new FakeEngine(this, index + 1),
    );
  }

  /** A further engine under the name of another. */
  addTwin(node: string): FakeEngine {
    const twin = new FakeEngine(this, this.engines.length + 1);
    twin.node = node;
    this.engines.push(twin);
    return twin;
  }

  engine(node: string): FakeEngine {
    const found = this.engines.find((engine) => engine.node === node);
    if (!found) throw new Error(`no engine ${node}`);
    return found;
  }

  readonly connect: EngineConnector = ({ endpoint }) => this.#client(endpoint);

  /** The nexus of a volume that is open somewhere, if there is exactly one. */
  openNexuses(): { node: string; uuid: string; children: string[] }[] {
    return this.engines.flatMap((engine) =>
      [...engine.nexuses.values()]
        .filter((nexus) => nexus.status === "open")
        .map(({ request, children }) => ({
          node: engine.node,
          uuid: request.uuid,
          children: children.map((child) => child.uri),
        })),
    );
  }

  /** The states of a node's nexuses, whoever can reach it. */
  nexusesOn(engine: FakeEngine): NexusState[] {
    return [...engine.nexuses.values()].map((nexus) => this.#nexusState(engine, nexus));
  }

  /** All rebuilds finish, if their replicas are up. True when there were any. */
  async rebuildStep(): Promise<boolean> {
    let any = false;
    for (const engine of this.engines) {
      for (const nexus of engine.nexuses.values()) {
        const rebuilding = nexus.children.filter((child) => child.progress !== null);
        for (const child of rebuilding) {
          if (this.bad.has(replicaOf(child))) {
            this.#fail(child, "IoFailure");
            any = true;
            continue;
          }
          const source = nexus.children.find((other) => other.status === "Online");
          if (!source || !this.#isUp(engine, child.uri)) continue;
          const only = child.hasIoLog ? child.missed : null;
          this.data.copy(replicaOf(source), replicaOf(child), only);
          child.missed = new Set();
          child.status = "Online";
          child.reason = "None";
          child.progress = null;
          child.hasIoLog = false;
          child.faultedAtMs = null;
        }
        if (rebuilding.length === 0) continue;
        any ||= rebuilding.some((child) => child.progress === null);
        await this.#persist(nexus);
      }
    }
    return any;
  }

  /** A request of its nexus failed on a child: it stops. */
  async failChild(replica: string, reason: ChildState["reason"] = "IoFailure"): Promise<void> {
    for (const engine of this.engines) {
      for (const nexus of engine.nexuses.values()) {
        const child = nexus.children.find((one) => replicaOf(one) === replica);
        if (!child || child.status === "Faulted") continue;
        this.#fail(child, reason);
        await this.#persist(nexus);
      }
    }
  }

  #fail(child: FakeChild, reason: ChildState["reason"]): void {
    child.hasIoLog ||= child.status === "Online";
    child.status = "Faulted";
    child.reason = reason;
    child.progress = null;
    child.faultedAtMs = this.#nowMs();
  }

  #countRebuild(uri: string): void {
    const replica = replicaOfUri(uri) ?? "";
    this.rebuilds.set(replica, (this.rebuilds.get(replica) ?? 0) + 1);
  }

  /** Children whose replica is gone fault, as after the next write. */
  async faultStep(): Promise<void> {
    for (const engine of this.engines) {
      if (!engine.alive) continue;
      for (const nexus of engine.nexuses.values()) await this.#faultDead(engine, nexus);
    }
  }

  /**
   * One write through a nexus, as its client would: true when it was acknowledged. `dies`: its engine is killed when
   * some of the children have it.
   */
  async write(
    engine: FakeEngine,
    uuid: string,
    { block, value, dies = false }: { block: number; value: number; dies?: boolean },
  ): Promise<boolean> {
    const nexus = engine.nexuses.get(uuid);
    if (!engine.alive || nexus?.status !== "open" || !nexus.shared) return false;
    await this.#faultDead(engine, nexus);
    if (nexus.status !== "open") return false;
    const online = nexus.children.filter((child) => child.status === "Online");
    for (const child of nexus.children) if (isFaulted(child)) child.missed.add(block);
    if (online.length === 0 || !online.every((child) => this.#isUp(engine, child.uri)))
      return false;
    const isFenced = (child: FakeChild) =>
      child.uri.startsWith("nvmf") && !this.data.admits(replicaOf(child), uuid);
    const takes = dies ? online.slice(0, -1) : online;
    const copies = nexus.children.filter((child) => child.progress !== null);
    const fenced = [...online, ...copies].some(isFenced); // those that it lost refuse nothing
    for (const child of [...takes, ...copies]) {
      if (!isFenced(child)) this.data.write(replicaOf(child), block, value);
    }
    if (fenced) nexus.status = "shutdown"; // somebody newer has its children
    if (dies) engine.kill();
    return !fenced && !dies;
  }

  /** The pool of one child had no room for a write: the child stops, and shows itself as engines show it. */
  async outOfSpace(nexus: FakeNexus, replica: string): Promise<void> {
    const child = nexus.children.find((one) => replicaOf(one) === replica);
    if (!child) throw new Error(`no child over replica ${replica}`);
    child.hasIoLog = child.status === "Online";
    child.status = "Degraded";
    child.reason = "NoSpace";
    child.progress = null;
    child.faultedAtMs = this.#nowMs();
    if (nexus.children.some(({ status }) => status === "Online")) await this.#persist(nexus);
    else nexus.lastGood = child;
  }

  async #faultDead(engine: FakeEngine, nexus: FakeNexus): Promise<void> {
    if (nexus.status !== "open") return;
    let changed = false;
    for (const child of nexus.children) {
      if (isFaulted(child) || this.#isUp(engine, child.uri)) continue;
      // Never the last healthy child: it alone has the data.
      const healthy = nexus.children.filter((other) => other.status === "Online");
      if (healthy.length === 1 && healthy[0] === child) continue;
      child.hasIoLog = child.status === "Online";
      child.status = "Faulted";
      child.reason = "IoFailure";
      child.progress = null;
      child.faultedAtMs = this.#nowMs();
      changed = true;
    }
    if (changed) await this.#persist(nexus);
  }

  #homeOf(uri: string): { engine: FakeEngine; replica: ReplicaState } | null {
    const uuid = replicaOfUri(uri) ?? "";
    for (const engine of this.engines) {
      for (const disk of engine.disks.values()) {
        const replica = disk.replicas.get(uuid);
        if (replica) return { engine, replica };
      }
    }
    return null;
  }

  #blockSize(uri: string): number {
    const home = this.#homeOf(uri);
    return home?.engine.blockSizes.get(home.replica.pool) ?? 512;
  }

  /** What a nexus can offer of a child. */
  #deviceBytes(uri: string): number {
    return (this.#homeOf(uri)?.replica.size ?? 0) - NEXUS_OVERHEAD;
  }

  /** The bytes that hosts of the nexus see: as many as were asked for, or as all its first children have. */
  sizeOf({ request }: FakeNexus): number {
    return Math.min(request.size, ...request.children.map((uri) => this.#deviceBytes(uri)));
  }

  /** Whether a nexus on `from` reaches the child: on its own node, or shared elsewhere over links that work. */
  #isUp(from: FakeEngine, uri: string): boolean {
    const uuid = replicaOfUri(uri) ?? "";
    if (uri.startsWith("bdev")) return from.replica(uuid) !== undefined;
    const home = this.engines.find((engine) => engine.replica(uuid) !== undefined);
    if (home === undefined || home.replica(uuid)?.uri !== uri) return false;
    return home === from || (home.linked && from.linked);
  }

  /** False: it could not be recorded, so the nexus must not acknowledge anything more. */
  #persist(nexus: FakeNexus, clean = false): Promise<boolean> {
    const put = nexus.recording.then(() => this.#put(nexus, clean));
    nexus.recording = put;
    return put;
  }

  async #put(nexus: FakeNexus, clean: boolean): Promise<boolean> {
    const some = nexus.children.some(({ status }) => status === "Online");
    const children = nexus.children.map((child) => ({
      healthy: some ? child.status === "Online" : child === nexus.lastGood,
      uuid: replicaOfUri(child.uri) ?? "",
    }));
    const key = nexus.request.infoKey;
    const value = encodeJson({ children, clean_shutdown: clean });
    if (nexus.recorded === "lost") return false;
    try {
      const last = nexus.recorded;
      const is = last === "none" ? ((await this.#store.get(key))?.modRevision ?? 0n) : last;
      const when = [{ target: "mod", key, is }] as const;
      const put = await this.#store.txn({ when, apply: [{ op: "put", key, value }] });
      nexus.recorded = put ?? "lost";
    } catch {
      nexus.recorded = "lost"; // as after the last of many tries
    }
    if (nexus.recorded === "lost") nexus.status = "shutdown";
    return nexus.recorded !== "lost";
  }

  /** Ends it as its engine does when it is told to; one that ended by itself left no clean record. */
  async #shutDown(nexus: FakeNexus): Promise<void> {
    const open = nexus.status === "open";
    nexus.status = "shutdown";
    if (open) await this.#persist(nexus, true);
  }

  async #recorded(nexus: FakeNexus): Promise<void> {
    if (await this.#persist(nexus)) return;
    throw new SvcError("unavailable", "the record of the nexus could not be stored");
  }

  async #call<T>(engine: FakeEngine, name: string, work: () => T | Promise<T>): Promise<T> {
    await Promise.resolve();
    await this.meanwhile({ node: engine.node, name });
    const lost = () =>
      new SvcError("unavailable", `Cannot reach ${engine.node}: ${name} got no answer`);
    const { instanceUuid } = engine;
    if (!engine.alive || !engine.reachable) throw lost();
    const fault = this.fault({ node: engine.node, name });
    const result = await work();
    this.calls.push(`${engine.node} ${name}`);
    const same = engine.alive && engine.instanceUuid === instanceUuid;
    if (fault === "lost" || !same || !engine.reachable) throw lost();
    return result;
  }

  #client(endpoint: string): EngineClient {
    const engine = this.engines.find((known) => known.endpoint === endpoint);
    if (!engine) throw new Error(`no engine at ${endpoint}`);
    const call = <T>(name: string, work: () => T | Promise<T>) => this.#call(engine, name, work);
    const nexusOf = (uuid: string) => {
      const nexus = engine.nexuses.get(uuid);
      if (!nexus) throw new SvcError("not-found", `nexus ${uuid} not found`);
      return nexus;
    };
    const replicaIn = (uuid: string) => {
      for (const disk of engine.pools.values()) {
        const replica = disk.replicas.get(uuid);
        if (replica) return { disk, replica };
      }
      throw new SvcError("not-found", `replica ${uuid} not found`);
    };
    const poolState = (disk: Disk): PoolState => {
      const sizes = [...disk.replicas.values()];
      const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
      const path = [...engine.disks].find(([, known]) => known === disk)?.[0] ?? "";
      return {
        id: disk.pool,
        uuid: disk.uuid,
        node: engine.node,
        disks: [`aio://${path}`],
        status: engine.poolStatus.get(disk.pool) ?? "Online",
        capacity: disk.capacity,
        used: sum(sizes.map((replica) => replica.space?.allocated ?? replica.size)),
        committed: sum(sizes.map((replica) => replica.size)),
        clusterSize: CLUSTER_BYTES,
        ...(engine.tellsMore ? { blockSize: engine.blockSizes.get(disk.pool) ?? 512 } : {}),
      };
    };
    const setReplica = (
      disk: Disk,
      replica: ReplicaState,
      share: "none" | "nvmf",
      hosts: readonly string[],
    ) => {
      const uri =
        share === "nvmf"
          ? `nvmf://${engine.ip}:8420/nqn.2019-05.io.openebs:${replica.uuid}?uuid=${replica.uuid}`
          : `bdev:///${replica.uuid}?uuid=${replica.uuid}`;
      const next = { ...replica, share, uri, allowedHosts: [...hosts] };
      disk.replicas.set(replica.uuid, next);
      return next;
    };
    const state = (nexus: FakeNexus): NexusState => this.#nexusState(engine, nexus);
    const importPool = (id: string, path: string) => {
      const disk = engine.disks.get(path);
      if (!disk || disk.pool !== id)
        throw new SvcError("invalid-argument", `no pool ${id} on ${path}`);
      engine.pools.set(id, disk);
      return poolState(disk);
    };
    return {
      probe: () =>
        call("probe", () => ({
          node: engine.node,
          endpoint: engine.endpoint,
          instanceUuid: engine.tellsInstance ? engine.instanceUuid : null,
        })),
      load: () =>
        call("load", () => ({
          pools: [...engine.pools.values()].map(poolState),
          replicas: [...engine.pools.values()].flatMap((disk) =>
            [...disk.replicas.values()].map((replica) => ({
              ...replica,
              status: statusOnPool(engine.poolStatus.get(disk.pool) ?? "Online"),
            })),
          ),
          nexuses: [...engine.nexuses.values()].map(state),
        })),
      targetHosts: () =>
        call("targetHosts", () =>
          engine.tellsMore
            ? new Map(
                [...engine.nexuses].map(([uuid, { request }]) => [
                  uuid,
                  { connected: engine.hosts.get(uuid) ?? 0, infoKey: request.infoKey },
                ]),
              )
            : null,
        ),
      blockDevices: () => call("blockDevices", () => []),
      createPool: ({ id, disks }) =>
        call("createPool", () => {
          const [path = ""] = disks;
          if (path.startsWith("/bad")) throw new SvcError("invalid-argument", "no such disk");
          if (engine.pools.has(id)) throw new SvcError("already-exists", `pool ${id} exists`);
          if (!engine.disks.has(path)) {
            engine.poolsMade += 1;
            const made = String(engine.poolsMade).padStart(8, "0");
            const uuid = `11111111-0000-4000-8000-${engine.ip.split(".")[3]?.padStart(4, "0")}${made}`;
            engine.disks.set(path, { pool: id, uuid, replicas: new Map(), capacity: 10 * GIB });
          }
          return importPool(id, path);
        }),
      importPool: ({ id, disks }) => call("importPool", () => importPool(id, disks[0] ?? "")),
      destroyPool: (id) =>
        call("destroyPool", () => {
          const disk = engine.pools.get(id);
          if (!disk) throw new SvcError("not-found", `pool ${id} not found`);
          engine.pools.delete(id);
          for (const [path, known] of engine.disks) if (known === disk) engine.disks.delete(path);
        }),
      exportPool: (id) =>
        call("exportPool", () => {
          if (!engine.pools.delete(id)) throw new SvcError("not-found", `pool ${id} not found`);
        }),
      createReplica: ({ uuid, name, pool, size, thin }) =>
        call("createReplica", () => {
          const disk = engine.pools.get(pool);
          if (!disk) throw new SvcError("failed-precondition", `pool ${pool} is not loaded`);
          if (disk.replicas.has(uuid)) throw new SvcError("already-exists", "replica exists");
          const clusterSize = CLUSTER_BYTES;
          const whole = Math.ceil(size / clusterSize) * clusterSize;
          const allocated = thin ? clusterSize : whole;
          if (allocated > disk.capacity - poolState(disk).used) {
            throw new SvcError("resource-exhausted", `ENOSPC: pool ${pool} has no room`);
          }
          const space = {
            capacity: whole,
            allocated,
            clusterSize,
            clusters: Math.ceil(size / clusterSize),
            allocatedClusters: Math.ceil(allocated / clusterSize),
          };
          const base = {
            uuid,
            name,
            node: engine.node,
            pool,
            poolUuid: disk.uuid,
            size: whole,
            thin,
            space,
          };
          const fresh: ReplicaState = {
            ...base,
            share: "none",
            uri: "",
            allowedHosts: [],
            status: "Online",
          };
          this.data.create(uuid);
          return setReplica(disk, fresh, "none", []);
        }),
      destroyReplica: ({ uuid }) =>
        call("destroyReplica", () => {
          const { disk } = replicaIn(uuid);
          this.data.destroy(uuid);
          disk.replicas.delete(uuid);
        }),
      shareReplica: ({ uuid, allowedHosts }) =>
        call("shareReplica", () => {
          const { disk, replica } = replicaIn(uuid);
          return setReplica(disk, replica, "nvmf", allowedHosts);
        }),
      unshareReplica: (uuid) =>
        call("unshareReplica", () => {
          const { disk, replica } = replicaIn(uuid);
          return setReplica(disk, replica, "none", []);
        }),
      createNexus: (request) =>
        call("createNexus", async () => {
          if (engine.nexuses.has(request.uuid))
            throw new SvcError("already-exists", "nexus exists");
          const dead = request.children.find((uri) => !this.#isUp(engine, uri));
          if (dead !== undefined || request.children.length === 0) {
            throw new SvcError("invalid-argument", `cannot open child ${dead ?? ""}`);
          }
          const blocks = new Set(request.children.map((uri) => this.#blockSize(uri)));
          if (blocks.size > 1) {
            throw new SvcError("invalid-argument", "children have blocks of different sizes");
          }
          const nexus: FakeNexus = {
            request,
            status: "open",
            shared: false,
            allowedHosts: [],
            children: request.children.map((uri) => newChild(uri, "Online")),
            hosts: new Map(),
            recorded: "none",
            recording: Promise.resolve(),
            lastGood: null,
          };
          const named = (other: FakeNexus) => other.request.name === request.name;
          if ([...engine.nexuses.values()].some(named)) {
            throw new SvcError("already-exists", `a nexus of the name ${request.name} exists`);
          }
          for (const child of nexus.children) this.data.reserve(replicaOf(child), request.uuid);
          await this.#recorded(nexus);
          engine.nexuses.set(request.uuid, nexus);
          return state(nexus);
        }),
      destroyNexus: (uuid) =>
        call("destroyNexus", async () => {
          await this.#shutDown(nexusOf(uuid));
          engine.nexuses.delete(uuid);
        }),
      shutdownNexus: (uuid) =>
        call("shutdownNexus", async () => {
          const nexus = nexusOf(uuid);
          await this.#shutDown(nexus);
          return state(nexus);
        }),
      shareNexus: ({ uuid, allowedHosts }) =>
        call("shareNexus", () => {
          const nexus = nexusOf(uuid);
          nexus.shared = true;
          nexus.allowedHosts = allowedHosts;
          return state(nexus);
        }),
      unshareNexus: (uuid) =>
        call("unshareNexus", () => {
          const nexus = nexusOf(uuid);
          nexus.shared = false;
          return state(nexus);
        }),
      endPublication: (uuid) =>
        call("endPublication", () => {
          const nexus = nexusOf(uuid);
          nexus.shared = false;
          if (engine.tellsNoHosts) return null;
          return {
            hosts: [...nexus.hosts].map(([nqn, leftOpen]) => ({ nqn, leftOpen })),
            complete: true,
          };
        }),
      addChild: ({ nexus: uuid, uri }) =>
        call("addChild", async () => {
          const nexus = nexusOf(uuid);
          if (!this.#isUp(engine, uri)) {
            throw new SvcError("invalid-argument", `cannot open child ${uri}`);
          }
          const [first] = nexus.children;
          if (first && this.#blockSize(first.uri) !== this.#blockSize(uri)) {
            throw new SvcError("invalid-argument", `child ${uri} has another block size`);
          }
          if (this.#deviceBytes(uri) < this.sizeOf(nexus)) {
            throw new SvcError("invalid-argument", `child ${uri} is too small`);
          }
          const child = newChild(uri, "Degraded");
          this.data.reserve(replicaOf(child), uuid);
          this.#countRebuild(uri);
          nexus.children.push({ ...child, reason: "OutOfSync", progress: 0 });
          await this.#recorded(nexus);
          return state(nexus);
        }),
      removeChild: ({ nexus: uuid, uri }) =>
        call("removeChild", async () => {
          const nexus = nexusOf(uuid);
          const rest = nexus.children.filter((child) => child.uri !== uri);
          if (!rest.some((child) => child.status === "Online")) {
            throw new SvcError("failed-precondition", "cannot remove the last healthy child");
          }
          nexus.children = rest;
          await this.#recorded(nexus);
          return state(nexus);
        }),
      onlineChild: ({ nexus: uuid, uri }) =>
        call("onlineChild", () => {
          const nexus = nexusOf(uuid);
          const child = nexus.children.find((known) => known.uri === uri);
          if (!child) throw new SvcError("not-found", "child not found");
          if (!this.#isUp(engine, uri)) {
            throw new SvcError("invalid-argument", "cannot open child");
          }
          if (!isFaulted(child)) return state(nexus);
          this.data.reserve(replicaOf(child), uuid);
          this.#countRebuild(uri);
          child.status = "Degraded";
          child.reason = "OutOfSync";
          child.progress = 50;
          return state(nexus);
        }),
      close: () => {},
    };
  }

  #nexusState(engine: FakeEngine, nexus: FakeNexus): NexusState {
    const { request, shared, children, allowedHosts } = nexus;
    const online = children.filter((child) => child.status === "Online").length;
    const open = online === children.length ? "Online" : online > 0 ? "Degraded" : "Faulted";
    return {
      uuid: request.uuid,
      name: request.name,
      node: engine.node,
      size: request.size,
      status: nexus.status === "shutdown" ? "Shutdown" : open,
      children: children.map(({ progress, missed: _, ...child }) => ({
        ...child,
        rebuildProgress: progress,
      })),
      deviceUri: shared ? `nvmf://${engine.ip}:4421/nqn.2019-05.io.openebs:${request.name}` : "",
      share: shared ? "nvmf" : "none",
      rebuilds: children.filter((child) => child.progress !== null).length,
      allowedHosts,
    };
  }
}

/** Takes no writes, and can be brought online again. */
function isFaulted({ status, reason }: FakeChild): boolean {
  return status === "Faulted" || reason === "NoSpace";
}

function replicaOf(child: FakeChild): string {
  return replicaOfUri(child.uri) ?? "";
}

function newChild(uri: string, status: "Online" | "Degraded"): FakeChild {
  const none = { progress: null, faultedAtMs: null, hasIoLog: false };
  return { uri, status, reason: "None", ...none, missed: new Set() };
}
