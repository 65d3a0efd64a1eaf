/** Pools without space: who is moved, who comes back by itself, and that a stop halfway does no harm. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SvcError } from "#common/errors.ts";
import { replicasOfVolume } from "../scheduling/snapshot.ts";
import { Rig } from "../testing/rig.ts";
import { type FullChild, reliefOf } from "./relief.ts";

const MIB = 2 ** 20;
const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const V2 = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d";

describe("reliefOf()", () => {
  const full = (replica: string, change: Partial<FullChild> = {}): FullChild => ({
    ...{ volume: `v-${replica}`, replica, pool: "p", allocated: 1 },
    ...{ canReturn: false, canMove: true, isBusy: false, ...change },
  });
  const moved = (...children: FullChild[]) => reliefOf(children).map(({ replica }) => replica);

  test("moves the largest of each pool, one at a time", () => {
    const big = full("big", { allocated: 3 });
    const other = full("other", { pool: "q" });
    assert.deepEqual(moved(full("a"), big, full("b", { allocated: 2 }), other), ["big", "other"]);
    assert.deepEqual(moved(full("b"), full("a")), ["a"]);
  });
  test("takes the next largest when the largest has nowhere to go", () => {
    assert.deepEqual(moved(full("a"), full("big", { allocated: 3, canMove: false })), ["a"]);
    assert.deepEqual(moved(full("a", { canMove: false })), []);
  });
  test("leaves a pool alone in which one can come back, or is being worked on", () => {
    const big = full("big", { allocated: 3 });
    for (const change of [{ canReturn: true }, { isBusy: true }]) {
      assert.deepEqual(moved(big, full("a", change), full("c", { pool: "q" })), ["c"]);
    }
    assert.deepEqual(moved(), []);
  });
});

/** Two thin volumes that share the pool of `node`, where both stop for want of space; V2 has more there. */
async function fullPool(nodes = 4, args: readonly string[] = []) {
  const rig = await Rig.start({ nodes, args });
  await rig.createPools();
  for (const volume of [V1, V2]) {
    await rig.createVolume(volume, { replicas: 3, size: 512 * MIB, thin: true });
    await rig.publish(volume, "node-1");
  }
  const nodeOf = (volume: string) =>
    replicasOfVolume(rig.core, volume).map(({ uuid }) => ({
      replica: uuid,
      node: rig.core.registry.replica(uuid)?.node ?? "",
    }));
  const shared = nodeOf(V1).find(
    (one) => one.node !== "node-1" && nodeOf(V2).some(({ node }) => node === one.node),
  );
  assert.ok(shared, "the volumes meet somewhere");
  const { node } = shared;
  const pool = rig.cluster.engine(node).pools.get(node.replace("node", "pool"));
  assert.ok(pool);
  const at = (volume: string) => nodeOf(volume).find((one) => one.node === node)?.replica;
  const use = (volume: string, allocated: number) => {
    for (const { replica, node: home } of nodeOf(volume)) {
      const disk = rig.cluster.engine(home).pools.get(home.replace("node", "pool"));
      const state = disk?.replicas.get(replica);
      if (state?.space)
        disk?.replicas.set(replica, { ...state, space: { ...state.space, allocated } });
    }
  };
  use(V1, 100 * MIB);
  use(V2, 200 * MIB);
  pool.capacity = 310 * MIB; // 10 MiB are left
  await rig.look();
  const stop = async (volume: string) => {
    const nexus = rig.cluster
      .engine("node-1")
      .nexuses.get(rig.core.specs.volumes.get(volume).target?.nexus ?? "");
    assert.ok(nexus);
    const replica = at(volume);
    if (replica !== undefined) await rig.cluster.outOfSpace(nexus, replica);
    return nexus;
  };
  const nexuses = [await stop(V1), await stop(V2)];
  rig.cluster.calls.length = 0;
  return { rig, node, pool, at, use, nexuses };
}

const statusOf = async (rig: Rig, volume: string) => (await rig.volume(volume)).state.status;

