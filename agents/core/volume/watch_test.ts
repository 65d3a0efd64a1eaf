/** Watches of volumes: who is called, when, and what is left of a watch afterwards: nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Log } from "#common/log.ts";
import { storeKeys } from "#common/store/keys.ts";
import { MemoryStore } from "#common/store/memory.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import type { Core } from "../context.ts";
import { call, PLACE, Rig } from "../testing/rig.ts";
import { CALLBACK_MS_MAX, type Fetch, WATCHES_MAX, WatchService } from "./watch.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const V2 = "0d1e2f30-b23d-447a-8d3f-98d378acfa8a";
const URL_1 = "http://one.example/changed";
const URL_2 = "http://two.example/changed";
const KEYS = storeKeys(PLACE);

const answer = (status: number) => ({ ok: status < 300, status, body: null });

/** Lets promises that are ready run on. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

/** A service of its own beside the rig's, with its store and its receiver in the test's hands. */
async function rigWithWatches(fetcher?: Fetch) {
  const rig = await Rig.start({ nodes: 1 });
  await rig.createPools();
  await rig.createVolume(V1, { replicas: 1 });
  const calls: string[] = [];
  const warnings: string[] = [];
  const open = new Set<string>();
  const gate = { hold: Promise.resolve() };
  const inner = rig.store;
  assert.ok(inner instanceof MemoryStore);
  const store = new Proxy<ObjectStore>(inner, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      if (name !== "watchPrefix") return member.bind(target);
      return async (...args: Parameters<ObjectStore["watchPrefix"]>) => {
        await gate.hold;
        const watch = await target.watchPrefix(...args);
        const id = `${open.size} ${args[0]}`;
        open.add(id);
        const close = async () => {
          open.delete(id);
          await watch.close();
        };
        return { close };
      };
    },
  });
  const log: Log = { ...rig.core.log, warn: (text: string) => void warnings.push(text) };
  const core: Core = { ...rig.core, store, log };
  const watches = new WatchService(core, async (url, options) => {
    calls.push(`${options.method} ${url}`);
    return fetcher ? await fetcher(url, options) : answer(200);
  });
  const change = async (volume: string) => {
    await rig.store.put(KEYS.object("Volume", volume), String(calls.length));
    await turns();
  };
  return { rig, watches, calls, warnings, open, gate, change };
}

