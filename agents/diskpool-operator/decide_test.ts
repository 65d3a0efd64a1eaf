import assert from "node:assert/strict";
import { test } from "node:test";
import { SvcError } from "#common/errors.ts";
import type { BlockDevice, Pool, PurgeCost } from "#common/openapi/model.ts";
import type { DiskPoolStatus } from "#common/types/diskpool.ts";
import {
  afterCreate,
  afterDestroy,
  afterFailedCreate,
  afterLook,
  afterPurge,
  beforeDestroy,
  devicePath,
  firstStep,
  missingDisks,
  offerPurge,
  seenFailure,
  statusOf,
} from "./decide.ts";
import { type DiskPool, FINALIZER, parseDiskPool } from "./resource.ts";

const intervalMs = 30_000;
const online: DiskPoolStatus = {
  state: "Online",
  cr_state: "Created",
  pool_status: "Online",
  capacity: 100,
  used: 30,
  available: 70,
};
const resource = (changes: Partial<DiskPool> = {}): DiskPool => ({
  ...{ name: "pool-0", namespace: "mayastor", uid: "u", resourceVersion: "1", deleting: false },
  finalizers: [FINALIZER],
  purge: "no",
  spec: { node: "worker-0", disks: ["/dev/vdb"] },
  status: online,
  ...changes,
});
const pool = (state: Partial<NonNullable<Pool["state"]>> | null = {}, node = "worker-0"): Pool => ({
  id: "pool-0",
  spec: { id: "pool-0", node, disks: ["/dev/vdb"], status: "Created" },
  ...(state === null
    ? {}
    : {
        state: {
          id: "pool-0",
          node,
          disks: [],
          status: "Online",
          capacity: 100,
          used: 30,
          ...state,
        },
      }),
});
const device: BlockDevice = {
  available: true,
  ...{ devname: "/dev/vdb", devlinks: ["/dev/disk/by-id/virtio-1"], devpath: "/devices/x" },
  ...{ devmajor: 252, devminor: 16, devtype: "disk", model: "", size: 8 },
  filesystem: { fstype: "", label: "", mountpoint: "", uuid: "" },
  partition: { name: "", number: 0, parent: "", scheme: "", typeid: "", uuid: "" },
};
const failure = (kind: SvcError["kind"]) => new SvcError(kind, `it was ${kind}`);

test("parseDiskPool() takes a foreign status as none", () => {
  const metadata = { name: "p", namespace: "ns", uid: "u", resourceVersion: "1" };
  const spec = { node: "n", disks: ["/dev/sdb"] };
  const status = { cr_state: "Created", capacity: 1, used: 0, available: 1 }; // of a later version
  assert.equal(parseDiskPool({ metadata, spec, status }).status, null);
  assert.deepEqual(parseDiskPool({ metadata, spec, status: online }).status, online);
  assert.throws(() => parseDiskPool({ metadata, spec: { node: "n" } }), /Cannot read a DiskPool/);
});

test("firstStep() protects before it creates", () => {
  assert.deepEqual(firstStep(resource({ finalizers: [], status: null })), { do: "protect" });
  assert.equal(firstStep(resource({ status: null })).do, "report");
  const creating = { ...online, cr_state: "Creating" } as const;
  assert.deepEqual(firstStep(resource({ status: creating })), { do: "create" });
  assert.deepEqual(firstStep(resource()), { do: "look" });
});

test("firstStep() destroys only what it protects", () => {
  assert.deepEqual(firstStep(resource({ deleting: true })), { do: "destroy" });
  assert.deepEqual(firstStep(resource({ deleting: true, finalizers: ["other/x"] })), {
    do: "nothing",
  });
});

test("firstStep() reports Creating with numbers 0 first", () => {
  const step = firstStep(resource({ status: null }));
  assert.deepEqual(step.do === "report" && step.status, {
    ...{ state: "Creating", cr_state: "Creating", capacity: 0, used: 0, available: 0 },
  });
});

test("statusOf() takes capacity, used and available from the pool", () => {
  assert.deepEqual(statusOf(pool(), resource()), online);
  assert.equal(statusOf(pool({ used: 130 }), resource()).available, 0, "never below 0");
  assert.equal(statusOf(pool({ status: "Degraded" }), resource()).pool_status, "Degraded");
});

test("statusOf() knows nothing of a pool whose node is down", () => {
  const unknown = { state: "Unknown", pool_status: "Unknown", capacity: 0, used: 0, available: 0 };
  assert.deepEqual(statusOf(pool(null), resource()), { ...unknown, cr_state: "Created" });
  const deleting = resource({ deleting: true });
  assert.deepEqual(statusOf(pool(null), deleting), { ...unknown, cr_state: "Terminating" });
});

