/** Nodes: registration, watchdog, restarts; and what agent-core takes over from release 1.0 at its start. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { storeKeys } from "#common/store/keys.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import { call, PLACE, Rig } from "../testing/rig.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const NEXUS = "069feb5e-ec65-4e97-b094-99262dfc9f44";

/** Runs the node service's own loop while time passes. */
async function during(rig: Rig, ms: number): Promise<void> {
  const stop = new AbortController();
  const running = rig.agent.nodes.run(stop.signal);
  await rig.clock.advance(ms);
  stop.abort();
  await running;
}

describe("NodeService", () => {
  test("a registered node is Online, known with its host NQN, and persisted", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.deepEqual(node, {
      id: "node-1",
      spec: {
        grpcEndpoint: "10.0.0.1:10124",
        id: "node-1",
        node_nqn: "nqn.2019-05.io.openebs:node-name:node-1",
      },
      state: {
        grpcEndpoint: "10.0.0.1:10124",
        id: "node-1",
        status: "Online",
        node_nqn: "nqn.2019-05.io.openebs:node-name:node-1",
      },
    });
    assert.ok(await rig.store.get(storeKeys(PLACE).object("NodeSpec", "node-1")));
    await rig.close();
  });

  test("a silent node that answers a probe stays Online; one that does not goes Offline", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    rig.cluster.engine("node-2").kill();
    await during(rig, 15_000);
    const status = async (node: string) => (await call(rig.api, "GetNode", { node })).state?.status;
    assert.equal(await status("node-1"), "Online");
    assert.equal(await status("node-2"), "Offline");
    assert.deepEqual(rig.core.registry.pools("node-2"), [], "what it had is not known any more");
    await rig.close();
  });

  test("an answer that comes after its node went Offline is not taken", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    let answer = (): void => {};
    const slow = new Promise<void>((resolve) => {
      answer = resolve;
    });
    rig.cluster.meanwhile = ({ node, name }) =>
      node === "node-2" && name === "load" ? slow : Promise.resolve();
    const reading = rig.agent.nodes.reload("node-2");
    rig.core.registry.setGone("node-2", "Offline");
    answer();
    assert.equal(await reading, false);
    assert.deepEqual(rig.core.registry.pools("node-2"), []);
    await rig.look();
    assert.equal(rig.core.registry.pools("node-2").length, 1, "it registered again");
    await rig.close();
  });

  test("Deregister makes it Unknown at once", async () => {
    const rig = await Rig.start({ nodes: 1 });
    await rig.agent.nodes.deregister("node-1");
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.equal(node.state?.status, "Unknown");
    await rig.close();
  });

  test("a new instance uuid means a restart: everything is read again", async () => {
    const rig = await Rig.start({ nodes: 1 });
    await rig.createPools();
    assert.equal(rig.core.registry.pools().length, 1);
    rig.cluster.engine("node-1").restart();
    await rig.registerAll();
    assert.deepEqual(rig.core.registry.pools(), [], "the fresh engine has loaded none yet");
    await rig.settle();
    assert.equal(rig.core.registry.pools().length, 1, "imported again");
    await rig.close();
  });

  test("a restarted engine is dialled anew: the old connection may be in a pause after a failure", async () => {
    const dialled: string[] = [];
    const rig = await Rig.start({ nodes: 2, onDial: (node) => dialled.push(node) });
    rig.cluster.engine("node-1").restart();
    dialled.length = 0;
    await rig.registerAll();
    assert.equal(dialled.at(-1), "node-1");
    await rig.close();
  });

  test("an engine that cannot be read when it registers is tried again before its next word", async () => {
    const rig = await Rig.start({ nodes: 1 });
    rig.cluster.engine("node-1").restart();
    rig.cluster.fault = ({ name }) => (name === "load" ? "lost" : "ok");
    await rig.registerAll();
    assert.equal(rig.core.registry.isOnline("node-1"), false);
    rig.cluster.fault = () => "ok";
    await rig.clock.advance(300);
    assert.equal(rig.core.registry.isOnline("node-1"), true);
    await rig.close();
  });

  test("news of a change is read for at once, however often it comes once or twice", async () => {
    const rig = await Rig.start({ nodes: 3 });
    await rig.createPools();
    await rig.createVolume(V1, { replicas: 3 });
    await rig.publish(V1, "node-1");
    rig.cluster.engine("node-2").kill();
    await rig.cluster.faultStep();
    rig.cluster.calls.length = 0;
    const news = Array.from({ length: 10 }, () => rig.register("node-1", { changed: true }));
    await Promise.all(news);
    await rig.clock.advance(10);
    assert.equal((await rig.volume(V1)).state.status, "Degraded");
    const loads = rig.cluster.calls.filter((made) => made === "node-1 load").length;
    assert.ok(loads >= 1 && loads <= 2, `${loads} reads`);
    await rig.close();
  });

  test("a registration does not undo a cordon that is just being written", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const { store } = rig;
    const cordon = call(rig.api, "CordonNode", { node: "node-1", label: "x" });
    const register = rig.agent.nodes.register({
      id: "node-1",
      endpoint: rig.cluster.engine("node-1").endpoint,
      instanceUuid: null,
      hostNqn: "nqn.2019-05.io.openebs:node-name:other",
    });
    await Promise.all([cordon, register]);
    const stored = await store.get(storeKeys(PLACE).object("NodeSpec", "node-1"));
    assert.match(stored?.value ?? "", /"cordonlabels":\["x"\]/);
    assert.match(stored?.value ?? "", /node-name:other/);
    await rig.close();
  });

  test("refuses a registration without a proper endpoint", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const bad = { id: "x", endpoint: "nowhere", instanceUuid: null, hostNqn: null };
    await assert.rejects(rig.agent.nodes.register(bad), { kind: "invalid-argument" });
    await rig.close();
  });

  test("a cordoned node gets no new pool and no new replica", async () => {
    const rig = await Rig.start({ nodes: 2 });
    await rig.createPools();
    await call(rig.api, "CordonNode", { node: "node-2", label: "x" });
    await assert.rejects(rig.createVolume(V1, { replicas: 2 }), { kind: "resource-exhausted" });
    const create = { node: "node-2", pool: "more", disks: ["/dev/sdc"] };
    await assert.rejects(call(rig.api, "CreatePool", create), { kind: "failed-precondition" });
    await call(rig.api, "UncordonNode", { node: "node-2", label: "x" });
    await rig.createVolume(V1, { replicas: 2 });
    await rig.close();
  });
});

