/**
 * The controller with its informer and queue against an API server double over real HTTP: what only shows when
 * watch and answers come on different connections, in whatever order.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { type KubeObject, TestApiServer } from "#common/kubernetes/testing/api_server.ts";
import { silentLog } from "#common/log.ts";
import type { Pool } from "#common/openapi/model.ts";
import { seededRandom } from "#common/random.ts";
import { runController } from "./controller.ts";
import { kubeResources } from "./kube_resources.ts";
import type { Pools } from "./ports.ts";
import { API_VERSION, collectionPath } from "./resource.ts";

const NAMESPACE = "ns";
const DISKPOOLS = collectionPath(NAMESPACE);
/** Longer than the test: nothing here may depend on looking again. */
const INTERVAL_MS = 600_000;

const diskPool = (name: string): KubeObject => ({
  apiVersion: API_VERSION,
  kind: "DiskPool",
  metadata: { name, namespace: NAMESPACE },
  spec: { node: "n1", disks: [`/dev/${name}`] },
});

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`Waited 10 s for: ${what}`);
    await sleep(5);
  }
}

class MemoryPools implements Pools {
  readonly pools = new Map<string, Pool>();

  async get(name: string): Promise<Pool> {
    const pool = this.pools.get(name);
    if (!pool) throw new SvcError("not-found", "no such pool");
    return pool;
  }

  async create({ node, pool, disks }: { node: string; pool: string; disks: readonly string[] }) {
    const place = { id: pool, node, disks: [...disks] };
    this.pools.set(pool, {
      id: pool,
      spec: { ...place, status: "Created" },
      state: { ...place, capacity: 10, used: 1, status: "Online" },
    });
  }

  async purgeCost(): Promise<never> {
    throw new Error("not asked for");
  }
  async purge(): Promise<void> {
    throw new Error("not asked for");
  }
  async destroy({ pool }: { pool: string }): Promise<void> {
    this.pools.delete(pool);
  }

  async devices() {
    return [];
  }
}

test("runController() destroys the pool of a DiskPool whose deletion overtook the answer of a write", async (t) => {
  const server = new TestApiServer();
  await server.start();
  const stop = new AbortController();
  const pools = new MemoryPools();
  let answer: () => void = () => {};
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let isHeld = false;
  server.beforeAnswer = async ({ method, path }) => {
    const status = server.find(DISKPOOLS, "a")?.["status"];
    const isOnline = (status as { state?: string } | undefined)?.state === "Online"; // what we wrote
    if (method !== "PATCH" || path !== `${DISKPOOLS}/a/status` || !isOnline || isHeld) return;
    isHeld = true;
    await answered;
  };
  const client = new KubeClient({ server: server.url, credentials: async () => ({}) });
  const running = runController(
    {
      ...{ client, namespace: NAMESPACE, clock: systemClock, random: seededRandom(3) },
      ...{ pools, resources: kubeResources(client), log: silentLog },
      events: { post: async () => {}, settle: () => {}, forget: () => {} },
      ...{ intervalMs: INTERVAL_MS, validateDevices: true },
    },
    stop.signal,
  );
  t.after(async () => {
    answer();
    stop.abort();
    await running;
    await server.stop();
  });
  server.put(DISKPOOLS, diskPool("a"));
  await until("the answer that is held back", () => isHeld);
  server.remove(DISKPOOLS, "a");
  // One watch brings both in this order: once b is worked on, the deletion of a has been told.
  server.put(DISKPOOLS, diskPool("b"));
  await until("pool b", () => pools.pools.has("b"));
  assert.ok(pools.pools.has("a"));
  answer();
  await until("pool a destroyed", () => !pools.pools.has("a"));
  await until("DiskPool a released", () => server.find(DISKPOOLS, "a") === undefined);
  assert.ok(pools.pools.has("b"));
});
