/** What becomes of targets that were left behind, and where a target is made when somebody asks for a node. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isKind } from "#common/errors.ts";
import { stayMs } from "../reconcile/old_targets.ts";
import { call, PLACE, Rig } from "../testing/rig.ts";

const V1 = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a11";
const V2 = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a12";
const RAW = "7f2a54b6-53de-4a5e-a0c5-0f2d6fd1a001";
const LATE = "7f2a54b6-53de-4a5e-a0c5-0f2d6fd1a002";

async function withVolume(work: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await Rig.start();
  try {
    await rig.createPools();
    await rig.createVolume(V1, { replicas: 2 });
    await work(rig);
  } finally {
    await rig.close();
  }
}

const republish = (rig: Rig, node?: string, reuseExisting = false) =>
  call(rig.api, "RepublishVolume", {
    ...{ volume: V1, protocol: "nvmf", reuseExisting, frontendNode: "" },
    ...(node === undefined ? {} : { node }),
  });
const unpublish = (rig: Rig, force = false) =>
  call(rig.api, "UnpublishVolume", { volume: V1, force });
const targetsOn = (rig: Rig, node: string) => [...rig.cluster.engine(node).nexuses.keys()];
const nodeOf = async (rig: Rig) => (await rig.volume(V1)).state.target?.node;

/** The volume's target is on node-1, which then is away; it is moved to node-2. Answers the old target. */
async function leaveBehind(rig: Rig): Promise<string> {
  const { state } = await rig.publish(V1, "node-1");
  rig.cluster.engine("node-1").reachable = false;
  await rig.look();
  await republish(rig, "node-2");
  return state.target?.uuid ?? "";
}

async function returns(rig: Rig, node = "node-1"): Promise<void> {
  rig.cluster.engine(node).reachable = true;
  await rig.clock.advance(2_000); // whoever pauses after a failure tries again
  await rig.settle();
}

describe("a target that was left behind", () => {
  test("by a move goes when its node is back, and its node can have the target again", () =>
    withVolume(async (rig) => {
      const old = await leaveBehind(rig);
      assert.deepEqual(targetsOn(rig, "node-1"), [old]);
      await returns(rig);
      assert.deepEqual(targetsOn(rig, "node-1"), []);
      assert.equal(rig.core.specs.nexuses.find(old), undefined);
      assert.equal(await nodeOf(rig), "node-2");
      await republish(rig, "node-1");
      assert.equal(await nodeOf(rig), "node-1");
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-2"), [], "both nodes were there: it is no other case");
      assert.equal((await rig.volume(V1)).state.status, "Online");
    }));

  test("goes also when the volume was unpublished or destroyed meanwhile, and after agent-core began anew", () =>
    withVolume(async (rig) => {
      await leaveBehind(rig);
      await unpublish(rig);
      rig.crashAgent();
      await rig.startAgent();
      await returns(rig);
      assert.deepEqual(targetsOn(rig, "node-1"), []);
      await leaveBehind(rig);
      await call(rig.api, "DestroyVolume", { volume: V1 });
      await returns(rig);
      assert.deepEqual(rig.core.specs.nexuses.all(), []);
      for (const { nexuses, node } of rig.cluster.engines) assert.equal(nexuses.size, 0, node);
    }));

  test("keeps its hosts while they may be on their way to the next one, but not for ever", () =>
    withVolume(async (rig) => {
      const old = await leaveBehind(rig);
      rig.cluster.engine("node-1").hosts.set(old, 1);
      await returns(rig);
      assert.deepEqual(targetsOn(rig, "node-1"), [old]);
      await rig.clock.advance(27_000);
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-1"), [old]);
      await rig.clock.advance(3_000);
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-1"), []);
    }));

  test("of an earlier publication loses its hosts at once", () =>
    withVolume(async (rig) => {
      const old = await leaveBehind(rig);
      await unpublish(rig); // nobody saw how its hosts left
      await rig.publish(V1, "node-3");
      rig.cluster.engine("node-1").hosts.set(old, 1);
      await returns(rig);
      assert.deepEqual(targetsOn(rig, "node-1"), []);
      assert.equal(await nodeOf(rig), "node-3");
    }));

  test("is shut down first, and stays when its node goes again before that is known", () =>
    withVolume(async (rig) => {
      const old = await leaveBehind(rig);
      assert.equal(rig.core.specs.nexuses.get(old).status_info.shutdown_failed, true);
      const before = rig.cluster.calls.length;
      await returns(rig);
      const calls = rig.cluster.calls.slice(before).filter((name) => name.endsWith("Nexus"));
      assert.deepEqual(calls, ["node-1 shutdownNexus", "node-1 destroyNexus"]);
    }));

  test("makes way at once when a target is wished on its node before it was cleaned up", () =>
    withVolume(async (rig) => {
      const old = await leaveBehind(rig);
      rig.cluster.engine("node-1").reachable = true;
      await rig.look();
      await republish(rig, "node-1");
      assert.equal(await nodeOf(rig), "node-1");
      assert.equal(targetsOn(rig, "node-1").includes(old), false);
      await rig.settle();
      assert.equal((await rig.volume(V1)).state.status, "Online");
    }));
});

