import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { VolumeGuard } from "#common/csi/guard.ts";
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

/** A collector that runs until the test ends; time passes in `clock.advance()` alone. */
function start(t: TestContext, { volumes, pvs }: { volumes: Volume[]; pvs: Pv[] }) {
  const state = { volumes, pvs, listFails: false, readFails: false };
  const asked = { deleted: [] as string[], atDelete: async () => {} };
  const clock = new ManualClock();
  const guard = new VolumeGuard();
  const stop = new AbortController();
  let tell: (pv: Pv, isGone: boolean) => void = () => {};
  const collector = new PvGarbageCollector({
    ...{ clock, guard, random: seededRandom(1), log: silentLog },
    source: {
      list: async () => {
        if (state.listFails) throw new Error("forbidden");
        return state.pvs;
      },
      find: async (uuid) => {
        if (state.readFails) throw new Error("unavailable");
        return state.pvs.filter(({ volumeHandle }) => volumeHandle.toLowerCase() === uuid);
      },
      watch: async (onChange) => {
        tell = onChange;
      },
    },
    rest: {
      listVolumes: async () => ({ entries: state.volumes }),
      getVolume: async (uuid) => {
        const found = state.volumes.find(({ spec }) => spec.uuid === uuid);
        if (!found) throw new SvcError("not-found", "gone");
        return found;
      },
      deleteVolume: async (uuid) => {
        await asked.atDelete();
        asked.deleted.push(uuid);
        state.volumes = state.volumes.filter(({ spec }) => spec.uuid !== uuid);
      },
    },
  });
  const running = collector.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
  });
  /** The event as the watch tells it, with the world as it is then. */
  const change = (pv: Pv, isGone: boolean) => {
    state.pvs = [...state.pvs.filter(({ name }) => name !== pv.name), ...(isGone ? [] : [pv])];
    tell(pv, isGone);
  };
  return { state, asked, clock, guard, collector, change };
}

test("what has no PersistentVolume is deleted, after the grace period, and nothing else", async (t) => {
  const { asked, clock } = start(t, { volumes: [volume(A), volume(B)], pvs: [pv(B)] });
  await clock.advance(59_000);
  assert.deepEqual(asked.deleted, [], "not before the grace period is over");
  await clock.advance(1_000);
  assert.deepEqual(asked.deleted, [A]);
});

test("orphans are spared that are published, asked for, known by handle or get their PersistentVolume late", async (t) => {
  const cases: ((parts: ReturnType<typeof start>) => unknown)[] = [
    ({ state }) => state.volumes.splice(0, 1, volume(A, "node-1")),
    ({ collector }) => collector.noteCreated(A),
    ({ state }) => state.pvs.push(pv(A, { name: "by-hand", volumeHandle: A.toUpperCase() })),
    ({ state }) => state.pvs.push(pv(A)),
  ];
  for (const change of cases) {
    const parts = start(t, { volumes: [volume(A)], pvs: [] });
    await parts.clock.advance(30_000);
    change(parts);
    await parts.clock.advance(600_000);
    assert.deepEqual(parts.asked.deleted, [], String(change));
  }
});

test("the pass over orphans is repeated until both lists were read, and never after that", async (t) => {
  const { state, asked, clock } = start(t, { volumes: [volume(A)], pvs: [] });
  state.listFails = true;
  await clock.advance(120_000);
  assert.deepEqual(asked.deleted, [], "nothing is deleted when PersistentVolumes cannot be listed");
  state.listFails = false;
  await clock.advance(200_000); // the longest pause, the grace period, and some
  assert.deepEqual(asked.deleted, [A]);
  state.volumes = [volume(B)];
  await clock.advance(600_000);
  assert.deepEqual(asked.deleted, [A], "only once: later volumes are the watch's business");
});

test("the volume of a Retain-ed PersistentVolume is deleted once nothing claims it", async (t) => {
  const rows: [Partial<Pv>, boolean, boolean][] = [
    [{ isDeleting: true, phase: "Released" }, false, true],
    [{ phase: "Released" }, true, true],
    [{ isDeleting: true, phase: "Bound" }, false, false],
    [{ isDeleting: true, phase: "Bound" }, true, true],
    [{ phase: "Released" }, false, false],
    [{ phase: "Available" }, true, false], // freed for another claim: whoever did that wants the data
    [{ isDeleting: true, phase: "Available" }, true, false],
    [{ phase: "" }, true, false],
    [{ isDeleting: true, phase: "Released", reclaimPolicy: "Delete" }, false, false],
    [{ isDeleting: true, phase: "Released", driver: "other" }, true, false],
    [{ name: "by-hand" }, true, false],
  ];
  for (const [over, isGone, expected] of rows) {
    const { change, asked, clock } = start(t, { volumes: [volume(A)], pvs: [pv(A)] });
    await clock.advance(0);
    change(pv(A, over), isGone);
    change(pv(A, over), isGone);
    await clock.advance(600_000);
    assert.deepEqual(asked.deleted, expected ? [A] : [], JSON.stringify([over, isGone]));
  }
});