describe("pools", () => {
  test("are created once, refused with anything but one disk, and kept while in use", async () => {
    const rig = await Rig.start({ nodes: 1 });
    const create = (disks: string[]) =>
      call(rig.api, "CreatePool", { node: "node-1", pool: "p", disks });
    await assert.rejects(create([]), { kind: "invalid-argument" });
    await assert.rejects(create(["/bad"]), { kind: "invalid-argument" });
    const pool = await create(["/dev/sdb"]);
    assert.equal(pool.state?.status, "Online");
    await assert.rejects(create(["/dev/sdb"]), { kind: "already-exists" });
    await rig.createVolume(V1, { replicas: 1 });
    const destroy = () => call(rig.api, "DestroyPool", { pool: "p" });
    await assert.rejects(destroy(), { kind: "in-use" });
    await call(rig.api, "DestroyVolume", { volume: V1 });
    await destroy();
    await assert.rejects(destroy(), { kind: "not-found" });
    await rig.close();
  });

  test("and what else is made under an id that no key may have is refused before anything is written", async () => {
    const rig = await Rig.start({ nodes: 1 });
    await rig.createPools();
    const before = (await rig.store.list("")).map((entry) => entry.key);
    const [volume, size] = [V1.toUpperCase(), 2 ** 28];
    await assert.rejects(rig.createVolume(volume, { replicas: 1 }), { kind: "invalid-argument" });
    const replica = { pool: "pool-1", replica: volume, size, thin: false, allowedHosts: [] };
    await assert.rejects(call(rig.api, "CreateReplica", replica), { kind: "invalid-argument" });
    const nexus = { node: "node-1", nexus: volume, children: ["malloc:///x"], size };
    await assert.rejects(call(rig.api, "CreateNexus", nexus), { kind: "invalid-argument" });
    for (const pool of ["a/b", "a b", ""]) {
      const create = call(rig.api, "CreatePool", { node: "node-1", pool, disks: ["/dev/sdc"] });
      await assert.rejects(create, { kind: "invalid-argument" });
    }
    assert.deepEqual(
      (await rig.store.list("")).map((entry) => entry.key),
      before,
    );
    rig.crashAgent();
    await rig.startAgent();
    await rig.close();
  });

  test("a pool whose creation got no answer is found again when asked for again", async () => {
    const rig = await Rig.start({ nodes: 1 });
    rig.cluster.fault = ({ name }) => (name === "createPool" ? "lost" : "ok");
    const request = { node: "node-1", pool: "p", disks: ["/dev/sdb"] };
    await assert.rejects(call(rig.api, "CreatePool", request), { kind: "unavailable" });
    rig.cluster.fault = () => "ok";
    await rig.settle();
    assert.equal(rig.cluster.engine("node-1").pools.size, 1, "and was not wiped meanwhile");
    assert.equal((await call(rig.api, "CreatePool", request)).spec?.status, "Created");
    await rig.close();
  });
});