test("afterCreate() reports a pool that is there, adopted or made", () => {
  const creating = resource({ status: { ...online, cr_state: "Creating" } });
  const made = afterCreate(creating, { made: true, pool: pool(), intervalMs });
  assert.deepEqual(made.status, online);
  assert.deepEqual(
    made.events.map(({ reason, type }) => [reason, type]),
    [
      ["Created", "Normal"],
      ["Online", "Normal"],
    ],
  );
  assert.equal(made.afterMs, intervalMs);
  const adopted = afterCreate(creating, { made: false, pool: pool(), intervalMs });
  assert.deepEqual(
    adopted.events.map(({ reason }) => reason),
    ["Online"],
  );
});

test("afterCreate() looks again in 3 s when the pool has no state yet", () => {
  for (const seen of [pool(null), null]) {
    const outcome = afterCreate(resource(), { made: true, pool: seen, intervalMs });
    assert.deepEqual([outcome.status, outcome.afterMs], [null, 3000]);
  }
});

test("afterCreate() tells of a pool of that name on another node, and leaves it alone", () => {
  const outcome = afterCreate(resource(), { made: false, pool: pool({}, "worker-9"), intervalMs });
  assert.deepEqual([outcome.status?.state, outcome.status?.cr_state], ["Error", "Creating"]);
  assert.equal(outcome.events[0]?.type, "Warning");
  assert.match(outcome.events[0]?.note ?? "", /exists on node worker-9, not on worker-0/);
  const again = resource({ status: outcome.status });
  const second = afterCreate(again, { made: false, pool: pool({}, "worker-9"), intervalMs });
  assert.equal(second.status, null, "no endless writing");
});

test("devicePath() and missingDisks() know disks by name, link and URI", () => {
  assert.equal(devicePath("aio:///dev/vdb?blk_size=512"), "/dev/vdb");
  assert.equal(devicePath("/dev/disk/by-id/x"), "/dev/disk/by-id/x");
  assert.equal(devicePath("aio:///var/disk.img"), null);
  assert.equal(devicePath("malloc:///m?size_mb=64"), null);
  const disks = ["/dev/vdb", "uring:///dev/disk/by-id/virtio-1", "/dev/none", "malloc:///x"];
  assert.deepEqual(missingDisks(disks, [device]), ["/dev/none"]);
});

test("afterFailedCreate() explains a missing disk, an unknown node, anything else", () => {
  const error = failure("invalid-argument");
  const why = (disk: string, devices: Parameters<typeof afterFailedCreate>[1]["devices"]) => {
    const wanted = resource({ spec: { node: "worker-0", disks: [disk] } });
    const { events, status, afterMs } = afterFailedCreate(wanted, { error, devices });
    assert.deepEqual([status, afterMs, events.length], [null, 20_000, 1]);
    return [events[0]?.reason, events[0]?.type, events[0]?.note];
  };
  const onNode = { of: "node", devices: [device] } as const;
  assert.deepEqual(why("/dev/none", onNode).slice(0, 2), ["Missing", "Warning"]);
  assert.match(String(why("/dev/none", onNode)[2]), /\/dev\/none/);
  assert.match(String(why("/dev/vdb", { of: "unknown-node" })[2]), /Cannot find io-engine node/);
  assert.deepEqual(why("/dev/vdb", onNode).slice(0, 2), ["Failure", "Warning"]);
  assert.match(String(why("/dev/vdb", { of: "nobody" })[2]), /it was invalid-argument/);
});

test("seenFailure() tells gone from unreachable from failed", () => {
  assert.equal(seenFailure(failure("not-found")).is, "gone");
  for (const kind of ["unavailable", "timeout", "deadline-exceeded"] as const) {
    assert.equal(seenFailure(failure(kind)).is, "unreachable");
  }
  assert.equal(seenFailure(failure("internal")).is, "failed");
});

test("afterLook() writes only what differs", () => {
  const same = afterLook(resource(), { is: "there", pool: pool() }, { intervalMs });
  assert.deepEqual(same, { status: null, events: [], afterMs: intervalMs });
  const used = afterLook(resource(), { is: "there", pool: pool({ used: 40 }) }, { intervalMs });
  assert.deepEqual([used.status?.used, used.status?.available], [40, 60]);
});

