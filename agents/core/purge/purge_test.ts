/** Giving up pools and nodes for good: what it costs, that it is carried on with, and that what comes back harms nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { poolOf } from "#common/types/replica.ts";
import type { FakeEngine } from "../testing/fake_engine.ts";
import { call, Rig } from "../testing/rig.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const V2 = "bf207797-b23d-447a-8d3f-98d378acfa8b";

/** Four nodes with a pool each, a volume of two replicas that is served on one of them; and the pool of the other is lost. */
async function lostPool() {
  const rig = await Rig.start({ nodes: 4 });
  await rig.createPools();
  await rig.createVolume(V1, { replicas: 2 });
  await rig.settle();
  const owned = rig.core.specs.replicas.ownedBy(V1);
  const [kept, lost] = owned.map((spec) => ({ spec, pool: poolOf(spec) }));
  assert.ok(kept && lost);
  const node = lost.pool.replace("pool", "node");
  await rig.publish(V1, kept.pool.replace("pool", "node"));
  await rig.settle();
  return { rig, pool: lost.pool, node, replica: lost.spec.uuid, engine: rig.cluster.engine(node) };
}

/** The engine can be reached again; what waits for its next word gets it. */
async function returns(rig: Rig, engine: FakeEngine): Promise<void> {
  engine.alive = true;
  engine.reachable = true;
  await rig.clock.advance(2000);
  await rig.settle();
}

const purge = (rig: Rig, pool: string, lastCopies = false) =>
  call(rig.api, "PurgePool", { pool, lastCopies });
const purgeNode = (rig: Rig, node: string, lastCopies = false) =>
  call(rig.api, "PurgeNode", { node, lastCopies });

