/** Engines are changed by the leader only, though they know of none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryStore } from "#common/store/memory.ts";
import { shareReplica } from "../replica/ops.ts";
import { Rig } from "../testing/rig.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const NEXUS = "069feb5e-ec65-4e97-b094-99262dfc9f44";

async function cutLease() {
  const rig = await Rig.start({ nodes: 1 });
  await rig.createPools();
  const { store } = rig;
  assert.ok(store instanceof MemoryStore);
  const keepAlives = (through: boolean) => {
    store.fault = ({ call }) => (call === "leaseKeepAlive" && !through ? "before" : "none");
  };
  return { rig, keepAlives };
}

test("a leader that cannot keep its lease stops changing engines before another one can lead", async () => {
  const { rig, keepAlives } = await cutLease();
  const engine = rig.core.registry.engine("node-1");
  keepAlives(false);
  await rig.clock.advance(26_900); // the TTL is 30 s, and the lease was kept when it was taken
  rig.cluster.calls.length = 0;
  await engine.load();
  await assert.rejects(engine.destroyNexus(NEXUS), { kind: "unavailable" });
  await assert.rejects(engine.createPool({ id: "q", disks: ["/dev/sdc"] }), {
    kind: "unavailable",
  });
  await assert.rejects(rig.createVolume(V1, { replicas: 1 }));
  assert.deepEqual(rig.cluster.calls, ["node-1 load"], "what it sees it may still read");
  keepAlives(true);
  await rig.clock.advance(15_000);
  await rig.createVolume(V1, { replicas: 1 });
  await rig.close();
});

test("an operation that was begun by a former leader does not go on when another one leads", async () => {
  const { rig, keepAlives } = await cutLease();
  const { cluster, clock } = rig;
  await rig.createVolume(V1, { replicas: 1 });
  let wake = (): void => {};
  const asleep = new Promise<void>((resolve) => {
    wake = resolve;
  });
  // It falls asleep with its intent written down, about to call the engine.
  let slept = (): void => {};
  const fellAsleep = new Promise<void>((resolve) => {
    slept = resolve;
  });
  const { specs } = rig.core;
  const begin = specs.replicas.begin.bind(specs.replicas);
  specs.replicas.begin = async (...args) => {
    const spec = await begin(...args);
    slept();
    await asleep;
    return spec;
  };
  const uuid = rig.core.specs.replicas.all()[0]?.uuid ?? "";
  const outcome = assert.rejects(shareReplica(rig.core, uuid, []));
  await fellAsleep;
  keepAlives(false);
  await clock.advance(31_000);
  keepAlives(true);
  await rig.startAgent();
  cluster.calls.length = 0;
  wake();
  await outcome;
  assert.ok(!cluster.calls.includes("node-1 shareReplica"), "nothing of the former leader's");
  assert.equal(cluster.engine("node-1").replica(uuid)?.share, "none");
  await rig.close();
});
