/** A volume's life on engines in memory: created, published, hurt, healed, moved, gone. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isKind } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import { nexusInfoOf } from "../context.ts";
import { replicaOfUri } from "../scheduling/snapshot.ts";
import { call, Rig } from "../testing/rig.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
/** To node-2, whatever the present target does. */
const REPUBLISH = {
  volume: V1,
  node: "node-2",
  protocol: "nvmf",
  reuseExisting: false,
  frontendNode: "",
} as const;

async function rigWithVolume(options: { replicas?: number; nodes?: number } = {}) {
  const rig = await Rig.start({ nodes: options.nodes ?? 3 });
  await rig.createPools();
  await rig.createVolume(V1, { replicas: options.replicas ?? 3 });
  return rig;
}

describe("a volume", () => {
  test("CreateVolume puts one replica on each node and reports Online", async () => {
    const rig = await rigWithVolume();
    const { spec, state } = await rig.volume(V1);
    assert.equal(spec.status, "Created");
    assert.equal(state.status, "Online");
    const nodes = Object.values(state.replica_topology).map((replica) => replica.node);
    assert.deepEqual(nodes.sort(), ["node-1", "node-2", "node-3"]);
    await rig.close();
  });

  test("PublishVolume makes a nexus over all replicas and shares it", async () => {
    const rig = await rigWithVolume();
    const { spec, state } = await rig.publish(V1, "node-1");
    assert.equal(spec.target?.node, "node-1");
    assert.equal(state.status, "Online");
    assert.match(
      state.target?.deviceUri ?? "",
      /^nvmf:\/\/10\.0\.0\.1:4421\/nqn\.2019-05\.io\.openebs:bf207797/,
    );
    const uris = state.target?.children.map((child) => child.uri.split("/")[0]).sort();
    assert.deepEqual(uris, ["bdev:", "nvmf:", "nvmf:"]);
    await assert.rejects(rig.publish(V1), { kind: "already-published" });
    await rig.close();
  });

  test("a remote replica admits only the target's node", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-2");
    const shared = rig.core.registry.replicas().filter((replica) => replica.share === "nvmf");
    assert.equal(shared.length, 2);
    for (const replica of shared) {
      assert.deepEqual(replica.allowedHosts, ["nqn.2019-05.io.openebs:node-name:node-2"]);
    }
    await rig.close();
  });

  test("a replica whose node comes back in time returns by a partial rebuild", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-2").kill();
    await rig.cluster.faultStep();
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Degraded");
    rig.cluster.calls.length = 0;
    rig.cluster.engine("node-2").restart();
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.ok(rig.cluster.calls.includes("node-2 importPool"));
    assert.ok(rig.cluster.calls.includes("node-1 onlineChild"));
    assert.ok(!rig.cluster.calls.includes("node-1 addChild"), "no full rebuild");
    await rig.close();
  });

  test("a child whose engine is gone, or just back, before anybody knows keeps its log", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    const { signal } = new AbortController();
    const node2 = rig.cluster.engine("node-2");
    rig.cluster.calls.length = 0;
    node2.kill();
    await rig.cluster.faultStep();
    await rig.agent.nodes.reload("node-1"); // as its engine tells of the change
    assert.equal(rig.core.registry.isOnline("node-2"), true);
    await rig.agent.loop.pass(signal);
    node2.restart();
    await rig.agent.loop.pass(signal);
    const touched = () => rig.cluster.calls.filter((call) => /(remove|online|add)Child/.test(call));
    assert.deepEqual(touched(), []);
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.deepEqual(touched(), ["node-1 onlineChild"]);
    await rig.close();
  });

  test("a child of an engine that does not tell its instance when asked comes back all the same", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    const node2 = rig.cluster.engine("node-2");
    node2.tellsInstance = false;
    node2.kill();
    await rig.cluster.faultStep();
    await rig.settle();
    rig.cluster.calls.length = 0;
    node2.restart();
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.ok(rig.cluster.calls.includes("node-1 onlineChild"));
    await rig.close();
  });

  test("a replica that stays away is replaced on another node", async () => {
    const rig = await rigWithVolume({ nodes: 4 });
    await rig.publish(V1, "node-1");
    const before = Object.values((await rig.volume(V1)).state.replica_topology);
    const lost = before.find((replica) => replica.node !== "node-1")?.node ?? "";
    rig.cluster.engine(lost).kill();
    await rig.cluster.faultStep();
    await rig.settle();
    await rig.clock.advance(601_000);
    await rig.passes(3);
    await rig.clock.advance(31_000);
    await rig.settle();
    const { state } = await rig.volume(V1);
    assert.equal(state.status, "Online");
    const nodes = Object.values(state.replica_topology).map((replica) => replica.node);
    assert.equal(nodes.length, 3);
    assert.ok(!nodes.includes(lost));
    await rig.close();
  });

  test("the target comes back on its node after a crash: from one child, then rebuilt", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    const before = (await rig.volume(V1)).state.target;
    rig.cluster.engine("node-1").kill();
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Unknown");
    rig.cluster.calls.length = 0;
    rig.cluster.engine("node-1").restart();
    await rig.settle();
    const { state } = await rig.volume(V1);
    assert.equal(state.status, "Online");
    assert.equal(state.target?.uuid, before?.uuid);
    assert.equal(state.target?.deviceUri, before?.deviceUri);
    const adds = rig.cluster.calls.filter((made) => made === "node-1 addChild").length;
    assert.equal(adds, 2, "all but one child are rebuilt in full");
    await rig.close();
  });

  test("RepublishVolume moves the target off a dead node, with fresh fencing", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    const before = rig.core.specs.volumes.get(V1).target;
    rig.cluster.engine("node-1").kill();
    await rig.cluster.faultStep();
    await rig.look();
    await call(rig.api, "RepublishVolume", {
      volume: V1,
      protocol: "nvmf",
      reuseExisting: true,
      frontendNode: "",
    });
    const after = rig.core.specs.volumes.get(V1).target;
    assert.ok(before && after);
    assert.notEqual(after.node, "node-1");
    assert.notEqual(after.nexus, before.nexus);
    assert.deepEqual(after.config.controllerIdRange, { start: 513, end: 1024 });
    assert.notEqual(after.config.reservationKey, before.config.reservationKey);
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Degraded");
    rig.cluster.engine("node-1").restart();
    await rig.settle();
    const { state } = await rig.volume(V1);
    assert.equal(state.status, "Online");
    assert.equal(rig.cluster.openNexuses().length, 1, "one writer");
    await rig.close();
  });

  test("UnpublishVolume of a dead node's target needs force", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-1").kill();
    await rig.look();
    const unpublish = (force: boolean) => call(rig.api, "UnpublishVolume", { volume: V1, force });
    await assert.rejects(unpublish(false), { kind: "failed-precondition" });
    const { spec } = await unpublish(true);
    assert.equal(spec.target, undefined);
    await rig.close();
  });

  test("a volume says whom it is published to, also while its target's engine is dead", async () => {
    const rig = await rigWithVolume();
    const request = { volume: V1, protocol: "nvmf" as const, publishContext: {}, node: "node-1" };
    await call(rig.api, "PublishVolume", { ...request, frontendNodes: ["app-1"] });
    rig.cluster.engine("node-1").kill();
    await rig.look();
    const { spec, state } = await rig.volume(V1);
    assert.equal(state.target, undefined);
    assert.deepEqual(spec.target, {
      ...{ node: "node-1", protocol: "nvmf" },
      frontend_nodes: [{ name: "app-1", nqn: "nqn.2019-05.io.openebs:node-name:app-1" }],
    });
    await call(rig.api, "UnpublishVolume", { volume: V1, force: true });
    const open = await rig.publish(V1, "node-2"); // to anybody
    assert.deepEqual(open.spec.target, { node: "node-2", protocol: "nvmf" });
    await rig.close();
  });

  test("publishing again after a clean unpublish uses every healthy replica", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    await call(rig.api, "UnpublishVolume", { volume: V1, force: false });
    const { state } = await rig.publish(V1, "node-3");
    assert.equal(state.target?.children.length, 3);
    assert.equal(state.status, "Online");
    await rig.close();
  });

  test("SetVolumeReplicaCount goes up and down by one and converges", async () => {
    const rig = await rigWithVolume({ replicas: 2, nodes: 4 });
    await rig.publish(V1, "node-1");
    const set = (replicas: number) =>
      call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas });
    await assert.rejects(set(2), { kind: "failed-precondition" });
    await assert.rejects(set(4), { kind: "failed-precondition" });
    await set(3);
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.target?.children.length, 3);
    await set(2);
    await rig.settle();
    const { state, spec } = await rig.volume(V1);
    assert.equal(spec.num_replicas, 2);
    assert.equal(state.target?.children.length, 2);
    assert.equal(Object.keys(state.replica_topology).length, 2);
    await rig.close();
  });

  test("DestroyVolume is accepted while a node is away, and what was left goes when it returns", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-3").kill();
    await rig.look();
    rig.cluster.engine("node-1").reachable = false; // its engine writes the record once more when it can be asked
    await call(rig.api, "DestroyVolume", { volume: V1 });
    await assert.rejects(rig.volume(V1), { kind: "not-found" });
    rig.cluster.engine("node-1").reachable = true;
    rig.cluster.engine("node-3").restart();
    await rig.settle();
    assert.deepEqual(rig.core.specs.replicas.all(), []);
    assert.deepEqual(rig.core.specs.nexuses.all(), []);
    const left = await rig.store.list(
      "/openebs.io/mayastor/apis/v0/clusters/test-cluster/namespaces/mayastor/volume/",
    );
    assert.deepEqual(left, []);
    await rig.close();
  });

  test("DestroyVolume does not take an engine that has not loaded its pool yet for one without the replica", async () => {
    const rig = await rigWithVolume();
    rig.cluster.engine("node-3").restart(); // and nobody noticed so far
    await call(rig.api, "DestroyVolume", { volume: V1 });
    await rig.settle();
    assert.deepEqual(rig.core.registry.replicas(), [], "nothing is left that nobody knows of");
    await rig.close();
  });

  test("a target whose engine was away when it was unpublished is gone once the engine is back", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-1").reachable = false;
    const unpublish = call(rig.api, "UnpublishVolume", { volume: V1, force: false });
    await assert.rejects(unpublish, { kind: "unavailable" });
    rig.cluster.engine("node-1").reachable = true;
    await rig.settle();
    const { spec, state } = await rig.volume(V1);
    assert.equal(spec.target, undefined, "not half published");
    assert.equal(state.status, "Online");
    await rig.publish(V1, "node-1");
    await rig.close();
  });

  test("the replica beside an earlier target that may still be at work is not used", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    const old = rig.cluster.engine("node-1");
    old.reachable = false; // it serves on
    await rig.look();
    await call(rig.api, "UnpublishVolume", { volume: V1, force: true });
    await rig.publish(V1, "node-2");
    old.reachable = true;
    rig.cluster.fault = ({ node, name }) => {
      if (node === "node-1" && name === "destroyNexus") throw refused();
      return "ok";
    };
    await rig.passes(4);
    const lower = (await rig.volume(V1)).state.target?.children ?? [];
    assert.equal(lower.length, 2);
    assert.ok(!lower.some(({ uri }) => uri.includes("10.0.0.1")), "not while the old one is there");
    rig.cluster.fault = () => "ok";
    await rig.settle();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.equal(rig.cluster.openNexuses().length, 1);
    await rig.close();
  });

  test("a switch-over that dies in the middle does not forget that the old target may be at work", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-1").reachable = false;
    await rig.look();
    const request = {
      volume: V1,
      protocol: "nvmf",
      reuseExisting: false,
      frontendNode: "",
    } as const;
    rig.link.arm(null);
    await call(rig.api, "RepublishVolume", request);
    const writes = rig.link.log.filter((made) => made.startsWith("store")).length;
    await rig.close();
    for (let cut = 1; cut <= writes; cut++) {
      const again = await rigWithVolume();
      await again.publish(V1, "node-1");
      again.cluster.engine("node-1").reachable = false;
      await again.look();
      again.link.arm({ call: cut, when: "after" });
      await call(again.api, "RepublishVolume", request).catch(() => {}); // the crash
      again.crashAgent();
      await again.startAgent();
      for (const nexus of again.core.specs.nexuses.all()) {
        const shut = JSON.stringify(nexus.spec_status).includes("Shutdown");
        if (!shut || nexus.node !== "node-1") continue;
        assert.equal(nexus.status_info.shutdown_failed, true, `cut after call ${cut}`);
      }
      await again.close();
    }
  });

  test("a new target does not serve from a replica that the earlier one went on without meanwhile", async () => {
    const rig = await rigWithVolume();
    const { state } = await rig.publish(V1, "node-1");
    const { cluster } = rig;
    const [old, next] = [cluster.engine("node-1"), cluster.engine("node-2")];
    old.reachable = false; // it serves on, and its client does not stop
    await rig.look();
    cluster.meanwhile = async ({ node, name }) => {
      if (node !== "node-2" || name !== "createNexus") return;
      cluster.meanwhile = async () => {};
      next.linked = false; // for a moment only
      const done = await cluster.write(old, state.target?.uuid ?? "", { block: 1, value: 7 });
      assert.equal(done, true, "acknowledged without the replica on node-2");
      next.linked = true;
    };
    const request = {
      volume: V1,
      node: "node-2",
      protocol: "nvmf",
      reuseExisting: false,
      frontendNode: "",
    } as const;
    await assert.rejects(call(rig.api, "RepublishVolume", request), { kind: "unavailable" });
    await call(rig.api, "RepublishVolume", request);
    const check = async (count: number) => {
      const children = (await rig.volume(V1)).state.target?.children ?? [];
      const online = children.filter((child) => child.state === "Online");
      assert.equal(online.length, count);
      for (const { uri } of online) {
        assert.equal(cluster.data.read(replicaOfUri(uri) ?? "")[1], 7, `${uri} has the write`);
      }
    };
    await check(1);
    old.reachable = true;
    await rig.settle();
    await check(3);
    await rig.close();
  });

  test("an earlier target that nobody can reach acknowledges nothing without the new one's replica", async () => {
    // It loses the other replicas' nodes and its client writes: right before the new target serves, or afterwards.
    for (const when of ["before", "after"] as const) {
      const rig = await rigWithVolume();
      const { state } = await rig.publish(V1, "node-1");
      const { cluster } = rig;
      const old = cluster.engine("node-1");
      old.reachable = false;
      await rig.look();
      const lose = async () => {
        old.linked = false;
        const done = await cluster.write(old, state.target?.uuid ?? "", { block: 1, value: 7 });
        assert.equal(done, false, `${when}: the new target's replica does not have it`);
      };
      cluster.meanwhile = async ({ node, name }) => {
        if (when === "before" && node === "node-2" && name === "shareNexus") await lose();
      };
      await call(rig.api, "RepublishVolume", REPUBLISH);
      if (when === "after") await lose();
      assert.deepEqual(cluster.nexusesOn(old)[0]?.status, "Shutdown");
      Object.assign(old, { reachable: true, linked: true });
      await rig.settle();
      const after = await rig.volume(V1);
      assert.equal(after.state.status, "Online");
      for (const { uri } of after.state.target?.children ?? []) {
        assert.equal(cluster.data.read(replicaOfUri(uri) ?? "")[1], 0);
      }
      assert.deepEqual(await nexusInfos(rig), [after.state.target?.uuid], "no other record stays");
      await rig.close();
    }
  });

  test("what the earlier target records right before its record is fenced is judged too", async () => {
    const rig = await rigWithVolume({ nodes: 4 });
    const { state } = await rig.volume(V1);
    const nodes = Object.values(state.replica_topology).flatMap(({ node }) => node ?? []);
    const [home = "", ...others] = nodes.sort();
    const free = rig.cluster.engines.find(({ node }) => !nodes.includes(node))?.node ?? "";
    const { cluster, link } = rig;
    const uuid = (await rig.publish(V1, home)).state.target?.uuid ?? "";
    cluster.engine(home).reachable = false;
    await rig.look();
    const lost: string[] = [];
    link.meanwhile = async (name, args) => {
      if (name !== "store txn" || !encodeJson(args).includes("fenced_by")) return;
      const [used] = cluster.nexusesOn(cluster.engine(free))[0]?.children ?? [];
      const holds = (node: string) =>
        cluster.engine(node).replica(replicaOfUri(used?.uri ?? "") ?? "") !== undefined;
      // First a replica that the new target does not use, then the one that it does.
      const node = others.find(
        (other) => !lost.includes(other) && holds(other) === lost.length > 0,
      );
      assert.ok(node !== undefined);
      lost.push(node);
      cluster.engine(node).linked = false;
      await cluster.faultStep();
    };
    const move = call(rig.api, "RepublishVolume", { ...REPUBLISH, node: free });
    await assert.rejects(move, { kind: "unavailable", message: /went on without replica/ });
    assert.equal(lost.length, 2, "refused, judged anew, asked again");
    const info = await nexusInfoOf(rig.core, { volume: V1, nexus: uuid });
    assert.ok(info && info.fenced_by === undefined, "it goes on as it is");
    assert.equal(info.children.filter((child) => child.healthy).length, 1);
    await rig.close();
  });

  test("a target whose move failed after its record was fenced serves again", async () => {
    for (const alive of [true, false]) {
      const rig = await rigWithVolume();
      const { state } = await rig.publish(V1, "node-1");
      const { cluster } = rig;
      const old = cluster.engine("node-1");
      old.reachable = false;
      await rig.look();
      cluster.fault = ({ name }) => {
        if (name === "shareNexus") throw refused();
        return "ok";
      };
      await assert.rejects(call(rig.api, "RepublishVolume", REPUBLISH), { name: "refused" });
      const uuid = state.target?.uuid ?? "";
      const info = await nexusInfoOf(rig.core, { volume: V1, nexus: uuid });
      assert.ok(info?.fenced_by !== undefined && info.fenced_by !== uuid);
      assert.deepEqual(
        info.children.map((child) => child.healthy),
        [true, true, true],
      );
      cluster.fault = () => "ok";
      old.reachable = true;
      if (!alive) old.restart();
      await rig.settle();
      const after = await rig.volume(V1);
      assert.equal(after.state.target?.uuid, uuid);
      assert.equal(after.state.status, "Online");
      assert.equal(cluster.openNexuses().length, 1);
      const again = await nexusInfoOf(rig.core, { volume: V1, nexus: uuid });
      assert.equal(again?.fenced_by, undefined, "it keeps its own record again");
      cluster.engine("node-3").kill();
      await cluster.faultStep();
      assert.equal(
        await cluster.write(old, uuid, { block: 1, value: 7 }),
        true,
        "and may lose one",
      );
      await rig.close();
    }
  });

  test("a target is made again from what it recorded until it was gone, not until it was asked to go", async () => {
    const rig = await rigWithVolume();
    const { state } = await rig.publish(V1, "node-1");
    const { cluster } = rig;
    const old = cluster.engine("node-1");
    const uuid = state.target?.uuid ?? "";
    // A move that stopped halfway: the nexus counts as shut down but serves on.
    await rig.core.specs.nexuses.update(uuid, (spec) => ({
      ...spec,
      spec_status: { Created: "Shutdown" },
      status_info: { shutdown_failed: false },
    }));
    cluster.meanwhile = async ({ name }) => {
      if (name !== "destroyNexus") return;
      cluster.meanwhile = async () => {};
      const pool = old.pools.get("pool-1");
      assert.ok(pool);
      old.pools.delete("pool-1"); // its own disk goes away, and its client writes
      assert.equal(await cluster.write(old, uuid, { block: 1, value: 7 }), true);
      old.pools.set("pool-1", pool);
    };
    await rig.settle();
    const after = await rig.volume(V1);
    assert.equal(after.state.status, "Online");
    for (const { uri } of after.state.target?.children ?? []) {
      assert.equal(cluster.data.read(replicaOfUri(uri) ?? "")[1], 7, `${uri} has the write`);
    }
    await rig.close();
  });

  test("no replica is given up while the target that may need it cannot be seen", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-1").reachable = false; // it serves on, perhaps from its own replica alone
    await rig.look();
    const fewer = call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas: 2 });
    await assert.rejects(fewer, { kind: "failed-precondition" });
    await rig.core.specs.volumes.update(V1, (spec) => ({ ...spec, num_replicas: 2 }));
    await rig.passes(3);
    assert.equal(rig.core.specs.replicas.all().length, 3);
    await rig.close();
  });

  test("clean-up after a switch-over spares the present target, even one that was shut down", async () => {
    const rig = await rigWithVolume({ replicas: 1 });
    const { state } = await rig.publish(V1, "node-1");
    const nexus = state.target?.uuid ?? "";
    await rig.core.specs.nexuses.update(nexus, (spec) => ({
      ...spec,
      spec_status: { Created: "Shutdown" },
    }));
    await call(rig.api, "ShutdownVolumeTargets", { volume: V1 });
    await rig.settle();
    const after = await rig.volume(V1);
    assert.equal(after.state.target?.uuid, nexus);
    assert.equal(after.state.status, "Online");
    await rig.close();
  });

  test("CreateVolume leaves nothing behind when there is no room", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    await assert.rejects(rig.createVolume(V1, { replicas: 3 }), { kind: "resource-exhausted" });
    assert.deepEqual(rig.core.specs.volumes.all(), []);
    await rig.createVolume(V1, { replicas: 2 });
    await assert.rejects(rig.createVolume(V1, { replicas: 2 }), { kind: "already-exists" });
    await rig.close();
  });

  test("CreateVolume rolls back when an engine refuses its part", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    rig.cluster.fault = ({ node, name }) => {
      if (node === "node-2" && name === "createReplica") throw refused();
      return "ok";
    };
    await assert.rejects(rig.createVolume(V1, { replicas: 2 }), { kind: "failed-precondition" });
    assert.deepEqual(rig.core.specs.volumes.all(), []);
    assert.deepEqual(rig.core.registry.replicas(), []);
    await rig.close();
  });

  test("a volume that lost every replica gets new ones only when it never served", async () => {
    const rig = await rigWithVolume({ replicas: 1 });
    const lose = async () => {
      for (const { uuid } of rig.core.specs.replicas.all())
        await rig.core.specs.replicas.remove(uuid);
      await rig.settle();
    };
    await lose();
    assert.equal((await rig.volume(V1)).state.status, "Online");
    assert.equal(rig.core.specs.replicas.all().length, 1);
    await rig.publish(V1);
    await call(rig.api, "UnpublishVolume", { volume: V1, force: false });
    await lose();
    assert.equal(
      (await rig.volume(V1)).state.status,
      "Faulted",
      "empty ones would pass for its data",
    );
    await rig.close();
  });

  test("a drained node keeps its replicas and loses its targets", async () => {
    const rig = await rigWithVolume();
    await rig.publish(V1, "node-1");
    await call(rig.api, "DrainNode", { node: "node-1", label: "maintenance" });
    await rig.passes(3);
    await rig.clock.advance(121_000);
    await rig.settle();
    const { state, spec } = await rig.volume(V1);
    assert.notEqual(spec.target?.node, "node-1");
    assert.equal(state.status, "Online");
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.deepEqual(node.spec?.cordondrainstate, {
      drainedstate: { cordonlabels: [], drainlabels: ["maintenance"] },
    });
    assert.equal(rig.core.registry.replicas("node-1").length, 1);
    await rig.close();
  });
});

/** The nexuses that the volume's records in the store are of. */
async function nexusInfos(rig: Rig): Promise<string[]> {
  const entries = await rig.store.list(rig.core.keys.nexusInfosOf(V1));
  return entries.map(({ key }) => key.split("/").at(-2) ?? "");
}

function refused(): Error {
  return Object.assign(new Error("refused"), { name: "refused" });
}

test("unpublishing that is refused for a node that is gone is not carried out when it is back", async () => {
  const rig = await Rig.start();
  try {
    await rig.createPools();
    await rig.createVolume(V1);
    await rig.publish(V1, "node-1");
    const engine = rig.cluster.engine("node-1");
    engine.reachable = false;
    await rig.look();
    await assert.rejects(call(rig.api, "UnpublishVolume", { volume: V1, force: false }), (error) =>
      isKind(error, "failed-precondition"),
    );
    engine.reachable = true;
    await rig.settle();
    const { spec, state } = await rig.volume(V1);
    assert.equal(spec.target?.node, "node-1");
    assert.equal(state.status, "Online");
  } finally {
    await rig.close();
  }
});