describe("a purge of a pool", () => {
  test("tells its cost first, is refused while the pool is alive, and then the volume heals elsewhere", async () => {
    const { rig, pool, node, replica, engine } = await lostPool();
    const alive = await call(rig.api, "GetPoolPurge", { pool });
    assert.match(alive.refused ?? "", /is Online/);
    await assert.rejects(purge(rig, pool, true), { kind: "failed-precondition" });
    engine.kill();
    await rig.look();
    const cost = await call(rig.api, "GetPoolPurge", { pool });
    assert.deepEqual(cost, {
      ...{ kind: "pool", id: pool, pools: [pool], replicas: 1, unowned: 0, targets: [] },
      volumes: [{ volume: V1, replicas: [replica], wanted: 2, left: 1, last_copy: false }],
      last_copies: 0,
    });
    await assert.rejects(call(rig.api, "DestroyPool", { pool }), { kind: "in-use" });
    await purge(rig, pool);
    assert.equal(rig.core.specs.pools.find(pool), undefined);
    assert.equal(rig.core.specs.replicas.find(replica), undefined);
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.equal(rig.core.specs.replicas.ownedBy(V1).length, 2);

    // It comes back: nobody takes it for live.
    engine.restart();
    await rig.settle();
    assert.equal(rig.core.registry.isOnline(node), true);
    assert.deepEqual(rig.core.registry.pools(node), []);
    assert.equal(rig.core.registry.replica(replica), undefined);
    // Nor under its name, from the disk that still has it; from another disk it is made.
    const create = (disk: string) => call(rig.api, "CreatePool", { node, pool, disks: [disk] });
    await assert.rejects(create("/dev/sdb"), /purged/);
    assert.equal(engine.pools.size, 0, "closed again");
    assert.ok(engine.disks.get("/dev/sdb")?.replicas.has(replica), "its disk is left as it is");
    await create("/dev/sdc");
    engine.restart();
    await rig.settle();
    assert.equal(rig.core.registry.pools(node)[0]?.disks.length, 1);
    assert.equal(engine.pools.get(pool), engine.disks.get("/dev/sdc"));
    await rig.close();
  });

  test("an engine that was only unreachable, and has it open, closes it when it is back", async () => {
    const { rig, pool, node, engine } = await lostPool();
    engine.reachable = false;
    await rig.look();
    await purge(rig, pool);
    await rig.settle();
    await returns(rig, engine);
    assert.equal(engine.pools.size, 0);
    assert.deepEqual(rig.core.registry.pools(node), []);
    assert.ok(engine.disks.get("/dev/sdb"), "its disk is left as it is");
    assert.equal((await rig.volume(V1)).state.status, "Online");
    // The name is free for another disk.
    await call(rig.api, "CreatePool", { node, pool, disks: ["/dev/sdc"] });
    await rig.close();
  });

  test("a last copy is given up only if that is said", async () => {
    const { rig, pool, engine } = await lostPool();
    const { target } = rig.core.specs.volumes.get(V1);
    const kept = rig.cluster.engine(target?.node ?? "");
    engine.kill();
    kept.kill();
    await rig.look();
    const cost = await call(rig.api, "GetPoolPurge", { pool });
    assert.equal(cost.last_copies, 1);
    await assert.rejects(purge(rig, pool), /last copy/);
    assert.ok(rig.core.specs.pools.find(pool));
    await purge(rig, pool, true);
    assert.equal(rig.core.specs.pools.find(pool), undefined);
    await rig.close();
  });

  test("a replica of a target that cannot be seen counts as the last copy until the target is moved", async () => {
    const { rig, engine: lost } = await lostPool();
    const { target } = rig.core.specs.volumes.get(V1);
    const serving = target?.node ?? "";
    rig.cluster.engine(serving).reachable = false;
    await rig.look();
    const pool = serving.replace("node", "pool");
    assert.ok(lost.alive, "the other copy is there");
    const cost = await call(rig.api, "GetPoolPurge", { pool });
    assert.deepEqual(
      cost.volumes.map(({ left, last_copy, target_unseen }) => [left, last_copy, target_unseen]),
      [[1, true, true]],
    );
    await assert.rejects(purge(rig, pool), /cannot be seen/);
    await call(rig.api, "RepublishVolume", {
      ...{ volume: V1, protocol: "nvmf", reuseExisting: false, frontendNode: "" },
    });
    await purge(rig, pool);
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    await rig.close();
  });

  test("a pool whose replicas nobody wants any more is deleted when its disk is blank", async () => {
    const { rig, pool, replica, engine } = await lostPool();
    engine.kill();
    await rig.look();
    await call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas: 1 });
    engine.disks.clear();
    engine.restart();
    await rig.passes(3);
    await call(rig.api, "DestroyPool", { pool });
    assert.equal(rig.core.specs.replicas.find(replica), undefined);
    const node = engine.node;
    await call(rig.api, "CreatePool", { node, pool, disks: ["/dev/sdb"] });
    await rig.close();
  });

  test("an empty pool of a dead node goes", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    const engine = rig.cluster.engine("node-2");
    engine.kill();
    await rig.look();
    await assert.rejects(call(rig.api, "DestroyPool", { pool: "pool-2" }), /purge/);
    await purge(rig, "pool-2");
    engine.restart();
    await rig.settle();
    assert.deepEqual(rig.core.registry.pools("node-2"), []);
    await rig.close();
  });

  test("is carried on with after a crash at any call", async () => {
    for (const when of ["before", "after"] as const) {
      for (let at = 1; ; at++) {
        const { rig, pool, replica, engine } = await lostPool();
        engine.kill();
        await rig.look();
        rig.link.arm({ call: at, when });
        const ended = await purge(rig, pool).then(
          () => true,
          () => false,
        );
        const cut = rig.link.dead;
        rig.crashAgent();
        await rig.startAgent();
        await rig.settle();
        if (rig.core.specs.pools.find(pool)) await purge(rig, pool); // nothing was written: asked again
        await rig.settle();
        assert.equal(rig.core.specs.replicas.find(replica), undefined, `${when} ${at}`);
        assert.equal(rig.core.tombstones.openPool(pool), undefined, `${when} ${at}`);
        engine.restart();
        await rig.settle();
        assert.equal(rig.core.registry.replica(replica), undefined, `${when} ${at}`);
        assert.equal((await rig.volume(V1)).state.status, "Online", `${when} ${at}`);
        await rig.close();
        if (ended && !cut) break;
      }
    }
  });
});