describe("WatchService", () => {
  test("calls the URL once per change of its volume's key, and of no other", async () => {
    const { rig, watches, calls, open, change } = await rigWithWatches();
    await watches.add(V1, URL_1);
    assert.deepEqual(watches.list(V1), [{ callback: URL_1, resource: KEYS.object("Volume", V1) }]);
    await change(V1);
    assert.deepEqual(calls, [`PUT ${URL_1}`]);
    await change(V2);
    await change(`${V1}0`);
    assert.equal(calls.length, 1);
    await rig.store.delete(KEYS.object("Volume", V1));
    await turns();
    assert.equal(calls.length, 2);
    await watches.remove(V1, URL_1);
    assert.equal(open.size, 0);
    await change(V1);
    assert.equal(calls.length, 2, "no call after it was removed");
    await assert.rejects(watches.remove(V1, URL_1), { kind: "not-found" });
    await rig.close();
  });

  test("refuses what is no http URL, a volume that is not there, and more than enough", async () => {
    const { rig, watches, open } = await rigWithWatches();
    for (const bad of ["", "not a url", "file:///etc/passwd"]) {
      await assert.rejects(watches.add(V1, bad), { kind: "invalid-argument" });
    }
    await assert.rejects(watches.add(V2, URL_1), { kind: "not-found" });
    for (let index = 0; index < WATCHES_MAX; index++) await watches.add(V1, `${URL_1}/${index}`);
    await assert.rejects(watches.add(V1, URL_2), { kind: "resource-exhausted" });
    await watches.close();
    assert.equal(open.size, 0);
    await rig.close();
  });

  test("two that are added at the same time are both kept; the same one only once", async () => {
    const { rig, watches, open, gate } = await rigWithWatches();
    let release = (): void => {};
    gate.hold = new Promise<void>((resolve) => {
      release = resolve;
    });
    const adds = [URL_1, URL_2, URL_1].map((url) => watches.add(V1, url));
    const outcomes = Promise.allSettled(adds);
    await turns();
    release();
    const kinds = (await outcomes).map((one) =>
      one.status === "fulfilled" ? "added" : one.reason.kind,
    );
    assert.deepEqual(kinds, ["added", "added", "already-exists"]);
    assert.deepEqual(
      watches.list(V1).map((watch) => watch.callback),
      [URL_1, URL_2],
    );
    assert.equal(open.size, 2);
    await watches.remove(V1, URL_1);
    await watches.remove(V1, URL_2);
    assert.equal(open.size, 0);
    await rig.close();
  });

  test("end with their volume, even one that is just being added", async () => {
    const { rig, watches, open, gate, calls, change } = await rigWithWatches();
    await watches.add(V1, URL_1);
    let release = (): void => {};
    gate.hold = new Promise<void>((resolve) => {
      release = resolve;
    });
    const late = watches.add(V1, URL_2);
    await turns();
    await call(rig.api, "DestroyVolume", { volume: V1 });
    watches.forget(V1);
    release();
    await late;
    await turns();
    assert.equal(open.size, 0);
    assert.deepEqual(watches.list(V1), []);
    await change(V1);
    assert.deepEqual(calls, []);
    await rig.close();
  });

  test("agent-core ends them when a volume is destroyed", async () => {
    const rig = await Rig.start({ nodes: 1 });
    await rig.createPools();
    await rig.createVolume(V1, { replicas: 1 });
    await call(rig.api, "CreateVolumeWatch", { volume: V1, callback: URL_1 });
    assert.equal((await call(rig.api, "GetVolumeWatches", { volume: V1 })).length, 1);
    await call(rig.api, "DestroyVolume", { volume: V1 });
    await turns();
    await rig.createVolume(V1, { replicas: 1 });
    assert.deepEqual(await call(rig.api, "GetVolumeWatches", { volume: V1 }), []);
    await rig.close();
  });

  test("a callback that fails is logged once, and the next change is told all the same", async () => {
    const { rig, watches, calls, warnings, change } = await rigWithWatches(async () => answer(500));
    await watches.add(V1, URL_1);
    await change(V1);
    await change(V1);
    assert.equal(calls.length, 2);
    assert.deepEqual(warnings, ["watch callback failed", "watch callback failed"]);
    await watches.close();
    await rig.close();
  });

  test("a callback that never answers is given up at its deadline, and close() waits no longer", async () => {
    const { rig, watches, calls, warnings, change } = await rigWithWatches(
      (_url, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        }),
    );
    await watches.add(V1, URL_1);
    await change(V1);
    await change(V1);
    assert.equal(calls.length, 2, "one that hangs does not hold up the next");
    let closed = false;
    const closing = watches.close().then(() => {
      closed = true;
    });
    await rig.clock.advance(CALLBACK_MS_MAX - 1);
    assert.equal(closed, false);
    await rig.clock.advance(1);
    await closing;
    assert.equal(warnings.length, 2);
    await assert.rejects(watches.add(V1, URL_2), { kind: "unavailable" });
    await rig.close();
  });

  test("what a callback answers is not kept", async () => {
    let cancelled = false;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      cancel: () => {
        cancelled = true;
      },
    });
    const fetcher: Fetch = async () => ({ ok: true, status: 200, body });
    const { rig, watches, change } = await rigWithWatches(fetcher);
    await watches.add(V1, URL_1);
    await change(V1);
    assert.equal(cancelled, true);
    await watches.close();
    await rig.close();
  });
});