describe("a target without a spec", () => {
  const name = `${V1}:3`;
  const infoKey = `/openebs.io/mayastor/apis/v0/clusters/${PLACE.clusterUid}/namespaces/${PLACE.namespace}/volume/${V1}/nexus/${LATE}/info`;
  const make = async (rig: Rig, over: { uuid: string; name: string; infoKey: string }) => {
    const { nodes } = rig.agent;
    const [replica] = rig.core.registry.replicas("node-3");
    assert.ok(replica);
    const { endpoint } = rig.cluster.engine("node-3");
    await rig.cluster.connect({ node: "node-3", endpoint }).createNexus({
      ...{ size: 2 ** 20, children: [replica.uri], config: null },
      ...over,
    });
    await nodes.reload("node-3");
  };
  const rigOf = (work: (rig: Rig) => Promise<void>) =>
    withVolume(async (rig) => {
      await rig.createVolume(V2, { replicas: 3 });
      await work(rig);
    });

  test("that was made for a volume goes after a while, whether or not the volume is still there", () =>
    rigOf(async (rig) => {
      for (const isThere of [true, false]) {
        if (!isThere) await call(rig.api, "DestroyVolume", { volume: V1 });
        await make(rig, { uuid: LATE, name, infoKey });
        await rig.settle();
        assert.deepEqual(targetsOn(rig, "node-3"), [LATE], "its spec may be about to come");
        await rig.clock.advance(30_000);
        await rig.settle();
        assert.deepEqual(targetsOn(rig, "node-3"), []);
      }
    }));

  test("that a person made stays, whatever it is called", () =>
    rigOf(async (rig) => {
      const named = [
        { uuid: RAW, name: "by-hand", infoKey: "" },
        { uuid: RAW, name: RAW, infoKey: "" },
        { uuid: RAW, name, infoKey: "" },
        { uuid: RAW, name, infoKey: "/somebody/else" },
      ];
      for (const one of named) {
        await make(rig, one);
        for (let round = 0; round < 3; round++) {
          await rig.clock.advance(60_000);
          await rig.settle();
        }
        assert.deepEqual(targetsOn(rig, "node-3"), [RAW], JSON.stringify(one));
        rig.cluster.engine("node-3").nexuses.delete(RAW);
        await rig.settle();
      }
      const [replica] = rig.core.registry.replicas("node-3");
      await call(rig.api, "CreateNexus", {
        ...{ node: "node-3", nexus: RAW, size: 2 ** 20, children: [replica?.uri ?? ""] },
      });
      await rig.clock.advance(600_000);
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-3"), [RAW], "by the nexus API");
    }));

  test("of an engine that tells nothing more is known by its record alone", () =>
    rigOf(async (rig) => {
      rig.cluster.engine("node-3").tellsMore = false;
      await make(rig, { uuid: RAW, name, infoKey: "" });
      await rig.clock.advance(60_000);
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-3"), [RAW]);
      rig.cluster.engine("node-3").nexuses.clear();
      await make(rig, { uuid: LATE, name, infoKey });
      await rig.clock.advance(60_000);
      await rig.settle();
      await rig.clock.advance(60_000);
      await rig.settle();
      assert.deepEqual(targetsOn(rig, "node-3"), []);
      assert.equal(await rig.store.get(infoKey), null);
    }));

  test("makes way at once for one that is wished there", () =>
    rigOf(async (rig) => {
      await make(rig, { uuid: LATE, name: V1, infoKey });
      await rig.publish(V1, "node-3");
      assert.equal(await nodeOf(rig), "node-3");
      assert.equal(targetsOn(rig, "node-3").includes(LATE), false);
    }));
});

