/** The reconciler under random faults: whatever fails in between, resources and pools end up alike. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import type { Pool } from "#common/openapi/model.ts";
import { type Random, seededRandom } from "#common/random.ts";
import type { DiskPoolStatus } from "#common/types/diskpool.ts";
import { Reconciler } from "./controller.ts";
import type { EventDraft } from "./decide.ts";
import type { Events, Pools, Resources } from "./ports.ts";
import { type DiskPool, FINALIZER } from "./resource.ts";

const SEEDS = 200;
const STEPS = 120;
const NAMES = ["a", "b", "c"] as const;

/** A control plane and an API server in memory, whose calls may fail before or after they had their effect. */
class World implements Pools, Resources, Events {
  readonly pools = new Map<string, Pool>();
  readonly resources = new Map<string, DiskPool>();
  readonly destroyed: string[] = [];
  readonly notes: string[] = [];
  /** Kept, not thrown: the reconciler would take them for a fault. */
  readonly breaches: string[] = [];
  faulty = true;
  readonly #random: Random;
  #version = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  chance(percent: number): boolean {
    return this.#random.uint32() % 100 < percent;
  }

  #must(holds: boolean | undefined, rule: string): void {
    if (!holds) this.breaches.push(rule);
  }

  /** Runs an effect that may be refused, or done without its answer coming back. */
  #attempt<T>(effect: () => T): T {
    const fate = this.faulty ? this.#random.uint32() % 10 : 9;
    const kind = fate % 2 === 0 ? "unavailable" : "internal";
    if (fate < 2) throw new SvcError(kind, "Cannot do it: a fault before");
    const result = effect();
    if (fate < 4) throw new SvcError(kind, "Cannot do it: a fault after");
    return result;
  }

  async get(name: string): Promise<Pool> {
    return this.#attempt(() => {
      const pool = this.pools.get(name);
      if (!pool) throw new SvcError("not-found", "no such pool");
      return pool;
    });
  }

  async create({ node, pool, disks }: { node: string; pool: string; disks: readonly string[] }) {
    this.#attempt(() => {
      if (this.pools.has(pool)) throw new SvcError("already-exists", "it exists");
      const resource = this.resources.get(pool);
      this.#must(resource?.finalizers.includes(FINALIZER), "no pool without a finalizer");
      const state = { id: pool, node, disks: [...disks], capacity: 10, used: 1 };
      this.pools.set(pool, {
        id: pool,
        spec: { id: pool, node, disks: [...disks], status: "Created" },
        state: { ...state, status: "Online" },
      });
    });
  }

  async destroy({ pool }: { pool: string }): Promise<void> {
    this.#attempt(() => {
      this.#must(this.resources.get(pool)?.deleting, "no pool destroyed that nobody deleted");
      if (!this.pools.delete(pool)) throw new SvcError("not-found", "no such pool");
      this.destroyed.push(pool);
    });
  }

  async purgeCost(): Promise<never> {
    throw new SvcError("not-found", "no such path");
  }

  async purge(): Promise<void> {
    this.#must(false, "no pool purged that nobody said may be");
  }

  async devices() {
    return this.#attempt(() => []);
  }

  #write(name: string, changes: Partial<DiskPool>): DiskPool {
    const found = this.resources.get(name);
    if (!found) throw new SvcError("conflict", "the object was deleted");
    this.#version += 1;
    const next = { ...found, ...changes, resourceVersion: String(this.#version) };
    if (next.deleting && next.finalizers.length === 0) this.resources.delete(name);
    else this.resources.set(name, next);
    return next;
  }

  async protect({ name }: DiskPool): Promise<unknown> {
    return this.#attempt(() => this.#object(this.#write(name, { finalizers: [FINALIZER] })));
  }

  async release({ name, resourceVersion }: DiskPool): Promise<void> {
    this.#attempt(() => {
      if (this.resources.get(name)?.resourceVersion !== resourceVersion) {
        throw new SvcError("conflict", "modified");
      }
      this.#must(!this.pools.has(name), "no release while its pool is there");
      this.#write(name, { finalizers: [] });
    });
  }

  async report({ name }: DiskPool, status: DiskPoolStatus): Promise<unknown> {
    return this.#attempt(() => this.#object(this.#write(name, { status })));
  }

  /** As the API server shows it. */
  #object({ name, namespace, uid, resourceVersion, deleting, finalizers, spec, status }: DiskPool) {
    const deletion = deleting ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {};
    const metadata = { name, namespace, uid, resourceVersion, finalizers, ...deletion };
    return { metadata, spec, status };
  }

  async post(_: DiskPool, event: EventDraft): Promise<void> {
    this.notes.push(event.note);
  }

  settle(): void {}

  forget(): void {}

  apply(name: string): void {
    if (this.resources.has(name)) return;
    this.#version += 1;
    this.resources.set(name, {
      ...{ name, namespace: "ns", uid: `${name}-${this.#version}`, deleting: false },
      ...{ resourceVersion: String(this.#version), finalizers: [], status: null, purge: "no" },
      spec: { node: "n1", disks: [`/dev/${name}`] },
    });
  }

  remove(name: string): void {
    const found = this.resources.get(name);
    if (found === undefined) return;
    if (found.finalizers.length === 0) this.resources.delete(name);
    else this.#write(name, { deleting: true });
  }
}

async function turn(world: World, reconciler: Reconciler, name: string): Promise<void> {
  const resource = world.resources.get(name);
  if (!resource) return;
  try {
    const after = await reconciler.reconcile(resource, new AbortController().signal);
    assert.ok(after === null || after >= 0);
  } catch (error) {
    if (!(error instanceof SvcError)) throw error; // a failed write: the queue comes back to it
  }
}

test(`Reconciler brings resources and pools together after any faults (${SEEDS} seeds)`, async () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const random = seededRandom(seed);
    const world = new World(random);
    const reconciler = new Reconciler(
      {
        ...{ pools: world, resources: world, events: world, intervalMs: 1000 },
        ...{ validateDevices: true, log: silentLog },
      },
      { learn() {} },
    );
    for (let step = 0; step < STEPS; step++) {
      const name = NAMES[random.uint32() % NAMES.length] ?? "a";
      if (world.chance(10)) world.apply(name);
      else if (world.chance(5)) world.remove(name);
      else await turn(world, reconciler, name);
    }
    world.faulty = false;
    for (let pass = 0; pass < 8; pass++) {
      for (const name of NAMES) await turn(world, reconciler, name);
    }
    assert.deepEqual(world.breaches, [], `seed ${seed}`);
    for (const name of NAMES) {
      const resource = world.resources.get(name);
      const note = `seed ${seed}, ${name}`;
      assert.equal(world.pools.has(name), resource !== undefined, `${note}: pool without resource`);
      if (resource) assert.equal(resource.status?.state, "Online", note);
    }
  }
});

