/** Sizes: what a device has, what placement takes for granted, and that space is promised once. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SvcError } from "#common/errors.ts";
import { replicaSizeFor, VOLUME_BYTES_MAX } from "#common/volume_size.ts";
import { replicasOfVolume } from "../scheduling/snapshot.ts";
import { poolSpaces } from "../scheduling/space.ts";
import { NEXUS_OVERHEAD } from "../testing/fake_engine.ts";
import { call, Rig } from "../testing/rig.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const V = uuid(1);

function uuid(index: number): string {
  return `bf207797-b23d-447a-8d3f-${String(index).padStart(12, "0")}`;
}

/** The bytes of the volume's device. */
function deviceBytes(rig: Rig): number {
  const [device] = rig.cluster.engines.flatMap((engine) =>
    [...engine.nexuses.values()]
      .filter(({ status }) => status === "open")
      .map((nexus) => rig.cluster.sizeOf(nexus)),
  );
  return device ?? 0;
}

async function withPools(nodes: number): Promise<Rig> {
  const rig = await Rig.start({ nodes });
  await rig.createPools();
  return rig;
}

/** As volumes were made before replicas had room beside the data: each replica is just as large as its volume. */
async function makeOld(rig: Rig, replicas: number): Promise<number> {
  await rig.createVolume(V, { replicas, size: 250 * MIB });
  const [replica] = replicasOfVolume(rig.core, V);
  const size = replica?.size ?? 0;
  await rig.core.specs.volumes.update(V, (spec) => ({ ...spec, size }));
  return size;
}

describe("the device of a volume", () => {
  test("has at least the bytes that were asked for, whatever they are", async () => {
    for (const size of [1, 4097, MIB, 128 * MIB, 500_000_000, GIB, GIB + 1, GIB + MIB - 1]) {
      const rig = await withPools(2);
      const made = await rig.createVolume(V, { replicas: 2, size });
      await rig.publish(V);
      const promised = made.spec.size;
      assert.ok(promised >= size && promised - size < MIB && promised % MIB === 0, `${size}`);
      assert.equal(deviceBytes(rig), promised, `asked for ${size}`);
      assert.equal((await rig.volume(V)).state.size, promised);
      await rig.close();
    }
  });
  test("of nothing, or of more than can be told, is refused", async () => {
    const rig = await withPools(1);
    const refused = (size: number, kind: string) =>
      assert.rejects(rig.createVolume(V, { replicas: 1, size }), { kind });
    await refused(0, "invalid-argument");
    await refused(Number.MAX_SAFE_INTEGER, "out-of-range");
    await refused(VOLUME_BYTES_MAX, "resource-exhausted");
    await rig.close();
  });
  test("of a volume made before keeps its size, however its replicas change", async () => {
    const rig = await withPools(4);
    const size = await makeOld(rig, 2);
    await rig.publish(V, "node-1");
    assert.equal(deviceBytes(rig), size - NEXUS_OVERHEAD);
    await call(rig.api, "SetVolumeReplicaCount", { volume: V, replicas: 3 });
    await rig.settle();
    const sizes = () => replicasOfVolume(rig.core, V).map((replica) => replica.size);
    assert.deepEqual(sizes(), [size, size, size]);
    // One is lost for good: the hot spare makes another that fits beside the others.
    rig.cluster.engine("node-2").kill();
    await rig.cluster.faultStep();
    await rig.passes(2);
    await rig.clock.advance(700_000);
    await rig.settle();
    assert.equal((await rig.volume(V)).state.status, "Online");
    assert.deepEqual(sizes(), [size, size, size]);
    await call(rig.api, "UnpublishVolume", { volume: V, force: false });
    await rig.publish(V);
    await rig.settle();
    assert.equal(deviceBytes(rig), size - NEXUS_OVERHEAD);
    await rig.close();
  });
  test("does not shrink for a replica that is too small: another one is made", async () => {
    const rig = await withPools(3);
    await rig.createVolume(V, { replicas: 2, size: 250 * MIB });
    await rig.publish(V, "node-1");
    // Another control plane made it, of the volume's own size.
    const pool = ["pool-1", "pool-2", "pool-3"].find((id) =>
      replicasOfVolume(rig.core, V).every(({ pool: on }) => on !== id && on[0] !== id),
    );
    await call(rig.api, "CreateReplica", {
      ...{ pool: pool ?? "", replica: uuid(2), size: 250 * MIB, thin: false, allowedHosts: [] },
    });
    await rig.core.specs.replicas.update(uuid(2), (spec) => ({
      ...spec,
      managed: true,
      owners: { ...spec.owners, volume: V },
    }));
    await rig.core.specs.volumes.update(V, (spec) => ({ ...spec, num_replicas: 3 }));
    await rig.settle();
    assert.equal((await rig.volume(V)).state.status, "Online");
    assert.equal(rig.core.specs.replicas.find(uuid(2)), undefined);
    assert.deepEqual(
      replicasOfVolume(rig.core, V).map(({ size }) => size),
      [1, 2, 3].map(() => replicaSizeFor(250 * MIB)),
    );
    await rig.close();
  });
});

