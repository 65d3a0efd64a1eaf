/** Client, informer and leader election against an API server double over real HTTP; the queue by itself. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ManualClock, systemClock } from "../clock.ts";
import { isKind } from "../errors.ts";
import { silentLog } from "../log.ts";
import { seededRandom } from "../random.ts";
import { KubeClient, KubeError } from "./client.ts";
import { podConnection } from "./connection.ts";
import { Informer } from "./informer.ts";
import { LeaderElection } from "./leader.ts";
import { TestApiServer } from "./testing/api_server.ts";
import { WorkQueue } from "./work_queue.ts";

const THINGS = "/apis/example.org/v1/namespaces/ns/things";
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
const random = seededRandom(7);

async function rig(t: TestContext) {
  const server = new TestApiServer();
  await server.start();
  const stop = new AbortController();
  t.after(async () => {
    stop.abort();
    await server.stop();
  });
  const connection = { server: server.url, credentials: async () => ({}) };
  return { server, client: new KubeClient(connection), signal: stop.signal, stop };
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`Waited 10 s for: ${what}`);
    await sleep(5);
  }
}

const thing = (name: string, value = 1) => ({ metadata: { name }, spec: { value } });

test("KubeClient tells what the server said: status, reason and kind", async (t) => {
  const { server, client, signal } = await rig(t);
  const failure = await client.get(`${THINGS}/none`, { signal }).catch((error: unknown) => error);
  assert(failure instanceof KubeError);
  assert.deepEqual([failure.status, failure.reason, failure.kind], [404, "NotFound", "not-found"]);
  server.put(THINGS, thing("a"));
  const again = await client
    .create(THINGS, thing("a"), { signal })
    .catch((error: unknown) => error);
  assert(isKind(again, "already-exists"));
  server.failWith = 500;
  assert(isKind(await client.get(THINGS, { signal }).catch((e: unknown) => e), "unavailable"));
});

test("KubeClient calls a server that is not there unavailable", async (t) => {
  const { server, client, signal } = await rig(t);
  await server.stop();
  const failure = await client.get(THINGS, { signal }).catch((error: unknown) => error);
  assert(failure instanceof KubeError && failure.status === 0 && failure.kind === "unavailable");
});

test("KubeClient refuses a replace of an older version", async (t) => {
  const { server, client, signal } = await rig(t);
  const first = server.put(THINGS, thing("a"));
  const old = structuredClone(first);
  server.change(THINGS, "a", { spec: { value: 2 } });
  const failure = await client.replace(`${THINGS}/a`, old, { signal }).catch((e: unknown) => e);
  assert(isKind(failure, "conflict"));
});

test("podConnection() reads a rotated token after a minute", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-token-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(path.join(folder, "ca.crt"), "ca");
  writeFileSync(path.join(folder, "token"), "one\n");
  const clock = new ManualClock();
  const { server, credentials } = podConnection(
    { host: "fd00::1", port: "443" },
    { clock, folder },
  );
  assert.equal(server, "https://[fd00::1]:443");
  assert.equal((await credentials()).headers?.["authorization"], "Bearer one");
  writeFileSync(path.join(folder, "token"), "two\n");
  assert.equal((await credentials()).headers?.["authorization"], "Bearer one");
  await clock.advance(60_000);
  assert.equal((await credentials()).headers?.["authorization"], "Bearer two");
});

async function follow(t: TestContext) {
  const parts = await rig(t);
  const changes: string[] = [];
  const informer = new Informer<number>({
    client: parts.client,
    path: THINGS,
    parse: (object) => (object as { spec: { value: number } }).spec.value,
    onChange: (name) => changes.push(name),
    clock: systemClock,
    random,
    log: silentLog,
  });
  return { ...parts, informer, changes, start: () => void informer.run(parts.signal) };
}

test("Informer sees what was there, what comes, changes and goes", async (t) => {
  const { server, informer, changes, start } = await follow(t);
  server.put(THINGS, thing("a"));
  start();
  await until("a", () => informer.get("a") === 1);
  server.put(THINGS, thing("b", 5));
  await until("b", () => informer.get("b") === 5);
  server.change(THINGS, "a", { spec: { value: 2 } });
  await until("a changed", () => informer.get("a") === 2);
  server.remove(THINGS, "b");
  await until("b gone", () => informer.get("b") === undefined);
  assert.deepEqual(changes, ["a", "b", "a", "b"]);
  assert.equal(informer.lists, 1);
});

test("Informer misses nothing over an API server restart", async (t) => {
  const { server, informer, changes, start } = await follow(t);
  server.put(THINGS, thing("stays"));
  server.put(THINGS, thing("goes"));
  start();
  await until("both", () => informer.names.length === 2 && server.watches === 1);
  await server.stop();
  server.remove(THINGS, "goes");
  server.put(THINGS, thing("comes"));
  changes.length = 0;
  await server.start();
  await until("the list after the gap", () => informer.get("comes") === 1);
  assert.deepEqual([...informer.names].sort(), ["comes", "stays"]);
  assert.deepEqual([...changes].sort(), ["comes", "goes", "stays"]);
});

test("Informer lists again when its version is too old", async (t) => {
  const { server, informer, start } = await follow(t);
  server.put(THINGS, thing("a"));
  start();
  await until("watching", () => server.watches === 1);
  // The watch ends in good order after an event, and history is gone when it comes back.
  server.put(THINGS, thing("b"));
  await until("b", () => informer.get("b") === 1);
  server.put("/apis/example.org/v1/namespaces/ns/others", thing("x"));
  server.compact();
  server.cutWatches();
  server.put(THINGS, thing("c"));
  await until("c", () => informer.get("c") === 1);
  assert.ok(informer.lists >= 2);
});

test("Informer leaves out an object it cannot parse and goes on", async (t) => {
  const { server, informer, start } = await follow(t);
  server.put(THINGS, { metadata: { name: "bad" } });
  server.put(THINGS, thing("good"));
  start();
  await until("good", () => informer.get("good") === 1);
  assert.equal(informer.get("bad"), undefined);
});

test("Informer learns what a write returned, but nothing over what it was told meanwhile", async (t) => {
  const { server, informer, changes, start } = await follow(t);
  const answer = (value: number, resourceVersion: string) => ({
    metadata: { name: "a", resourceVersion },
    spec: { value },
  });
  const first = structuredClone(server.put(THINGS, thing("a", 1)));
  start();
  await until("a", () => informer.get("a") === 1);
  informer.learn(answer(3, "999"));
  informer.learn(answer(4, "1000"));
  assert.equal(informer.get("a"), 4, "newer by number, not by text");
  const second = structuredClone(server.change(THINGS, "a", { spec: { value: 2 } }));
  await until("a changed", () => informer.get("a") === 2);
  informer.learn(first);
  informer.learn(second);
  informer.learn(answer(5, "opaque"));
  assert.equal(informer.get("a"), 2);
  server.remove(THINGS, "a");
  await until("a gone", () => informer.get("a") === undefined);
  informer.learn(answer(6, "1001"));
  assert.deepEqual(informer.names, [], "what is gone stays gone");
  assert.deepEqual(changes, ["a", "a", "a"]);
});

test("LeaderElection lets one lead, and the next when the first stops", async (t) => {
  const { client, server, signal } = await rig(t);
  const log: string[] = [];
  const elect = (identity: string, stop: AbortSignal) =>
    new LeaderElection({
      client,
      namespace: "ns",
      name: "op",
      identity,
      clock: systemClock,
      random,
      log: silentLog,
      ...{ durationMs: 60_000, renewMs: 10_000, retryMs: 20 },
    }).run(async (leading) => {
      log.push(`${identity} leads`);
      await new Promise((resolve) => leading.addEventListener("abort", resolve, { once: true }));
      log.push(`${identity} ends`);
    }, stop);
  const first = new AbortController();
  const running = elect("one", first.signal);
  await until("one leads", () => log.includes("one leads"));
  void elect("two", signal);
  await sleep(100);
  assert.deepEqual(log, ["one leads"]);
  first.abort();
  await running;
  // Without the release two would wait for the whole minute.
  await until("two leads", () => log.includes("two leads"));
  assert.deepEqual(log, ["one leads", "one ends", "two leads"]);
  const { spec } = server.find(LEASES, "op") as unknown as { spec: Record<string, unknown> };
  assert.equal(spec["holderIdentity"], "two");
  assert.equal(spec["leaseTransitions"], 1);
});

test("LeaderElection gives up a lease that a renewal cut short by the stop has changed", async (t) => {
  const { client, server, signal } = await rig(t);
  const stop = new AbortController();
  t.after(() => stop.abort());
  let leads = false;
  const running = new LeaderElection({
    ...{ client, namespace: "ns", name: "op", identity: "one" },
    ...{ clock: systemClock, random, log: silentLog, retryMs: 60_000 },
  }).run(async (leading) => {
    leads = true;
    await new Promise((resolve) => leading.addEventListener("abort", resolve, { once: true }));
  }, stop.signal);
  await until("one leads", () => leads);
  const lease = server.find(LEASES, "op");
  assert(lease);
  await client.replace(`${LEASES}/op`, lease, { signal }); // a new version, as after a renewal
  assert.notEqual(
    server.find(LEASES, "op")?.metadata.resourceVersion,
    lease.metadata.resourceVersion,
  );
  stop.abort();
  await running;
  const { spec } = server.find(LEASES, "op") as unknown as { spec: Record<string, unknown> };
  assert.equal(spec["holderIdentity"], "");
});

test("LeaderElection takes over from a holder that went silent, by its own clock", async (t) => {
  const { client, server, signal } = await rig(t);
  // The holder's own times say nothing: they are from another clock.
  const spec = {
    holderIdentity: "dead",
    leaseDurationSeconds: 1,
    renewTime: "2099-01-01T00:00:00.0Z",
  };
  server.put(LEASES, { metadata: { name: "op" }, spec });
  let leads = false;
  const startedMs = performance.now();
  void new LeaderElection({
    client,
    namespace: "ns",
    name: "op",
    identity: "new",
    clock: systemClock,
    random,
    log: silentLog,
    ...{ durationMs: 300, renewMs: 200, retryMs: 20 },
  }).run(async (leading) => {
    leads = true;
    await new Promise((resolve) => leading.addEventListener("abort", resolve, { once: true }));
  }, signal);
  await until("new leads", () => leads);
  assert.ok(performance.now() - startedMs >= 1000, "not before the lease had run out");
});

test("LeaderElection stops leading when it cannot renew", async (t) => {
  const { client, server, signal } = await rig(t);
  const log: string[] = [];
  void new LeaderElection({
    client,
    namespace: "ns",
    name: "op",
    identity: "one",
    clock: systemClock,
    random,
    log: silentLog,
    ...{ durationMs: 400, renewMs: 200, retryMs: 20 },
  }).run(async (leading) => {
    log.push("leads");
    await new Promise((resolve) => leading.addEventListener("abort", resolve, { once: true }));
    log.push("ends");
  }, signal);
  await until("it leads", () => log.length === 1);
  server.failWith = 503;
  await until("it stops", () => log.length === 2);
  server.failWith = null;
  await until("it leads again", () => log.length === 3);
  assert.deepEqual(log, ["leads", "ends", "leads"]);
});

function queue(clock: ManualClock, errors: string[] = []) {
  return new WorkQueue({
    clock,
    random: seededRandom(1),
    concurrency: 2,
    delayMs: 1000,
    delayMsMax: 8000,
    onError: (key) => errors.push(key),
  });
}

test("WorkQueue runs a key once for many changes, and again for one that comes meanwhile", async () => {
  const clock = new ManualClock();
  const work = queue(clock);
  const stop = new AbortController();
  const runs: string[] = [];
  let finish: () => void = () => {};
  for (let i = 0; i < 5; i++) work.add("a");
  const running = work.run(async (key) => {
    runs.push(key);
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    return null;
  }, stop.signal);
  await clock.advance(0);
  assert.deepEqual(runs, ["a"]);
  work.add("a");
  await clock.advance(10_000);
  assert.deepEqual(runs, ["a"], "never two workers on one key");
  finish();
  await clock.advance(0);
  assert.deepEqual(runs, ["a", "a"]);
  finish();
  stop.abort();
  await running;
  assert.equal(work.size, 0);
});

test("WorkQueue looks again when the handler says so, sooner on a change", async () => {
  const clock = new ManualClock();
  const work = queue(clock);
  const stop = new AbortController();
  let runs = 0;
  const running = work.run(async () => {
    runs += 1;
    return 30_000;
  }, stop.signal);
  work.add("a");
  await clock.advance(0);
  assert.equal(runs, 1);
  await clock.advance(29_999);
  assert.equal(runs, 1);
  await clock.advance(1);
  assert.equal(runs, 2);
  work.add("a");
  await clock.advance(0);
  assert.equal(runs, 3);
  stop.abort();
  await running;
});

test("WorkQueue repeats what throws, with growing pauses", async () => {
  const clock = new ManualClock();
  const errors: string[] = [];
  const work = queue(clock, errors);
  const stop = new AbortController();
  const at: number[] = [];
  const startMs = clock.now();
  const running = work.run(async () => {
    at.push(clock.now() - startMs);
    throw new Error("no");
  }, stop.signal);
  work.add("a");
  for (let i = 0; i < 200; i++) await clock.advance(100);
  stop.abort();
  await running;
  const pauses = at.slice(1).map((ms, index) => ms - (at[index] ?? 0));
  assert.ok(pauses.length >= 3);
  assert.ok((pauses[0] ?? 0) >= 750 && (pauses[0] ?? 0) <= 1400);
  assert.ok((pauses[2] ?? 0) > (pauses[0] ?? 0), `${pauses}`);
  assert.equal(errors.length, at.length);
});