test("Reconciler gives up a pool that cannot be destroyed only when the resource says so", async () => {
  const asked: string[] = [];
  const released: string[] = [];
  const world = new World(seededRandom(1));
  world.faulty = false;
  const pools: Pools = {
    get: async () => ({
      id: "a",
      spec: { id: "a", node: "n", disks: ["/dev/vdb"], status: "Created" },
    }),
    create: async () => {},
    destroy: async () => {
      throw new SvcError("failed-precondition", "node n is offline");
    },
    purgeCost: async () => {
      throw new SvcError("not-found", "an older API");
    },
    purge: async (pool, lastCopies) => void asked.push(`${pool} ${lastCopies}`),
    devices: async () => [],
  };
  const resources: Resources = {
    protect: async () => null,
    report: async () => null,
    release: async ({ name }) => void released.push(name),
  };
  const reconciler = new Reconciler(
    {
      ...{ pools, resources, events: world, intervalMs: 1000, validateDevices: false },
      log: silentLog,
    },
    { learn: () => {} },
  );
  const deleted = (purge: DiskPool["purge"]): DiskPool => ({
    ...{ name: "a", namespace: "m", uid: purge, resourceVersion: "1", deleting: true, purge },
    finalizers: [FINALIZER],
    spec: { node: "n", disks: ["/dev/vdb"] },
    status: {
      ...{ state: "Unknown", cr_state: "Terminating", pool_status: "Unknown" },
      ...{ capacity: 0, used: 0, available: 0 },
    },
  });
  const signal = new AbortController().signal;
  await reconciler.reconcile(deleted("no"), signal);
  assert.deepEqual([asked, released], [[], []]);
  await reconciler.reconcile(deleted("yes"), signal);
  await reconciler.reconcile(deleted("last-copies"), signal);
  assert.deepEqual(
    [asked, released],
    [
      ["a false", "a true"],
      ["a", "a"],
    ],
  );
});