describe("block sizes", () => {
  test("a volume's replicas are never mixed, at its creation or later", async () => {
    const rig = await Rig.start({ nodes: 4 });
    rig.cluster.engine("node-1").blockSizes.set("pool-1", 4096);
    await rig.createPools();
    const poolsOf = () =>
      replicasOfVolume(rig.core, V)
        .map(({ pool }) => (typeof pool === "string" ? pool : pool[0]))
        .sort();
    await assert.rejects(rig.createVolume(V, { replicas: 4 }), {
      kind: "resource-exhausted",
      message: /3\/4 .*3 of which have one block size/,
    });
    await rig.createVolume(V, { replicas: 2 });
    await rig.publish(V);
    await call(rig.api, "SetVolumeReplicaCount", { volume: V, replicas: 3 });
    await rig.settle();
    assert.deepEqual(poolsOf(), ["pool-2", "pool-3", "pool-4"]);
    await assert.rejects(call(rig.api, "SetVolumeReplicaCount", { volume: V, replicas: 4 }), {
      kind: "resource-exhausted",
      message: /block size of the volume's replicas \(512 bytes\)/,
    });
    await rig.close();
  });
  test("the hot spare takes the pool that fits, not the one with most room", async () => {
    const rig = await Rig.start({ nodes: 4 });
    rig.cluster.engine("node-3").blockSizes.set("pool-3", 4096);
    await rig.createPools();
    await rig.createVolume(V, { replicas: 3 });
    await rig.publish(V, "node-1");
    const on = replicasOfVolume(rig.core, V).map(({ pool }) => pool[0]);
    assert.ok(!on.includes("pool-3"));
    rig.cluster.engine("node-2").kill();
    await rig.cluster.faultStep();
    await rig.passes(2);
    await rig.clock.advance(700_000);
    await rig.passes(20);
    assert.equal(
      replicasOfVolume(rig.core, V).filter(({ pool }) => pool[0] === "pool-3").length,
      0,
    );
    await rig.close();
  });
  test("a mixed volume made before is served from most of its replicas, and made whole", async () => {
    const rig = await Rig.start({ nodes: 4 });
    await rig.createPools();
    await rig.createVolume(V, { replicas: 3 });
    const [odd] = replicasOfVolume(rig.core, V);
    const pool = odd?.pool[0] ?? "";
    rig.cluster.engine(pool.replace("pool", "node")).blockSizes.set(pool, 4096);
    await rig.look();
    await rig.publish(V);
    await rig.settle();
    assert.equal((await rig.volume(V)).state.status, "Online");
    assert.equal(rig.core.specs.replicas.find(odd?.uuid ?? ""), undefined);
    assert.equal(replicasOfVolume(rig.core, V).length, 3);
    await rig.close();
  });
  test("what no engine tells, nothing is made of", async () => {
    const rig = await Rig.start({ nodes: 2 });
    for (const engine of rig.cluster.engines) engine.tellsMore = false;
    await rig.createPools();
    await rig.createVolume(V, { replicas: 2 });
    await rig.publish(V);
    assert.equal((await rig.volume(V)).state.status, "Online");
    await rig.close();
  });
});

