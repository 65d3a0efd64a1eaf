/** The reasons of what is not healthy: each state has one, the first cause wins, and they reach the REST views. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isKind, type SvcError } from "#common/errors.ts";
import type { ChildReason, ChildState, NexusState, PoolState } from "../engine/client.ts";
import type { NodeView } from "../registry/registry.ts";
import { call, Rig } from "../testing/rig.ts";
import { childReason, nexusReason, nodeReason, poolReason, replicaReason } from "./reasons.ts";

const V = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const NODE: NodeView = {
  id: "node-1",
  endpoint: "10.0.0.1:10124",
  status: "Online",
  hostNqn: null,
  instanceUuid: null,
  seen: true,
  down: false,
  contender: null,
  loadedAtMs: 1,
  statusSince: 1_700_000_000_000,
};
const POOL: PoolState = {
  id: "pool-1",
  uuid: V,
  node: "node-1",
  disks: ["/dev/sdb"],
  status: "Online",
  capacity: 10,
  used: 1,
  committed: 1,
};
const CHILD: ChildState = {
  uri: "bdev:///a",
  status: "Online",
  reason: "None",
  rebuildProgress: null,
  faultedAtMs: null,
  hasIoLog: false,
};

describe("reasons", () => {
  test("what is healthy has none", () => {
    assert.equal(nodeReason("node-1", NODE), null);
    const facts = { id: "pool-1", state: POOL, node: NODE, importFailure: undefined };
    assert.equal(poolReason(facts), null);
    assert.equal(childReason(CHILD), null);
  });
  test("a node says whether it is down, gone or never seen, and since when", () => {
    const code = (change: Partial<NodeView>) => nodeReason("node-1", { ...NODE, ...change })?.code;
    assert.equal(code({ status: "Offline" }), "engine-not-answering");
    assert.equal(code({ status: "Unknown", seen: false }), "not-registered");
    assert.equal(code({ status: "Unknown" }), "engine-left");
    assert.equal(nodeReason("node-1", undefined)?.code, "not-registered");
    const since = nodeReason("node-1", { ...NODE, status: "Offline" })?.since;
    assert.equal(since, "2023-11-14T22:13:20.000Z");
  });
  test("a pool gives its engine's words, else the state, its node or its failed import", () => {
    const trouble = { code: "io-errors", message: "3 reads failed.", nextStep: "Replace it." };
    const facts = { id: "pool-1", state: undefined, node: NODE, importFailure: undefined };
    const told = poolReason({ ...facts, state: { ...POOL, status: "Degraded", trouble } });
    assert.deepEqual(told, {
      code: "io-errors",
      message: "3 reads failed.",
      next_step: "Replace it.",
    });
    for (const status of ["Unknown", "Degraded", "Faulted"] as const) {
      assert.equal(
        poolReason({ ...facts, state: { ...POOL, status } })?.code,
        "reported-by-engine",
      );
    }
    assert.equal(poolReason(facts)?.code, "not-imported");
    assert.equal(poolReason({ ...facts, node: undefined })?.code, "node-not-online");
    assert.equal(poolReason({ ...facts, phase: "Deleting" })?.code, "deleting");
    const importFailure = { message: "superblock damaged", sinceMs: 1_700_000_000_000 };
    const failed = poolReason({ ...facts, importFailure });
    assert.equal(failed?.code, "import-failed");
    assert.match(failed?.message ?? "", /superblock damaged/);
    assert.equal(failed?.since, "2023-11-14T22:13:20.000Z");
  });
  test("each reason of a child has a code of its own", () => {
    const reasons: ChildReason[] = ["None", "Init", "Closed", "CannotOpen", "ConfigInvalid"];
    reasons.push("RebuildFailed", "IoFailure", "ByClient", "OutOfSync", "NoSpace", "TimedOut");
    reasons.push("AdminFailed");
    const codes = reasons.map(
      (reason) => childReason({ ...CHILD, status: "Faulted", reason })?.code,
    );
    assert.equal(new Set(codes).size, reasons.length);
    const rebuilding = childReason({ ...CHILD, status: "Degraded", rebuildProgress: 40 });
    assert.match(rebuilding?.message ?? "", /40 %/);
  });
  test("a nexus names its first bad child; a replica its pool's trouble", () => {
    const bad: ChildState = { ...CHILD, status: "Faulted", reason: "NoSpace" };
    const nexus: NexusState = {
      uuid: V,
      name: V,
      node: "node-1",
      size: 1,
      status: "Degraded",
      children: [CHILD, bad],
      deviceUri: "",
      share: "none",
      rebuilds: 0,
      allowedHosts: [],
    };
    assert.match(nexusReason(nexus)?.message ?? "", /1 of 2 .* ran out of space/);
    assert.equal(nexusReason({ ...nexus, status: "Shutdown" })?.code, "shut-down");
    const ofPool = { code: "import-failed", message: "m", next_step: "n" };
    const known = { uuid: V, pool: "pool-1", state: undefined };
    assert.deepEqual(replicaReason({ ...known, poolReason: ofPool }), ofPool);
    assert.equal(replicaReason(known)?.code, "replica-missing");
  });
});

describe("in REST", () => {
  test("a pool whose import its engine refuses says so, and its replicas and volume with it", async () => {
    const rig = await Rig.start();
    try {
      await rig.createPools();
      await rig.createVolume(V, { replicas: 3 });
      const engine = rig.cluster.engine("node-1");
      engine.pools.delete("pool-1");
      engine.disks.delete("/dev/sdb");
      await rig.passes(2);
      const pool = await call(rig.api, "GetPool", { pool: "pool-1" });
      assert.equal(pool.state, undefined);
      assert.equal(pool.status_reason?.code, "import-failed");
      const { state } = await rig.volume(V);
      const reasons = Object.values(state.replica_topology).map((one) => one.status_reason?.code);
      assert.ok(reasons.includes("import-failed"), JSON.stringify(reasons));
      // Its disk stays its own.
      await assert.rejects(
        call(rig.api, "CreatePool", { node: "node-1", pool: "other", disks: ["aio:///dev/sdb"] }),
        (error: SvcError) =>
          isKind(error, "in-use") && /belongs to pool pool-1/.test(error.message),
      );
    } finally {
      await rig.close();
    }
  });
  test("two pools asked for at once on one disk: one gets it", async () => {
    const rig = await Rig.start();
    try {
      const ask = (pool: string) =>
        call(rig.api, "CreatePool", { node: "node-1", pool, disks: ["/dev/sdb"] });
      const answers = await Promise.allSettled([ask("a"), ask("b")]);
      assert.deepEqual(answers.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    } finally {
      await rig.close();
    }
  });
  test("a volume whose target's node is gone says so", async () => {
    const rig = await Rig.start();
    try {
      await rig.createPools();
      await rig.createVolume(V);
      await rig.publish(V, "node-1");
      assert.equal((await rig.volume(V)).state.status_reason, undefined);
      rig.cluster.engine("node-1").alive = false;
      await rig.look();
      const { state } = await rig.volume(V);
      assert.equal(state.status, "Unknown");
      assert.equal(state.status_reason?.code, "target-not-visible");
      const node = await call(rig.api, "GetNode", { node: "node-1" });
      assert.equal(node.state?.status_reason?.code, "engine-not-answering");
    } finally {
      await rig.close();
    }
  });
});
