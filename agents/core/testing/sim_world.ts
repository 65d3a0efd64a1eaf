/**
 * A seeded, hostile world around the real agent-core: users who ask for things, clients who write, engines that die
 * and come back, nodes that agent-core cannot reach though they serve on, also while their target is moved, calls whose
 * answers get lost, a store that fails, an agent-core that is killed between any two of its calls.
 *
 * Checked all along: what a client was told is stored can be read from every healthy child of the volume's target;
 * no replica is destroyed while it alone has a volume's data. Checked after everything is well again: what was asked
 * for is what is, and nothing is left over.
 * Invariant: one seed makes one history.
 */
import assert from "node:assert/strict";
import { type Log, silentLog } from "#common/log.ts";
import { type Random, seededRandom } from "#common/random.ts";
import { encodeJson } from "#common/store/json.ts";
import { MemoryStore } from "#common/store/memory.ts";
import { replicaOfUri } from "../scheduling/snapshot.ts";
import { BLOCKS } from "./fake_data.ts";
import type { FakeEngine } from "./fake_engine.ts";
import { call, Rig } from "./rig.ts";

/** What one volume's only user knows. */
type Client = {
  readonly uuid: string;
  /** Targets it was told of since it last detached. */
  paths: Set<string>;
  /** Per block: what a read may return: the last acknowledged value and any not acknowledged after it. */
  readonly expected: Set<number>[];
  /** The user asked for it to go: its data may too. */
  unwanted: boolean;
  created: boolean;
};

const NODES = 4;
const CALL_LOSS_PERCENT = 3;

export class SimWorld {
  readonly #random: Random;
  readonly #rig: Rig;
  readonly #clients: Client[] = [];
  readonly #history: string[] = [];
  #value = 0;
  /** New ones, for pools that were given up. */
  #disks = 0;
  /** Asked for at the same time. */
  #requests = 0;
  #calm = false;

  private constructor(rig: Rig, random: Random) {
    this.#rig = rig;
    this.#random = random;
    rig.cluster.fault = () => {
      if (this.#calm || !this.#chance(CALL_LOSS_PERCENT)) return "ok";
      return "lost";
    };
    rig.cluster.data.onDestroy = (replica) => this.#checkDestroy(replica);
    if (rig.store instanceof MemoryStore) {
      rig.store.fault = ({ call: name }) => {
        if (this.#calm || name !== "txn" || !this.#chance(1)) return "none";
        return this.#pick(["before", "after", "late"] as const) ?? "before";
      };
    }
  }

  static async start(seed: number, log: Log = silentLog): Promise<SimWorld> {
    const rig = await Rig.start({ nodes: NODES, seed, log });
    await rig.createPools();
    return new SimWorld(rig, seededRandom(seed ^ 0x5eed));
  }

  get history(): string {
    return this.#history.join("\n");
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      await this.#step();
      this.#checkReads();
    }
    await this.#heal();
    await this.#checkConverged();
    await this.#rig.close();
  }

  #chance(percent: number): boolean {
    return this.#random.uint32() % 100 < percent;
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[this.#random.uint32() % Math.max(1, items.length)];
  }

  #note(text: string): void {
    this.#history.push(text);
  }

  async #step(): Promise<void> {
    const { store } = this.#rig;
    if (store instanceof MemoryStore && this.#chance(20)) store.deliverLate();
    const roll = this.#random.uint32() % 100;
    if (roll < 35) await this.#write();
    else if (roll < 60) await this.#reconcile();
    else if (roll < 80) await this.#ask();
    else if (roll < 90) await this.#hurt();
    else if (roll < 94) await this.#strand();
    else if (roll < 96) await this.#purge();
    else await this.#crashAgent();
  }

  async #reconcile(): Promise<void> {
    this.#note("reconcile");
    if (this.#chance(30)) await this.#rig.clock.advance(this.#random.uint32() % 40_000);
    if (this.#chance(50)) await this.#rig.cluster.faultStep();
    await this.#rig.passes(1);
    await this.#newDisks();
  }

  async #write(): Promise<void> {
    const client = this.#pick(this.#clients.filter(({ paths }) => paths.size > 0));
    const path = client && this.#pick([...client.paths]);
    if (client && path !== undefined) await this.#writeVia(client, path);
  }