describe("space is promised once", () => {
  const many = (rig: Rig, count: number, options: { size: number; thin: boolean }) =>
    Promise.all(
      Array.from({ length: count }, (_, index) =>
        rig.createVolume(uuid(index), { replicas: 1, ...options }).then(
          () => "made",
          (error: { kind: string; message: string }) => `${error.kind}: ${error.message}`,
        ),
      ),
    );

  test("to a hundred thin volumes at once, as far as the pool's limit goes", async () => {
    const rig = await withPools(1);
    // A pool of 10 GiB and a limit of 250 %: five of 4.9 GiB.
    const answers = await many(rig, 100, { size: 4.9 * GIB, thin: true });
    assert.equal(answers.filter((answer) => answer === "made").length, 5);
    for (const answer of answers) {
      if (answer !== "made") assert.match(answer, /^resource-exhausted: .*250 % of its capacity/);
    }
    assert.equal(rig.core.registry.replicas().length, 5);
    assert.equal(rig.core.specs.volumes.all().length, 5);
    assert.equal(rig.core.reservations.size, 0);
    await rig.close();
  });
  test("one after the other too, also by the next leader, and again when one has gone", async () => {
    const rig = await withPools(1);
    const options = { size: 4.9 * GIB, thin: true };
    for (let index = 0; index < 5; index++) {
      await rig.createVolume(uuid(index), { replicas: 1, ...options });
    }
    const refused = () =>
      assert.rejects(rig.createVolume(uuid(9), { replicas: 1, ...options }), {
        kind: "resource-exhausted",
      });
    await refused();
    await call(rig.api, "DestroyVolume", { volume: uuid(0) });
    await rig.createVolume(uuid(8), { replicas: 1, ...options });
    await refused();
    rig.crashAgent();
    await rig.startAgent();
    await refused();
    await rig.close();
  });
  test("to thick ones at once; what the engine refuses all the same is want of space as well", async () => {
    const rig = await withPools(2);
    const answers = await many(rig, 30, { size: GIB, thin: false });
    assert.equal(answers.filter((answer) => answer === "made").length, 18);
    for (const answer of answers) assert.match(answer, /^made|^resource-exhausted: Not enough/);
    await call(rig.api, "DestroyVolume", { volume: uuid(answers.indexOf("made")) });
    rig.cluster.fault = ({ name }) => {
      if (name !== "createReplica") return "ok";
      throw new SvcError("resource-exhausted", "pool has fewer clusters than it told");
    };
    const full = rig.createVolume(uuid(99), { replicas: 1, size: 64 * MIB });
    await assert.rejects(full, { kind: "resource-exhausted" });
    await rig.close();
  });
  test("what failed is given back", async () => {
    const rig = await withPools(1);
    rig.cluster.fault = ({ name }) => {
      if (name === "createReplica") throw new Error("refused");
      return "ok";
    };
    const spaces = () => [...poolSpaces(rig.core).values()];
    const before = spaces();
    await many(rig, 10, { size: 3 * GIB, thin: false });
    rig.cluster.fault = () => "ok";
    await rig.settle();
    assert.equal(rig.core.reservations.size, 0);
    assert.deepEqual(spaces(), before);
    await rig.close();
  });
});

describe("a drain", () => {
  test("of volumes without hosts ends at once", async () => {
    const rig = await withPools(3);
    await rig.createVolume(V, { replicas: 2 });
    await rig.publish(V, "node-1");
    await call(rig.api, "DrainNode", { node: "node-1", label: "maintenance" });
    await rig.passes(2);
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.ok(node.spec?.cordondrainstate && "drainedstate" in node.spec.cordondrainstate);
    assert.equal(node.state?.status_reason, undefined);
    assert.equal(rig.cluster.engine("node-1").nexuses.size, 0);
    await rig.close();
  });
  test("waits for hosts, says so, and ends when they have left", async () => {
    const rig = await withPools(3);
    await rig.createVolume(V, { replicas: 2 });
    await rig.publish(V, "node-1");
    const engine = rig.cluster.engine("node-1");
    const [nexus] = engine.nexuses.keys();
    engine.hosts.set(nexus ?? "", 1);
    await call(rig.api, "DrainNode", { node: "node-1", label: "maintenance" });
    const state = async () =>
      (await call(rig.api, "GetNode", { node: "node-1" })) as never as {
        spec: { cordondrainstate: object };
        state: { status_reason?: { code: string; message: string } };
      };
    await rig.passes(3);
    const waiting = await state();
    assert.ok("drainingstate" in waiting.spec.cordondrainstate);
    assert.equal(waiting.state.status_reason?.code, "draining");
    assert.match(waiting.state.status_reason?.message ?? "", /connected to 1 of its old targets/);
    engine.hosts.clear();
    await rig.passes(1);
    assert.ok("drainedstate" in (await state()).spec.cordondrainstate);
    await rig.close();
  });
  test("gives hosts of engines that do not tell two minutes", async () => {
    const rig = await withPools(3);
    for (const engine of rig.cluster.engines) engine.tellsMore = false;
    await rig.createVolume(V, { replicas: 2 });
    await rig.publish(V, "node-1");
    await call(rig.api, "DrainNode", { node: "node-1", label: "maintenance" });
    await rig.passes(5);
    const state = async () =>
      (await call(rig.api, "GetNode", { node: "node-1" })).spec?.cordondrainstate ?? {};
    assert.ok("drainingstate" in (await state()));
    await rig.clock.advance(121_000);
    await rig.passes(1);
    assert.ok("drainedstate" in (await state()));
    await rig.close();
  });
  test("says why a target cannot be moved", async () => {
    const rig = await withPools(1);
    await rig.createVolume(V, { replicas: 1 });
    await rig.publish(V, "node-1");
    await call(rig.api, "DrainNode", { node: "node-1", label: "maintenance" });
    await rig.passes(2);
    const node = await call(rig.api, "GetNode", { node: "node-1" });
    assert.equal(node.state?.status_reason?.code, "draining");
    assert.match(node.state?.status_reason?.message ?? "", /1 targets .* no suitable node/);
    await rig.close();
  });
});