test("afterLook() tells in an event why a pool is not healthy, seen by its node or not", () => {
  const status_reason = { code: "import-failed", message: "Damaged.", next_step: "Mend it." };
  const { state: _, ...unseen } = pool();
  for (const seen of [{ ...unseen, status_reason }, pool({ status: "Degraded", status_reason })]) {
    const { events } = afterLook(resource(), { is: "there", pool: seen }, { intervalMs });
    assert.deepEqual(
      events.map(({ type, note }) => [type, note]),
      [["Warning", "Damaged. Next step: Mend it."]],
    );
  }
});

test("afterLook() goes back to creating only when the pool is certainly gone", () => {
  const error = failure("unavailable");
  const cases = [
    [{ is: "gone" }, "Notfound", intervalMs],
    [{ is: "unreachable", error }, "Unreachable", 20_000],
    [{ is: "failed", error }, "Missing", 20_000],
  ] as const;
  for (const [seen, action, afterMs] of cases) {
    const outcome = afterLook(resource(), seen, { intervalMs });
    if (seen.is === "gone") {
      const { state, cr_state, pool_status } = outcome.status ?? {};
      assert.deepEqual([state, cr_state, pool_status], ["Created", "Creating", undefined]);
    } else {
      assert.equal(outcome.status, null, "what was seen last stays");
    }
    assert.deepEqual(
      outcome.events.map((event) => [event.action, event.reason, event.type]),
      [[action, "Check", "Warning"]],
    );
    assert.equal(outcome.afterMs, afterMs);
  }
});

test("afterLook() says that changed disks have no effect", () => {
  const changed = resource({ spec: { node: "worker-0", disks: ["/dev/vdc"] } });
  const { events } = afterLook(changed, { is: "there", pool: pool() }, { intervalMs });
  assert.match(events[0]?.note ?? "", /stays on \/dev\/vdb/);
});

test("beforeDestroy() terminates first, and never touches another node's pool", () => {
  const deleting = resource({ deleting: true });
  const step = beforeDestroy(deleting, { is: "there", pool: pool() });
  assert.equal(step.do === "destroy" && step.status?.cr_state, "Terminating");
  const elsewhere = beforeDestroy(deleting, { is: "there", pool: pool({}, "worker-9") });
  assert.deepEqual(elsewhere, { do: "release", events: [] });
  assert.equal(beforeDestroy(deleting, { is: "gone" }).do, "release");
  const error = failure("unavailable");
  assert.equal(beforeDestroy(deleting, { is: "unreachable", error }).do, "wait");
});

test("afterDestroy() releases what is gone and waits for what is not", () => {
  assert.equal(afterDestroy(null).do, "release");
  assert.equal(afterDestroy(failure("not-found")).do, "release");
  const step = afterDestroy(failure("in-use"));
  assert.equal(step.do, "wait");
  assert.ok(step.do === "wait" && step.events[0]?.note.includes("in-use"));
});

test("offerPurge() says what the way out costs and how it is asked for, where there is one", () => {
  const cost: PurgeCost = {
    ...{ kind: "pool", id: "pool-0", pools: ["pool-0"], replicas: 1, unowned: 0, targets: [] },
    volumes: [{ volume: "v", replicas: ["r"], wanted: 2, left: 1, last_copy: false }],
    last_copies: 0,
  };
  const notes = (of: PurgeCost | null) => {
    const step = offerPurge(failure("in-use"), of);
    return step.do === "wait" ? step.events.map(({ note }) => note).join() : "";
  };
  assert.match(notes(cost), /openebs\.io\/purge=true\. That costs: 1 volumes/);
  assert.match(notes({ ...cost, last_copies: 1 }), /openebs\.io\/purge=last-copies/);
  assert.doesNotMatch(notes({ ...cost, refused: "it is Online" }), /annotate/);
  assert.doesNotMatch(notes(null), /annotate/);
});

test("afterPurge() releases only what was purged: an API that knows no purge says not found too", () => {
  assert.equal(afterPurge(null).do, "release");
  assert.equal(afterPurge(failure("not-found")).do, "wait");
  assert.equal(afterPurge(failure("failed-precondition")).do, "wait");
});

test("parseDiskPool() takes only what is surely meant for a purge", () => {
  const of = (annotations?: Record<string, string>) =>
    parseDiskPool({
      metadata: { ...{ name: "p", namespace: "n", uid: "u", resourceVersion: "1" }, annotations },
      spec: { node: "worker-0", disks: ["/dev/vdb"] },
    }).purge;
  assert.equal(of({}), "no");
  assert.equal(of({ "openebs.io/purge": "true" }), "yes");
  assert.equal(of({ "openebs.io/purge": "last-copies" }), "last-copies");
  assert.equal(of({ "openebs.io/purge": "false" }), "no");
});
