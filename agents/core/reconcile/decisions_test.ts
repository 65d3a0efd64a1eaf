/** The pure decisions of the reconcilers, case by case, and the loop that runs them. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BugError, check } from "#common/check.ts";
import { ManualClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import { Rig } from "../testing/rig.ts";
import { forEach, PARALLEL } from "./each.ts";
import { type FaultedInput, faultedStep, isUseless } from "./hot_spare.ts";
import { type Outcome, ReconcileLoop } from "./loop.ts";
import { nextNexusStep } from "./volume_nexus.ts";

const WAIT_MS = 600_000;
const NOW_MS = 1_700_000_000_000;

function faulted(change: Partial<FaultedInput>, child: Partial<FaultedInput["child"]> = {}) {
  return faultedStep({
    child: {
      status: "Faulted",
      reason: "IoFailure",
      faultedAtMs: NOW_MS,
      hasIoLog: true,
      ...child,
    },
    known: true,
    replicaOnline: false,
    hasRoom: false,
    nowMs: NOW_MS + 1000,
    waitMs: WAIT_MS,
    ...change,
  }).do;
}

describe("faultedStep()", () => {
  test("waits for a replica that may come back, and no longer", () => {
    assert.equal(faulted({}), "wait");
    assert.equal(faulted({ nowMs: NOW_MS + WAIT_MS - 1 }), "wait");
    assert.equal(faulted({ nowMs: NOW_MS + WAIT_MS }), "remove");
  });
  test("takes a clock that jumped back for a wait that is over", () => {
    assert.equal(faulted({ nowMs: NOW_MS - 4999 }), "wait");
    assert.equal(faulted({ nowMs: NOW_MS - 5000 }), "remove");
  });
  test("brings a child online when its replica is back", () => {
    assert.equal(faulted({ replicaOnline: true }), "online");
  });
  test("removes what cannot come back by a partial rebuild", () => {
    assert.equal(faulted({ known: false, replicaOnline: true }), "remove");
    assert.equal(faulted({ replicaOnline: true }, { faultedAtMs: null }), "remove");
    assert.equal(faulted({ replicaOnline: true }, { hasIoLog: false }), "remove");
  });
  test("waits for space before a child that ran out of it is tried again", () => {
    const full = { status: "Degraded", reason: "NoSpace" } as const;
    assert.equal(faulted({ replicaOnline: true }, full), "wait");
    assert.equal(faulted({ replicaOnline: true, hasRoom: true }, full), "online");
  });
  test("gives up a child that ran out of space when its replica is nobody's or stays away", () => {
    const full = { status: "Faulted", reason: "NoSpace" } as const;
    assert.equal(faulted({}, full), "wait");
    assert.equal(faulted({ nowMs: NOW_MS + WAIT_MS }, full), "remove");
    assert.equal(faulted({ known: false }, full), "remove");
    assert.equal(faulted({}, { ...full, faultedAtMs: null }), "remove");
    assert.equal(faulted({}, { ...full, hasIoLog: false }), "remove");
    assert.equal(faulted({ known: false }, { ...full, status: "Degraded" }), "remove");
  });
  test("leaves a child alone that is not faulted", () => {
    assert.equal(
      faulted({ replicaOnline: true }, { status: "Degraded", reason: "OutOfSync" }),
      "nothing",
    );
  });
});

describe("nextNexusStep()", () => {
  const base = { wantedShare: true, shutdown: false, nodeOnline: true, full: false };
  const state = (
    status: "Online" | "Degraded" | "Faulted" | "Shutdown" | "Unknown",
    share = true,
  ) => ({
    status,
    share: share ? ("nvmf" as const) : ("none" as const),
  });
  test("makes a lost target again, on its own node only", () => {
    assert.equal(nextNexusStep({ ...base, state: undefined }).do, "recreate");
    assert.equal(nextNexusStep({ ...base, nodeOnline: false, state: undefined }).do, "nothing");
  });
  test("replaces a broken one", () => {
    for (const status of ["Faulted", "Shutdown"] as const) {
      assert.equal(nextNexusStep({ ...base, state: state(status) }).do, "destroy-and-recreate");
    }
  });
  test("leaves one that has no space alone until there is some", () => {
    const full = { ...base, full: true };
    assert.equal(nextNexusStep({ ...full, state: state("Faulted") }).do, "nothing");
    assert.equal(nextNexusStep({ ...full, state: state("Shutdown") }).do, "destroy-and-recreate");
    assert.equal(nextNexusStep({ ...full, state: state("Degraded", false) }).do, "share");
  });
  test("corrects the share", () => {
    assert.equal(nextNexusStep({ ...base, state: state("Degraded", false) }).do, "share");
    const unwanted = { ...base, wantedShare: false, state: state("Online") };
    assert.equal(nextNexusStep(unwanted).do, "unshare");
  });
  test("leaves alone what is well or not known", () => {
    for (const status of ["Online", "Degraded", "Unknown"] as const) {
      assert.equal(nextNexusStep({ ...base, state: state(status) }).do, "nothing");
    }
  });
});

test("isUseless() gives up only what is away for long, of no use, on a node we know of", () => {
  const gone = { online: false, awayMs: 60_000, isChild: false, healthy: false, nodeKnown: true };
  assert.equal(isUseless(gone), true);
  for (const change of [
    { online: true },
    { awayMs: 1000 },
    { isChild: true },
    { healthy: true },
    { nodeKnown: false },
  ]) {
    assert.equal(isUseless({ ...gone, ...change }), false, JSON.stringify(change));
  }
});

describe("ReconcileLoop", () => {
  function rig(outcome: () => Outcome) {
    const clock = new ManualClock();
    const runs: string[] = [];
    const task = (name: string, every: number, on: "start" | "node-online") => ({
      name,
      every,
      on: [on],
      run: async () => {
        runs.push(name);
        return outcome();
      },
    });
    const tasks = [task("often", 1, "start"), task("seldom", 5, "node-online")];
    const loop = new ReconcileLoop({
      clock,
      log: silentLog,
      tasks,
      busyMs: 10_000,
      idleMs: 30_000,
    });
    const stop = new AbortController();
    const end = loop.run(stop.signal);
    const close = async () => {
      stop.abort();
      await end;
    };
    return { clock, runs, loop, close };
  }
  const count = (runs: readonly string[], name: string) =>
    runs.filter((run) => run === name).length;

  test("runs at start, then by the idle timer; every fifth timer loop runs what is due then", async () => {
    const { clock, runs, close } = rig(() => "idle");
    await clock.advance(100);
    assert.deepEqual(runs, ["often"]);
    await clock.advance(5 * 30_000);
    assert.equal(count(runs, "often"), 6);
    assert.equal(count(runs, "seldom"), 1);
    await close();
  });

  test("a trigger runs its tasks at once, and a burst of them once", async () => {
    const { clock, runs, loop, close } = rig(() => "idle");
    await clock.advance(100);
    for (let again = 0; again < 5; again++) loop.trigger("node-online");
    await clock.advance(100);
    assert.deepEqual(runs, ["often", "seldom"]);
    await close();
  });

  test("progress is followed up at once; without end it falls back to the busy period", async () => {
    const { clock, runs, close } = rig(() => "busy");
    await clock.advance(200);
    assert.ok(count(runs, "often") >= 4, "the first steps follow each other quickly");
    await clock.advance(40_000);
    const before = count(runs, "often");
    await clock.advance(60_000);
    assert.equal(count(runs, "often") - before, 6, "a step that never ends is no hot loop");
    await close();
  });

  test("a failure is tried again ever later, up to the busy period", async () => {
    const { clock, runs, close } = rig(() => "failed");
    await clock.advance(1100);
    assert.equal(count(runs, "often"), 2);
    await clock.advance(2000);
    assert.equal(count(runs, "often"), 3);
    await clock.advance(60_000);
    assert.ok(count(runs, "often") <= 10);
    await close();
  });

  test("what falls due before the timer is looked at then, once", async () => {
    const clock = new ManualClock();
    const atMs: number[] = [];
    const start = clock.now();
    const run = async () => {
      atMs.push(clock.now() - start);
      return "idle" as const;
    };
    const tasks = [{ name: "due", every: 1, on: ["start", "changed"] as const, run }];
    const loop = new ReconcileLoop({
      clock,
      log: silentLog,
      tasks,
      busyMs: 10_000,
      idleMs: 30_000,
    });
    const stop = new AbortController();
    const end = loop.run(stop.signal);
    await clock.advance(1000);
    loop.wakeIn(7000);
    loop.wakeIn(9000); // the soonest counts
    await clock.advance(10_000);
    assert.equal(atMs.length, 2);
    const [, second = 0] = atMs;
    assert.ok(second >= 8000 && second <= 8200, `${second} ms`);
    loop.wakeIn(7000);
    loop.trigger("changed"); // a pass in between forgets nothing
    await clock.advance(25_000);
    assert.equal(atMs.length, 4);
    await clock.advance(15_000);
    assert.equal(atMs.length, 5, "the timer runs as ever");
    stop.abort();
    await end;
  });

  test("a task that fails does not stop the others", async () => {
    const clock = new ManualClock();
    const ran: string[] = [];
    const bad = { name: "bad", every: 1, on: [], run: () => Promise.reject(new Error("broken")) };
    const good = {
      name: "good",
      every: 1,
      on: [],
      run: async () => {
        ran.push("good");
        return "idle" as const;
      },
    };
    const loop = new ReconcileLoop({
      clock,
      log: silentLog,
      tasks: [bad, good],
      busyMs: 1,
      idleMs: 1,
    });
    assert.equal(await loop.pass(new AbortController().signal), "failed");
    assert.deepEqual(ran, ["good"]);
  });

  test("forEach() begins no further step once it is told to stop", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const stop = new AbortController();
    let begun = 0;
    const items = Array.from({ length: 20 }, (_, index) => String(index));
    await forEach(rig.core, items, {
      name: "test",
      signal: stop.signal,
      guardOf: (item) => `volume/${item}`,
      step: async () => {
        begun += 1;
        stop.abort();
        return "busy";
      },
    });
    assert.ok(begun >= 1 && begun <= PARALLEL, `${begun} of ${items.length} were begun`);
    await rig.close();
  });

  test("a bug is no failure: it ends the loop", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const run = () =>
      forEach(rig.core, ["x"], {
        name: "test",
        signal: new AbortController().signal,
        guardOf: (item) => `volume/${item}`,
        step: async () => {
          check(false, "this holds");
          return "idle";
        },
      });
    const tasks = [{ name: "buggy", every: 1, on: [], run }];
    const clock = new ManualClock();
    const loop = new ReconcileLoop({ clock, log: silentLog, tasks, busyMs: 1, idleMs: 1 });
    await assert.rejects(loop.pass(new AbortController().signal), BugError);
    await rig.close();
  });
});