describe("a purge of a node", () => {
  /** A volume that is served on a node that goes, and has a copy elsewhere. */
  async function lostNode() {
    const rig = await Rig.start({ nodes: 4 });
    await rig.createPools();
    await rig.createVolume(V1, { replicas: 2 });
    const [spec] = rig.core.specs.replicas.ownedBy(V1);
    assert.ok(spec);
    const node = poolOf(spec).replace("pool", "node");
    await rig.publish(V1, node);
    await rig.settle();
    return { rig, node, engine: rig.cluster.engine(node), replica: spec.uuid };
  }

  test("moves its targets, forgets it, and takes an engine that comes back as a new one", async () => {
    const { rig, node, engine, replica } = await lostNode();
    await assert.rejects(purgeNode(rig, node), /answers/);
    engine.reachable = false;
    await rig.look();
    const old = rig.core.specs.volumes.get(V1).target?.nexus ?? "";
    const cost = await purgeNode(rig, node);
    assert.deepEqual(cost.targets, [V1]);
    await assert.rejects(call(rig.api, "GetNode", { node }), { kind: "not-found" });
    await rig.settle();
    const { target } = rig.core.specs.volumes.get(V1);
    assert.ok(target?.active && target.node !== node);
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.ok(engine.nexuses.has(old), "it serves on, as long as nobody can tell it");

    await returns(rig, engine);
    assert.equal(engine.nexuses.has(old), false, "its old target is gone");
    assert.equal(engine.pools.size, 0);
    assert.equal(rig.core.registry.replica(replica), undefined);
    assert.equal((await call(rig.api, "GetNode", { node })).state?.status, "Online");
    await rig.close();
  });

  test("a volume without another copy ends unpublished, if that was said", async () => {
    const { rig, node, engine } = await lostNode();
    await rig.createVolume(V2, { replicas: 1 });
    const [only] = rig.core.specs.replicas.ownedBy(V2);
    assert.ok(only);
    const gone = poolOf(only).replace("pool", "node");
    await rig.publish(V2, gone);
    await rig.settle();
    rig.cluster.engine(gone).kill();
    await rig.look();
    await assert.rejects(purgeNode(rig, gone), /last copy/);
    await purgeNode(rig, gone, true);
    await rig.settle();
    assert.equal(rig.core.specs.volumes.get(V2).target?.active ?? false, false);
    await call(rig.api, "DestroyVolume", { volume: V2 });
    await rig.settle();
    assert.equal(rig.core.specs.volumes.find(V2), undefined);
    assert.ok(engine.alive && node);
    await rig.close();
  });

  test("is carried on with after a crash at any call", async () => {
    for (const when of ["before", "after"] as const) {
      for (let at = 1; ; at++) {
        const { rig, node, engine, replica } = await lostNode();
        engine.alive = false; // silent, but what it has in memory stays
        await rig.look();
        rig.link.arm({ call: at, when });
        const ended = await purgeNode(rig, node).then(
          () => true,
          () => false,
        );
        const cut = rig.link.dead;
        rig.crashAgent();
        await rig.startAgent();
        await rig.settle();
        if (!rig.core.tombstones.node(node)) await purgeNode(rig, node); // nothing was written: asked again
        await rig.settle();
        assert.equal(rig.core.tombstones.node(node)?.state, "Purged", `${when} ${at}`);
        assert.equal((await rig.volume(V1)).state.status, "Online", `${when} ${at}`);
        await returns(rig, engine);
        assert.equal(engine.nexuses.size, 0, `${when} ${at}`);
        assert.equal(rig.core.registry.replica(replica), undefined, `${when} ${at}`);
        await rig.close();
        if (ended && !cut) break;
      }
    }
  });
});