describe("a pool without space", () => {
  test("gives its largest replica to another pool, and the rest comes back", async () => {
    const { rig, node, at } = await fullPool();
    const [first, second] = [at(V1), at(V2)];
    let newest: string[] = [];
    rig.cluster.meanwhile = async ({ name }) => {
      if (name !== "removeChild") return;
      newest = replicasOfVolume(rig.core, V2).map(({ uuid }) => uuid);
    };
    await rig.settle();
    assert.deepEqual([await statusOf(rig, V1), await statusOf(rig, V2)], ["Online", "Online"]);
    assert.equal(at(V1), first, "came back as it was");
    assert.equal(at(V2), undefined, "moved");
    assert.ok(newest.includes(second ?? "") && newest.length === 4, "the new one came first");
    const made = (name: string) => rig.cluster.calls.filter((call) => call.endsWith(name)).length;
    assert.deepEqual(
      ["createReplica", "addChild", "removeChild", "destroyReplica", "onlineChild"].map(made),
      [1, 1, 1, 1, 1],
    );
    assert.ok(rig.cluster.calls.includes(`${node} destroyReplica`));
    await rig.close();
  });

  test("keeps what it has while there is no other place; room brings it back, and moves nothing", async () => {
    const { rig, pool, at } = await fullPool(3);
    const before = [at(V1), at(V2)];
    await rig.settle();
    assert.deepEqual([await statusOf(rig, V1), await statusOf(rig, V2)], ["Degraded", "Degraded"]);
    assert.deepEqual(
      rig.cluster.calls.filter((call) => /Replica|Child/.test(call)),
      [],
    );
    pool.capacity += 100 * MIB;
    await rig.settle();
    assert.deepEqual([await statusOf(rig, V1), await statusOf(rig, V2)], ["Online", "Online"]);
    assert.deepEqual([at(V1), at(V2)], before);
    assert.ok(!rig.cluster.calls.some((call) => call.endsWith("addChild")), "no full rebuild");
    await rig.close();
  });

  test("makes no replica that may not be rebuilt yet", async () => {
    const { rig } = await fullPool(4, ["--max-rebuilds=0"]);
    await rig.settle();
    assert.deepEqual(
      rig.cluster.calls.filter((call) => /Replica|Child/.test(call)),
      [],
    );
    await rig.close();
  });

  for (const name of ["createReplica", "addChild", "removeChild", "destroyReplica"]) {
    for (const how of ["refused", "lost", "crash"] as const) {
      test(`is relieved all the same after its ${name} was hit: ${how}`, async () => {
        const { rig, at } = await fullPool();
        let hit = false;
        rig.cluster.fault = (call) => {
          if (hit || call.name !== name) return "ok";
          hit = true;
          if (how === "refused") throw new SvcError("internal", "no");
          if (how === "crash") rig.crashAgent();
          return "lost";
        };
        if (how === "crash") {
          await rig.passes(2).catch(() => {}); // ends with the agent
          await rig.startAgent();
        }
        await rig.settle();
        assert.ok(hit);
        for (const volume of [V1, V2]) {
          assert.equal(await statusOf(rig, volume), "Online", volume);
          assert.equal(replicasOfVolume(rig.core, volume).length, 3);
        }
        assert.equal(at(V2), undefined);
        await rig.close();
      });
    }
  }

  test("waits for the rebuilds of the volumes it would move", async () => {
    const { rig, nexuses } = await fullPool();
    const [, nexus] = nexuses;
    const [, other] = nexus?.children.filter(({ status }) => status === "Online") ?? [];
    assert.ok(other);
    Object.assign(other, { status: "Degraded", reason: "OutOfSync", progress: 1 });
    await rig.look();
    await rig.agent.loop.pass(new AbortController().signal);
    const changed = rig.cluster.calls.filter((call) => /createReplica|removeChild/.test(call));
    assert.deepEqual(changed, []);
    await rig.close();
  });
});

test("a target whose every child has no space is made again when there is room, and not before", async () => {
  const { rig, nexuses } = await fullPool();
  const [nexus] = nexuses;
  assert.ok(nexus);
  const pools = rig.cluster.engines.flatMap((engine) => [...engine.pools.values()]);
  for (const pool of pools) {
    const used = [...pool.replicas.values()].map(({ space }) => space?.allocated ?? 0);
    pool.capacity = used.reduce((sum, bytes) => sum + bytes, 10 * MIB);
  }
  const replicas = replicasOfVolume(rig.core, V1).map(({ uuid }) => uuid);
  for (const replica of replicas) await rig.cluster.outOfSpace(nexus, replica);
  const made = () => rig.cluster.calls.filter((call) => /(destroy|create)Nexus/.test(call));
  await rig.passes(3);
  assert.equal(await statusOf(rig, V1), "Faulted");
  assert.deepEqual(made(), []);
  const last = replicas.at(-1) ?? ""; // it alone has all the data
  const poolOf = (replica: string) => pools.find((pool) => pool.replicas.has(replica));
  const [stale] = replicas.filter((replica) => poolOf(replica) !== poolOf(last));
  for (const [replica, count] of [
    [stale, 0],
    [last, 2],
  ] as const) {
    const pool = poolOf(replica ?? "");
    assert.ok(pool);
    pool.capacity += 100 * MIB;
    await rig.passes(3);
    assert.equal(made().length, count, `room for ${replica}`);
  }
  assert.notEqual(await statusOf(rig, V1), "Faulted");
  await rig.close();
});