  async #writeVia(client: Client, path: string): Promise<void> {
    const engine = this.#rig.cluster.engines.find((one) => one.nexuses.has(path));
    if (!engine) return;
    const block = this.#random.uint32() % BLOCKS;
    const dies = this.#chance(3);
    this.#value += 1;
    const value = this.#value;
    client.expected[block]?.add(value); // from now on it may be there
    const done = await this.#rig.cluster.write(engine, path, { block, value, dies });
    if (done) client.expected[block] = new Set([value]);
    this.#note(`write ${client.uuid} via ${engine.node}: ${value} ${done ? "ok" : "failed"}`);
  }

  /** One or two requests at the same time, perhaps while somebody writes; any may fail. */
  async #ask(): Promise<void> {
    const requests = [this.#request(), ...(this.#chance(30) ? [this.#request()] : [])];
    this.#requests = requests.length;
    if (this.#chance(30)) requests.push(() => this.#write());
    const results = await Promise.allSettled(requests.map((request) => request()));
    for (const result of results) {
      if (result.status === "rejected") this.#note(`refused: ${String(result.reason)}`);
    }
  }

  #request(): () => Promise<unknown> {
    const rig = this.#rig;
    const kind = this.#pick([
      ...["create", "publish", "publish", "unpublish", "unpublish by force"],
      ...["republish", "republish", "more", "less", "destroy"],
    ] as const);
    const client = this.#pick(this.#clients.filter(({ unwanted }) => !unwanted));
    if (kind === "create" || !client) return () => this.#create();
    const { uuid } = client;
    this.#note(`${kind} ${uuid}`);
    switch (kind) {
      case "publish":
        return async () => {
          const node = this.#wish();
          const { state } = await rig.publish(uuid, node);
          this.#checkWish(uuid, node);
          if (state.target) client.paths.add(state.target.uuid);
        };
      case "unpublish":
      case "unpublish by force":
        client.paths.clear(); // it detaches before it says so
        return () =>
          call(rig.api, "UnpublishVolume", { volume: uuid, force: kind !== "unpublish" });
      case "republish":
        return async () => {
          const reuseExisting = this.#chance(50);
          const node = this.#wish();
          const request = {
            volume: uuid,
            protocol: "nvmf",
            reuseExisting,
            frontendNode: "",
            ...(node === undefined ? {} : { node }),
          } as const;
          const { state } = await call(rig.api, "RepublishVolume", request);
          this.#checkWish(uuid, node);
          if (state.target && client.paths.size > 0) client.paths.add(state.target.uuid);
        };
      case "more":
      case "less":
        return async () => {
          const { spec } = await rig.volume(uuid);
          const replicas = spec.num_replicas + (kind === "more" ? 1 : -1);
          await call(rig.api, "SetVolumeReplicaCount", { volume: uuid, replicas });
        };
      default:
        client.unwanted = true;
        client.paths.clear();
        return () => call(rig.api, "DestroyVolume", { volume: uuid });
    }
  }

  /** Half of those that ask for a target ask for a node. */
  #wish(): string | undefined {
    return this.#chance(50) ? `node-${1 + (this.#random.uint32() % NODES)}` : undefined;
  }

  /** Whoever was told that it worked has the target where it was asked for, until somebody else moves it. */
  #checkWish(volume: string, node: string | undefined): void {
    const target = this.#rig.core.specs.volumes.find(volume)?.target;
    if (node === undefined || this.#requests > 1) return;
    assert.equal(target?.node, node, `${volume}: a target was asked for on ${node}`);
  }

  async #create(): Promise<void> {
    if (this.#clients.filter((client) => !client.unwanted).length >= 3) return;
    const uuid = this.#random.uuid();
    const expected = Array.from({ length: BLOCKS }, () => new Set([0]));
    const client: Client = { uuid, paths: new Set(), expected, unwanted: false, created: false };
    this.#clients.push(client);
    this.#note(`create ${uuid}`);
    try {
      await this.#rig.createVolume(uuid, { replicas: 1 + (this.#random.uint32() % 3) });
      client.created = true;
    } catch (error) {
      client.unwanted = true; // nobody was promised anything
      throw error;
    }
  }

  async #hurt(): Promise<void> {
    const engine = this.#pick(this.#rig.cluster.engines);
    if (!engine) return;
    const roll = this.#random.uint32() % 6;
    if (roll === 0) engine.kill();
    else if (roll === 1 || !engine.alive) engine.restart();
    else if (roll === 2) engine.reachable = false;
    else if (roll === 3) engine.linked = false;
    else Object.assign(engine, { reachable: true, linked: true });
    const { alive, reachable, linked } = engine;
    this.#note(`${engine.node}: ${JSON.stringify({ alive, reachable, linked })}`);
    if (this.#chance(50)) await this.#rig.cluster.faultStep();
  }

  /** A pool or a node that cannot be reached is given up for good, as far as that costs nobody the last copy. */
  async #purge(): Promise<void> {
    const { api, core } = this.#rig;
    const pool = this.#pick(core.specs.pools.all());
    if (!pool) return;
    const { id, node } = pool;
    const whole = this.#chance(50) && core.specs.nodes.find(node) !== undefined;
    try {
      if (whole) await call(api, "PurgeNode", { node, lastCopies: false });
      else await call(api, "PurgePool", { pool: id, lastCopies: false });
      this.#note(`purged ${whole ? node : id}`);
    } catch (error) {
      this.#note(`not purged: ${String(error)}`);
    }
  }

  /** A new disk, under the old name, for each pool that was given up. */
  async #newDisks(): Promise<void> {
    const { api, core, cluster } = this.#rig;
    for (const { node } of cluster.engines) {
      const pool = node.replace("node", "pool");
      if (core.specs.pools.find(pool) || !core.registry.isOnline(node)) continue;
      this.#disks += 1;
      const disks = [`/dev/new-${this.#disks}`];
      await call(api, "CreatePool", { node, pool, disks }).catch((error: unknown) => {
        this.#note(`no new pool ${pool}: ${String(error)}`);
      });
    }
  }

  /**
   * A target that agent-core cannot reach is moved; at one of the calls that this takes it also loses the other engines,
   * while its client and the store are still there.
   */
  async #strand(): Promise<void> {
    const rig = this.#rig;
    const { cluster, core } = rig;
    for (const engine of cluster.engines) {
      if (!engine.alive) engine.restart();
      Object.assign(engine, { reachable: true, linked: true });
    }
    await rig.passes(6);
    const client = this.#pick(this.#clients.filter(({ paths }) => paths.size > 0));
    const path = client && core.specs.volumes.find(client.uuid)?.target?.nexus;
    const engine = cluster.engines.find((one) => path !== undefined && one.nexuses.has(path));
    if (!client || path === undefined || !engine) return;
    this.#note(`${engine.node} is stranded while ${client.uuid} is moved`);
    engine.reachable = false;
    await rig.look();
    let calls = 1 + (this.#random.uint32() % 20);
    const lose = async () => {
      calls -= 1;
      if (calls !== 0) return;
      engine.linked = false;
      await this.#writeVia(client, path);
    };
    rig.link.meanwhile = lose;
    const { uuid: volume } = client;
    const request = { volume, protocol: "nvmf", reuseExisting: false, frontendNode: "" } as const;
    try {
      const { state } = await call(rig.api, "RepublishVolume", request);
      if (state.target) client.paths.add(state.target.uuid);
    } catch (error) {
      this.#note(`refused: ${String(error)}`);
    }
    rig.link.meanwhile = async () => {};
    engine.linked = false;
    await this.#writeVia(client, path);
  }

  /** Killed at one of its next calls (or now), while it works; another one takes over. */
  async #crashAgent(): Promise<void> {
    const at = 1 + (this.#random.uint32() % 12);
    const when = this.#chance(50) ? "before" : "after";
    this.#note(`agent-core dies at call ${at}`);
    this.#rig.link.arm({ call: at, when });
    await this.#ask();
    await this.#rig.passes(1).catch(() => {}); // dead by now
    this.#rig.crashAgent();
    const calm = this.#calm;
    this.#calm = true; // a store that fails at its start just ends the process: try again later is the same
    await this.#rig.startAgent();
    this.#calm = calm;
  }

  #good(client: Client, replica: string): boolean {
    const found = this.#rig.cluster.data.read(replica);
    return client.expected.every((allowed, block) => allowed.has(found[block] ?? -1));
  }

  /** The volume's replicas that exist, by what the specs say. */
  #replicasOf(client: Client): string[] {
    const { replicas } = this.#rig.core.specs;
    const exists = new Set(this.#rig.cluster.data.replicas());
    return replicas
      .all()
      .filter((spec) => spec.owners.volume === client.uuid && exists.has(spec.uuid))
      .map((spec) => spec.uuid);
  }

  #checkDestroy(replica: string): void {
    for (const client of this.#clients) {
      if (client.unwanted || !client.created || !this.#good(client, replica)) continue;
      const owned = this.#owners.get(replica);
      if (owned !== client.uuid) continue;
      const others = [...this.#owners].filter(
        ([other, volume]) =>
          volume === client.uuid && other !== replica && this.#good(client, other),
      );
      assert.ok(others.length > 0, `${replica} was the last good copy of ${client.uuid}`);
    }
  }

  /** Every replica that ever belonged to a volume: ownership that was given up counts here. */
  readonly #owners = new Map<string, string>();

  #checkReads(): void {
    const { cluster, core } = this.#rig;
    for (const spec of core.specs.replicas.all()) {
      if (spec.owners.volume !== null) this.#owners.set(spec.uuid, spec.owners.volume);
    }
    for (const client of this.#clients) {
      if (client.unwanted || !client.created) continue;
      const target = core.specs.volumes.find(client.uuid)?.target;
      if (!target?.active) continue;
      const engine = cluster.engines.find((one) => one.alive && one.nexuses.has(target.nexus));
      if (engine) this.#checkNexus(client, engine, target.nexus);
    }
  }

  #checkNexus(client: Client, engine: FakeEngine, uuid: string): void {
    const state = this.#rig.cluster.nexusesOn(engine).find((nexus) => nexus.uuid === uuid);
    if (state?.status !== "Online" && state?.status !== "Degraded") return;
    for (const child of state.children) {
      if (child.status !== "Online") continue;
      const replica = replicaOfUri(child.uri) ?? "";
      const found = this.#rig.cluster.data.read(replica);
      const wanted = client.expected.map((allowed) => [...allowed].join("|"));
      assert.ok(
        this.#good(client, replica),
        `${client.uuid}: ${child.uri} holds ${found.join()}, acknowledged was ${wanted.join()}`,
      );
    }
  }

  async #heal(): Promise<void> {
    this.#note("all is well again");
    this.#calm = true;
    const rig = this.#rig;
    if (rig.store instanceof MemoryStore) rig.store.deliverLate();
    for (const engine of rig.cluster.engines) {
      if (!engine.alive) engine.restart();
      Object.assign(engine, { reachable: true, linked: true });
    }
    await rig.cluster.faultStep();
    await rig.clock.advance(2_000); // whoever pauses after a failure tries again
    await rig.settle();
    await this.#newDisks();
    await rig.settle();
    await rig.clock.advance(31_000); // what was away for long enough is given up
    await rig.settle();
    await rig.clock.advance(601_000); // and what was waited for is replaced
    await rig.settle();
  }

  async #checkConverged(): Promise<void> {
    const rig = this.#rig;
    const { specs, registry } = rig.core;
    for (const client of this.#clients) {
      if (client.unwanted || !client.created) continue;
      if (!specs.volumes.get(client.uuid).target?.active) await rig.publish(client.uuid);
      await rig.settle();
      const { spec, state } = await rig.volume(client.uuid);
      assert.equal(state.status, "Online", `${client.uuid} is ${state.status}`);
      assert.equal(state.target?.children.length, spec.num_replicas);
      const good = this.#replicasOf(client).filter((replica) => this.#good(client, replica));
      assert.equal(good.length, spec.num_replicas, `${client.uuid}: good copies`);
    }
    this.#checkReads();
    const { volumes, nexuses: nexusSpecs, replicas, pools } = specs;
    const all = [...volumes.all(), ...nexusSpecs.all(), ...replicas.all(), ...pools.all()];
    for (const spec of all) {
      assert.equal(spec.operation, null, `unfinished: ${encodeJson(spec)}`);
    }
    const present = new Set(volumes.all().flatMap(({ target }) => target?.nexus ?? []));
    const left = nexusSpecs.all().filter((spec) => !present.has(spec.uuid));
    assert.deepEqual(left, [], "nexus specs of nobody");
    const lost = registry.nexuses().filter(({ uuid }) => !nexusSpecs.find(uuid));
    assert.deepEqual(lost, [], "nexuses of nobody");
    const known = new Set(specs.replicas.all().map((spec) => spec.uuid));
    const strays = registry.replicas().filter((replica) => !known.has(replica.uuid));
    assert.deepEqual(strays, [], "replicas of nobody");
    const targets = specs.volumes
      .all()
      .flatMap(({ target }) => (target?.active ? target.nexus : []));
    const nexuses = rig.cluster.engines.flatMap((engine) => [...engine.nexuses.keys()]);
    assert.deepEqual(nexuses.sort(), targets.sort(), "a target for each volume, and no other");
  }
}