describe("two pools of one name", () => {
  test("the one without a spec does not stand for the other", async () => {
    const rig = await Rig.start({ nodes: 3 });
    const { endpoint, node } = rig.cluster.engine("node-1");
    await rig.cluster.connect({ node, endpoint }).createPool({ id: "p", disks: ["/dev/sdb"] });
    await rig.look();
    await call(rig.api, "CreatePool", { node: "node-2", pool: "p", disks: ["/dev/sdb"] });
    assert.equal((await call(rig.api, "GetPool", { pool: "p" })).state?.node, "node-2");
    const two = rig.createVolume(V1, { replicas: 2 });
    await assert.rejects(two, { kind: "resource-exhausted" }, "one pool cannot take both replicas");
    await call(rig.api, "CreatePool", { node: "node-3", pool: "q", disks: ["/dev/sdb"] });
    await rig.createVolume(V1, { replicas: 2 });
    const nodes = rig.core.registry.replicas().map((replica) => replica.node);
    assert.deepEqual(nodes.sort(), ["node-2", "node-3"]);
    rig.cluster.engine("node-2").restart();
    await rig.settle();
    assert.ok(rig.core.registry.pool("p", "node-2"), "imported again");
    assert.equal(rig.core.registry.replicas().length, 2);
    await rig.close();
  });
});