test("a volume whose PersistentVolume is gone stays while it is published, and goes after that", async (t) => {
  const { state, change, asked, clock } = start(t, {
    volumes: [volume(A, "node-1")],
    pvs: [pv(A)],
  });
  await clock.advance(0);
  change(pv(A), true);
  await clock.advance(600_000);
  assert.deepEqual(asked.deleted, [], "somebody has it mounted");
  state.volumes = [volume(A)];
  await clock.advance(10_000);
  assert.deepEqual(asked.deleted, [A]);
});

test("a PersistentVolume that is made again within a minute keeps its volume", async (t) => {
  const ended: [Partial<Pv>, boolean][] = [
    [{ phase: "Released" }, true],
    [{ phase: "Bound" }, true],
    [{ phase: "Released", isDeleting: true }, false],
  ];
  for (const [over, isGone] of ended) {
    const { state, change, asked, clock } = start(t, { volumes: [volume(A)], pvs: [] });
    await clock.advance(600_000); // the pass over orphans is done
    asked.deleted.length = 0;
    state.volumes = [volume(A)];
    change(pv(A, over), isGone);
    await clock.advance(59_000);
    assert.deepEqual(asked.deleted, [], JSON.stringify(over));
    state.pvs = [pv(A)];
    change(pv(A, { phase: "Available" }), false);
    await clock.advance(600_000);
    assert.deepEqual(asked.deleted, [], JSON.stringify(over));
    state.pvs = [];
    change(pv(A, over), isGone);
    await clock.advance(59_000);
    assert.deepEqual(asked.deleted, []);
    await clock.advance(1_000);
    assert.deepEqual(asked.deleted, [A], "nobody came");
  }
});

test("an order to delete is void once its PersistentVolume is back, under whichever name", async (t) => {
  const back: ((parts: ReturnType<typeof start>) => unknown)[] = [
    ({ change }) => change(pv(A, { phase: "Available" }), false), // kubectl replace --force
    ({ state }) => state.pvs.push(pv(A)), // before the watch tells
    ({ state }) => state.pvs.push(pv(A, { name: "by-hand" })),
    ({ collector }) => collector.noteCreated(A),
  ];
  for (const comes of back) {
    const parts = start(t, { volumes: [volume(A, "node-1")], pvs: [pv(A)] });
    await parts.clock.advance(0);
    parts.change(pv(A), true);
    await parts.clock.advance(30_000);
    comes(parts);
    await parts.clock.advance(30_000);
    parts.state.volumes = [volume(A)];
    await parts.clock.advance(600_000);
    assert.deepEqual(parts.asked.deleted, [], String(comes));
  }
});

test("a deletion that fails, or cannot be judged, is tried again", async (t) => {
  const { state, change, asked, clock } = start(t, { volumes: [volume(A)], pvs: [pv(A)] });
  await clock.advance(0);
  state.readFails = true;
  change(pv(A), true);
  await clock.advance(600_000);
  assert.deepEqual(asked.deleted, [], "nothing is deleted on an incomplete view");
  asked.atDelete = async () => {
    throw new SvcError("unavailable", "api-rest is away");
  };
  state.readFails = false;
  await clock.advance(600_000);
  asked.atDelete = async () => {};
  assert.deepEqual(asked.deleted, []);
  await clock.advance(75_000); // the longest pause with its jitter
  assert.deepEqual(asked.deleted, [A]);
});

test("collecting and the calls about a volume take turns", async (t) => {
  const parts = start(t, { volumes: [volume(A)], pvs: [pv(A)] });
  const { state, change, asked, clock, guard } = parts;
  await clock.advance(0);
  let unblock = () => {};
  asked.atDelete = () =>
    new Promise<void>((resolve) => {
      unblock = resolve;
    });
  change(pv(A), true);
  await clock.advance(60_000);
  const create = async () => {
    parts.collector.noteCreated(A);
    await guard.run(A, "CreateVolume", async () => {
      state.volumes = [volume(A)];
    });
  };
  await assert.rejects(create(), { kind: "aborted" });
  unblock();
  await clock.advance(0);
  assert.deepEqual(asked.deleted, [A]);
  asked.atDelete = async () => {};
  await create();
  await clock.advance(600_000);
  assert.deepEqual([asked.deleted, state.volumes.length], [[A], 1], "the new one stays");

  // The other way round: a call that has begun is waited for.
  let finish = () => {};
  const publishing = guard.run(
    ...([A, "ControllerPublishVolume"] as const),
    () =>
      new Promise<void>((resolve) => {
        finish = resolve;
      }),
  );
  change(pv(A), true);
  await clock.advance(600_000);
  state.volumes = [volume(A, "node-1")];
  finish();
  await publishing;
  await clock.advance(600_000);
  assert.deepEqual(asked.deleted, [A], "it is published");
});
