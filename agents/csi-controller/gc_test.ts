import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import type { Volume } from "#common/openapi/model.ts";
import { seededRandom } from "#common/random.ts";
import { type Pv, PvGarbageCollector } from "./gc.ts";

const A = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const B = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";

function volume(uuid: string, node?: string): Volume {
  return {
    spec: {
      ...{
        uuid,
        num_replicas: 1,
        size: 1,
        status: "Created",
        policy: { self_heal: true },
        thin: false,
      },
      ...(node === undefined ? {} : { target: { node } }),
    },
    state: { uuid, size: 1, status: "Online", replica_topology: {} },
  };
}

const pv = (uuid: string, over: Partial<Pv> = {}): Pv => ({
  name: `pvc-${uuid}`,
  driver: "io.openebs.csi-mayastor",
  volumeHandle: uuid,
  reclaimPolicy: "Retain",
  phase: "Bound",
  isDeleting: false,
  ...over,
});

function start(_t: TestContext, { volumes, pvs }: { volumes: Volume[]; pvs: Pv[] }) {
  const state = { volumes, pvs, listFails: false };
  const deleted: string[] = [];
  const clock = new ManualClock();
  const collector = new PvGarbageCollector({
    clock,
    random: seededRandom(1),
    log: silentLog,
    source: {
      list: async () => {
        if (state.listFails) throw new Error("forbidden");
        return state.pvs;
      },
      watch: async () => {},
    },
    rest: {
      listVolumes: async () => ({ entries: state.volumes }),
      getVolume: async () => Promise.reject(new SvcError("not-found", "gone")),
      deleteVolume: async (uuid) => {
        deleted.push(uuid);
        state.volumes = state.volumes.filter(({ spec }) => spec.uuid !== uuid);
      },
    },
  });
  return { state, deleted, clock, collector };
}

test("collectOrphans() deletes what has no PersistentVolume, and nothing else", async (t) => {
  const { collector, deleted, clock } = start(t, { volumes: [volume(A), volume(B)], pvs: [pv(B)] });
  const pass = collector.collectOrphans(new AbortController().signal);
  await clock.advance(59_000);
  assert.deepEqual(deleted, [], "not before the grace period is over");
  await clock.advance(1_000);
  await pass;
  assert.deepEqual(deleted, [A]);
});

test("collectOrphans() spares volumes that are published, asked for, known by handle or get their PersistentVolume late", async (t) => {
  const cases: ((parts: ReturnType<typeof start>) => void)[] = [
    ({ state }) => state.volumes.splice(0, 1, volume(A, "node-1")),
    ({ collector }) => collector.noteCreated(A),
    ({ state }) => state.pvs.push(pv(A, { name: "by-hand", volumeHandle: A.toUpperCase() })),
    ({ state }) => state.pvs.push(pv(A)),
  ];
  for (const change of cases) {
    const parts = start(t, { volumes: [volume(A)], pvs: [] });
    const pass = parts.collector.collectOrphans(new AbortController().signal);
    await parts.clock.advance(30_000);
    change(parts);
    await parts.clock.advance(30_000);
    await pass;
    assert.deepEqual(parts.deleted, []);
  }
});

test("collectOrphans() deletes nothing when PersistentVolumes cannot be listed", async (t) => {
  const parts = start(t, { volumes: [volume(A)], pvs: [] });
  parts.state.listFails = true;
  await assert.rejects(parts.collector.collectOrphans(new AbortController().signal), /forbidden/);
  assert.deepEqual(parts.deleted, []);
});

test("run() repeats the pass until both lists were read, and leaves after that", async (t) => {
  const parts = start(t, { volumes: [volume(A)], pvs: [] });
  parts.state.listFails = true;
  const stop = new AbortController();
  const running = parts.collector.run(stop.signal);
  await parts.clock.advance(120_000);
  assert.deepEqual(parts.deleted, []);
  parts.state.listFails = false;
  await parts.clock.advance(200_000); // the longest pause, the grace period, and some
  assert.deepEqual(parts.deleted, [A]);
  parts.state.volumes = [volume(B)];
  await parts.clock.advance(600_000);
  assert.deepEqual(parts.deleted, [A], "only once: later volumes are the watch's business");
  stop.abort();
  await running;
});

test("onChange() deletes the volume of a Retain-ed PersistentVolume once nothing claims it", async (t) => {
  const rows: [Partial<Pv>, boolean, boolean][] = [
    [{ isDeleting: true, phase: "Released" }, false, true],
    [{ isDeleting: true, phase: "Bound" }, false, false],
    [{ isDeleting: true, phase: "Bound" }, true, true],
    [{ phase: "Released" }, false, false],
    [{ isDeleting: true, phase: "Released", reclaimPolicy: "Delete" }, false, false],
    [{ isDeleting: true, phase: "Released", driver: "other" }, true, false],
    [{ name: "by-hand" }, true, false],
  ];
  for (const [over, isGone, expected] of rows) {
    const { collector, deleted } = start(t, { volumes: [volume(A)], pvs: [] });
    collector.onChange(pv(A, over), isGone);
    collector.onChange(pv(A, over), isGone);
    await collector.settle();
    assert.deepEqual(deleted, expected ? [A] : [], JSON.stringify([over, isGone]));
  }
});