describe("a store written by release 1.0", () => {
  const legacy = "/namespace/mayastor/control-plane";
  const pool = `{"node":"node-1","id":"p","disks":["/dev/sdb"],"status":{"Created":"Online"},"labels":{"openebs.io/created-by":"msp-operator"},"operation":null}`;
  const volume = (target: string) =>
    `{"uuid":"${V1}","size":1,"labels":null,"num_replicas":1,"status":{"Created":"Online"},"policy":{"self_heal":true},"topology":null,"last_nexus_id":null,"operation":null,"target":${target}}`;

  test("is taken over under the new keys, with the operator's new label", async () => {
    const prepare = (empty: ObjectStore) => empty.put(`${legacy}/PoolSpec/p`, pool);
    const rig = await Rig.start({ nodes: 1, prepare });
    const { store } = rig;
    assert.deepEqual(rig.core.specs.pools.get("p").labels, {
      "openebs.io/created-by": "operator-diskpool",
    });
    assert.deepEqual(await store.list(`${legacy}/`), []);
    await rig.close();
  });

  test("keeps its NexusInfo readable until no volume needs it", async () => {
    const target = `{"node":"node-1","nexus":"${NEXUS}","protocol":"nvmf","active":true}`;
    const prepare = async (empty: ObjectStore) => {
      await empty.put(`${legacy}/VolumeSpec/${V1}`, volume(target));
      await empty.put(NEXUS, `{"children":[],"clean_shutdown":true}`);
    };
    const rig = await Rig.start({ nodes: 1, prepare });
    const { store } = rig;
    assert.equal(rig.core.legacy, true);
    assert.ok(await store.get(NEXUS));
    await store.put(storeKeys(PLACE).nexusInfo(V1, NEXUS), `{"children":[],"clean_shutdown":true}`);
    rig.crashAgent();
    await rig.startAgent();
    assert.equal(rig.core.legacy, false);
    assert.equal(await store.get(NEXUS), null);
    await rig.close();
  });

  for (const [how, target, last] of [
    ["last_nexus_id", "null", `"${NEXUS}"`],
    [
      "an inactive target",
      `{"node":"node-1","nexus":"${NEXUS}","protocol":null,"active":false}`,
      "null",
    ],
  ] as const) {
    test(`keeps what the last nexus of an unpublished volume knew, named by ${how}`, async () => {
      const [good, bad] = [
        "11111111-1111-4111-8111-111111111111",
        "22222222-2222-4222-8222-222222222222",
      ];
      const replica = (uuid: string, on: string) =>
        `{"name":"${uuid}","uuid":"${uuid}","size":1,"pool":"${on}","share":"none","thin":false,"status":{"Created":"online"},"managed":true,"owners":{"volume":"${V1}"},"operation":null}`;
      const info = `{"children":[{"healthy":true,"uuid":"${good}"},{"healthy":false,"uuid":"${bad}"}],"clean_shutdown":true}`;
      const rig = await Rig.start({
        nodes: 2,
        prepare: async (empty) => {
          const spec = volume(target)
            .replace(`"num_replicas":1`, `"num_replicas":2`)
            .replace(`"last_nexus_id":null`, `"last_nexus_id":${last}`);
          await empty.put(`${legacy}/VolumeSpec/${V1}`, spec);
          await empty.put(`${legacy}/ReplicaSpec/${good}`, replica(good, "pool-1"));
          await empty.put(`${legacy}/ReplicaSpec/${bad}`, replica(bad, "pool-2"));
          await empty.put(NEXUS, info);
        },
      });
      const { store, core, cluster } = rig;
      assert.equal(core.legacy, false);
      assert.equal(await store.get(NEXUS), null);
      assert.equal((await store.get(storeKeys(PLACE).nexusInfo(V1, NEXUS)))?.value, info);
      await rig.createPools();
      for (const [uuid, index] of [
        [good, 1],
        [bad, 2],
      ] as const) {
        const { endpoint, node } = cluster.engine(`node-${index}`);
        const request = { uuid, name: uuid, pool: `pool-${index}`, size: 1, thin: false };
        const more = { share: "none", allowedHosts: [], entityId: null } as const;
        await cluster.connect({ node, endpoint }).createReplica({ ...request, ...more });
      }
      await rig.look();
      const { state } = await rig.publish(V1, "node-2");
      const children = state.target?.children.map((child) => child.uri) ?? [];
      assert.equal(children.length, 1, "the other one is rebuilt before it is read");
      assert.match(children[0] ?? "", new RegExp(good));
      await rig.close();
    });
  }

  test("keeps compatibility on while a volume's NexusInfo at the root cannot be read", async () => {
    const prepare = async (empty: ObjectStore) => {
      const spec = volume("null").replace(`"last_nexus_id":null`, `"last_nexus_id":"${NEXUS}"`);
      await empty.put(`${legacy}/VolumeSpec/${V1}`, spec);
      await empty.put(NEXUS, `{"children":`);
    };
    const rig = await Rig.start({ nodes: 1, prepare });
    assert.equal(rig.core.legacy, true);
    assert.ok(await rig.store.get(NEXUS));
    await rig.close();
  });
});