describe("a wish for a node", () => {
  const refused = (promise: Promise<unknown>, kind: "failed-precondition" | "not-found") =>
    assert.rejects(promise, (error) => isKind(error, kind));

  test("is obeyed or refused by a move, which then changes nothing", () =>
    withVolume(async (rig) => {
      const { state } = await rig.publish(V1, "node-1");
      const present = state.target?.uuid;
      await refused(republish(rig, "node-1"), "failed-precondition");
      await refused(republish(rig, "node-9"), "not-found");
      rig.cluster.engine("node-2").kill();
      await rig.look();
      await refused(republish(rig, "node-2"), "failed-precondition");
      await refused(republish(rig, "node-2", true), "failed-precondition");
      assert.equal((await rig.volume(V1)).state.target?.uuid, present);
      await republish(rig, "node-1", true);
      assert.equal((await rig.volume(V1)).state.target?.uuid, present, "it is there and works");
      for (const node of ["node-3", "node-1", "node-3", "node-1"]) {
        await republish(rig, node, true);
        assert.equal(await nodeOf(rig), node);
      }
    }));

  test("is refused where the target is and cannot be revived", () =>
    withVolume(async (rig) => {
      await rig.publish(V1, "node-1");
      rig.cluster.engine("node-1").reachable = false;
      await rig.look();
      await refused(republish(rig, "node-1", true), "failed-precondition");
      assert.equal(rig.core.specs.volumes.get(V1).target?.node, "node-1");
      await republish(rig, undefined, true);
      assert.notEqual(await nodeOf(rig), "node-1", "without a wish any will do");
    }));

  test("counts inside an affinity group too; who uses the volume there is a preference", async () => {
    const rig = await Rig.start();
    try {
      await rig.createPools();
      const volumes = [V1, V2, RAW];
      for (const volume of volumes) {
        const body = { policy: { self_heal: true }, replicas: 2, size: 2 ** 28, thin: false };
        await call(rig.api, "CreateVolume", {
          ...{ volume, body: { ...body, affinity_group: { id: "group" } } },
        });
      }
      const publish = (volume: string, node: string | undefined, host: string) =>
        call(rig.api, "PublishVolume", {
          ...{ volume, protocol: "nvmf", publishContext: {}, frontendNodes: [host] },
          ...(node === undefined ? {} : { node }),
        }).then(({ state }) => state.target?.node);
      assert.equal(await publish(V1, "node-3", "app"), "node-3");
      assert.equal(await publish(V2, "node-3", "app"), "node-3");
      await unpublish(rig);
      assert.equal(await publish(V1, undefined, "node-2"), "node-2");
      assert.equal(await publish(RAW, undefined, "node-2"), "node-1", "spread before local");
    } finally {
      await rig.close();
    }
  });
});

test("stayMs(): how long an old target stays", () => {
  const base = { present: "v", name: "v", hosts: 1, ageMs: 0 };
  assert.equal(stayMs(base), 30_000);
  assert.equal(stayMs({ ...base, ageMs: 29_999 }), 1);
  assert.equal(stayMs({ ...base, ageMs: 30_000 }), 0);
  assert.equal(stayMs({ ...base, hosts: 0 }), 0);
  assert.equal(stayMs({ ...base, hosts: null }), 120_000);
  assert.equal(stayMs({ ...base, present: null }), 0);
  assert.equal(stayMs({ ...base, present: "v:1" }), 0);
  assert.equal(stayMs({ ...base, present: "v:1", hosts: null }), 0);
});
