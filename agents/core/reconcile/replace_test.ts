/** Replicas on failing disks: how often they are tried, who takes their place, and that no good copy goes for it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { seededRandom } from "#common/random.ts";
import type { ReplicaFault } from "#common/types/replica.ts";
import type { ChildState } from "../engine/client.ts";
import { replicasOfVolume } from "../scheduling/snapshot.ts";
import { Rig } from "../testing/rig.ts";
import {
  FAULT_WINDOW_MS,
  faultsThatCount,
  isFailing,
  PAUSE_MS_MAX,
  pauseMs,
  retryAtMs,
  withFault,
} from "../volume/fault_memory.ts";

const V = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const NOW_MS = 1_700_000_000_000;
const random = seededRandom(3);

function fault(change: Partial<ReplicaFault> = {}): ReplicaFault {
  const base = { at: NOW_MS, reason: "IoFailure", stamp: NOW_MS, retry_at: NOW_MS, own: true };
  return { ...base, instance: "one", ...change };
}

describe("the memory of faults", () => {
  const child: Pick<ChildState, "reason" | "faultedAtMs"> = {
    reason: "IoFailure",
    faultedAtMs: NOW_MS,
  };
  const context = { nowMs: NOW_MS, instance: "one" };

  test("pauseMs() costs nothing at first, then ever more up to its limit, and differs", () => {
    assert.equal(pauseMs(1, random), 0);
    const steps = [2, 3, 4, 5, 6, 7, 100].map((count) => pauseMs(count, random));
    const most = [5000, 20_000, 80_000, 320_000, PAUSE_MS_MAX, PAUSE_MS_MAX, PAUSE_MS_MAX];
    steps.forEach((ms, index) => {
      const limit = most[index] ?? 0;
      assert.ok(ms <= limit && ms >= limit * 0.75, `${ms} of ${limit}`);
    });
    assert.notEqual(pauseMs(3, random), pauseMs(3, random));
  });
  test("withFault() keeps a bounded list, whose last pause is the longest", () => {
    let faults: ReplicaFault[] = [];
    for (let count = 0; count < 50; count++) {
      faults = withFault(faults, child, { ...context, own: true, random });
    }
    assert.equal(faults.length, 8);
    assert.ok(retryAtMs(faults) >= NOW_MS + PAUSE_MS_MAX * 0.75);
  });
  test("faultsThatCount() forgets what is old, of another life, or of a clock that went back", () => {
    const counted = (change: Partial<ReplicaFault>, instance: string | null = "one") =>
      faultsThatCount([fault(change)], { nowMs: NOW_MS, instance }).length;
    assert.equal(counted({}), 1);
    assert.equal(counted({}, "two"), 0);
    assert.equal(counted({}, null), 1);
    assert.equal(counted({ at: NOW_MS - FAULT_WINDOW_MS }), 0);
    assert.equal(counted({ at: NOW_MS + 6000 }), 0);
    assert.equal(faultsThatCount(undefined, context).length, 0);
  });
  test("isFailing() asks for three faults of the disk itself, two where the pool is unwell", () => {
    const network = fault({ own: false, reason: "TimedOut" });
    const rebuild = fault({ own: false, reason: "RebuildFailed" });
    assert.equal(isFailing([fault(), fault()]), false);
    assert.equal(isFailing([fault(), fault(), fault()]), true);
    assert.equal(isFailing([network, network, network, network]), false);
    assert.equal(isFailing([rebuild, rebuild, rebuild]), false, "its source may be to blame");
    assert.equal(isFailing([fault(), rebuild, rebuild]), true);
    const unwell = { unwell: true };
    assert.equal(isFailing([network], unwell), false);
    assert.equal(isFailing([network, network], unwell), true);
    assert.equal(isFailing([rebuild, rebuild, rebuild], unwell), false);
  });
});

/** A published volume of three replicas on four nodes or more; one of its remote replicas. */
async function published(nodes = 4) {
  const rig = await Rig.start({ nodes });
  await rig.createPools();
  await rig.createVolume(V, { replicas: 3 });
  await rig.publish(V, "node-1");
  await rig.settle();
  const replicas = replicasOfVolume(rig.core, V).map(({ uuid }) => uuid);
  const remote = replicas.filter((uuid) => rig.core.registry.replica(uuid)?.node !== "node-1");
  const [victim = ""] = remote;
  const nodeOf = (uuid: string) => rig.core.registry.replica(uuid)?.node ?? "";
  const children = () =>
    rig.cluster.openNexuses().flatMap((nexus) => nexus.children.map((uri) => uri.slice(-36)));
  const healthy = () =>
    rig.core.registry
      .nexuses("node-1")
      .flatMap((nexus) => nexus.children.filter(({ status }) => status === "Online")).length;
  /** Time passes, a second at a time, with all that runs by itself. */
  const pass = async (seconds: number) => {
    for (let second = 0; second < seconds; second++) {
      await rig.clock.advance(1000);
      await rig.passes(1);
    }
  };
  return { rig, replicas, remote, victim, nodeOf, children, healthy, pass };
}

const status = async (rig: Rig) => (await rig.volume(V)).state.status;

describe("a bad sector", () => {
  test("is not rebuilt onto for ever: a free pool takes the replica within a minute", async () => {
    const { rig, victim, children, healthy, pass } = await published();
    rig.cluster.bad.add(victim);
    await rig.cluster.failChild(victim);
    let least = 3;
    for (let second = 0; second < 60; second++) {
      await pass(1);
      least = Math.min(least, healthy());
    }
    assert.equal(await status(rig), "Online");
    assert.ok(!children().includes(victim));
    assert.equal(least, 2, "nobody else's copy went for it");
    assert.ok((rig.cluster.rebuilds.get(victim) ?? 0) <= 3);
    assert.equal(replicasOfVolume(rig.core, V).length, 3);
    await rig.close();
  });
  test("without a free pool it is tried a few times in ten minutes, not more", async () => {
    const { rig, victim, pass } = await published(3);
    rig.cluster.bad.add(victim);
    await rig.cluster.failChild(victim);
    await pass(600);
    const tries = rig.cluster.rebuilds.get(victim) ?? 0;
    assert.ok(tries >= 3 && tries <= 5, `${tries} rebuilds`);
    assert.equal(await status(rig), "Degraded");
    rig.cluster.bad.delete(victim); // the sector was remapped
    await pass(610);
    assert.equal(await status(rig), "Online");
    await rig.close();
  });
  test("another leader remembers the pauses", async () => {
    const { rig, victim, pass } = await published(3);
    rig.cluster.bad.add(victim);
    await rig.cluster.failChild(victim);
    await pass(120);
    const before = rig.cluster.rebuilds.get(victim) ?? 0;
    rig.crashAgent();
    await rig.startAgent();
    await pass(60);
    assert.ok((rig.cluster.rebuilds.get(victim) ?? 0) <= before + 1);
    await rig.close();
  });
  test("the old replica stays until the new one is in sync", async () => {
    const { rig, victim, children, pass } = await published();
    rig.cluster.bad.add(victim);
    await rig.cluster.failChild(victim);
    for (let second = 0; second < 60 && children().length < 4; second++) await pass(1);
    assert.equal(children().length, 4, "the new one beside the old one");
    assert.ok(children().includes(victim));
    await pass(5);
    assert.equal(children().length, 3);
    assert.ok(!children().includes(victim));
    await rig.close();
  });
  test("two of three disks: both are replaced, one after the other, and the good copy stays", async () => {
    const { rig, remote, replicas, children, healthy, pass } = await published(5);
    for (const uuid of remote) {
      rig.cluster.bad.add(uuid);
      await rig.cluster.failChild(uuid);
    }
    let least = 3;
    for (let second = 0; second < 120; second++) {
      await pass(1);
      least = Math.min(least, healthy());
    }
    assert.equal(await status(rig), "Online");
    assert.equal(least, 1);
    const [good = ""] = replicas.filter((uuid) => !remote.includes(uuid));
    assert.ok(children().includes(good));
    for (const uuid of remote) assert.ok(!children().includes(uuid));
    await rig.close();
  });
  test("a successor whose disk is bad too does not start the loop anew", async () => {
    const { rig, replicas, victim, pass } = await published(6);
    rig.cluster.bad.add(victim);
    await rig.cluster.failChild(victim);
    for (let second = 0; second < 600; second++) {
      for (const { uuid } of replicasOfVolume(rig.core, V)) {
        if (!replicas.includes(uuid)) rig.cluster.bad.add(uuid);
      }
      await pass(1);
    }
    const tries = [...rig.cluster.rebuilds.values()].reduce((sum, count) => sum + count, 0);
    assert.ok(tries <= 6, `${tries} rebuilds in ten minutes`);
    await rig.close();
  });
  test("an engine that restarts explains its faults: its replica is not given up for them", async () => {
    const { rig, victim, nodeOf, children, pass } = await published();
    const home = nodeOf(victim);
    for (let round = 0; round < 5; round++) {
      await rig.cluster.failChild(victim);
      await pass(1);
      rig.cluster.engine(home).restart();
      await pass(10);
    }
    assert.equal(await status(rig), "Online");
    assert.ok(children().includes(victim));
    await rig.close();
  });
  test("a network that fails again and again costs pauses, not the replica", async () => {
    const { rig, victim, children, pass } = await published();
    for (let round = 0; round < 5; round++) {
      await rig.cluster.failChild(victim, "TimedOut");
      await pass(10);
    }
    await pass(400);
    assert.equal(await status(rig), "Online");
    assert.ok(children().includes(victim));
    await rig.close();
  });
  test("time-outs on a pool that its engine calls degraded are its disk's", async () => {
    const { rig, victim, nodeOf, children, pass } = await published();
    const home = nodeOf(victim);
    rig.cluster.engine(home).poolStatus.set(home.replace("node", "pool"), "Degraded");
    for (let round = 0; round < 3; round++) {
      await rig.cluster.failChild(victim, "TimedOut");
      await pass(30);
    }
    assert.equal(await status(rig), "Online");
    assert.ok(!children().includes(victim));
    await rig.close();
  });
});

describe("a disk that does not answer", () => {
  test("is given up after the documented wait, for a free pool, and harms nothing when it is back", async () => {
    const { rig, victim, nodeOf, children, pass } = await published();
    const home = nodeOf(victim);
    const engine = rig.cluster.engine(home);
    const pool = home.replace("node", "pool");
    engine.poolStatus.set(pool, "Unknown");
    await rig.cluster.failChild(victim, "TimedOut");
    await pass(590);
    assert.equal(await status(rig), "Degraded");
    assert.ok(children().includes(victim), "it may come back by a partial rebuild");
    await pass(60);
    assert.equal(await status(rig), "Online");
    assert.ok(!children().includes(victim));
    assert.equal(rig.cluster.rebuilds.get(victim) ?? 0, 0);
    engine.poolStatus.delete(pool);
    await pass(200);
    assert.equal(await status(rig), "Online");
    assert.ok(!engine.pools.get(pool)?.replicas.has(victim), "the old copy is gone");
    await rig.close();
  });
  test("is not tried before its engine has had the time to notice", async () => {
    const { rig, victim, nodeOf, children, pass } = await published();
    const home = nodeOf(victim);
    await rig.cluster.failChild(victim, "TimedOut");
    await pass(10);
    assert.equal(rig.cluster.rebuilds.get(victim) ?? 0, 0);
    rig.cluster.engine(home).poolStatus.set(home.replace("node", "pool"), "Unknown");
    await pass(300);
    assert.ok(children().includes(victim));
    rig.cluster.engine(home).poolStatus.clear();
    await pass(5);
    assert.equal(await status(rig), "Online");
    assert.equal(rig.cluster.rebuilds.get(victim), 1);
    await rig.close();
  });
  test("whose replica is no child any more is replaced soon, not at the next slow sweep", async () => {
    const { rig, victim, nodeOf, pass } = await published();
    const home = nodeOf(victim);
    const [nexus] = rig.cluster.openNexuses();
    const uri = nexus?.children.find((child) => child.includes(victim)) ?? "";
    rig.cluster.engine(home).poolStatus.set(home.replace("node", "pool"), "Unknown");
    await rig.cluster
      .connect({ node: "node-1", endpoint: rig.cluster.engine("node-1").endpoint })
      .removeChild({
        nexus: nexus?.uuid ?? "",
        uri,
      });
    const stop = new AbortController();
    const running = rig.agent.loop.run(stop.signal);
    for (let second = 0; second < 40; second++) {
      await rig.clock.advance(1000);
      await rig.look();
      await rig.cluster.rebuildStep();
    }
    stop.abort();
    await running;
    await pass(3);
    assert.equal(await status(rig), "Online");
    await rig.close();
  });
  test("one that is back after 20 s is rebuilt in part", async () => {
    const { rig, victim, nodeOf, children, pass } = await published();
    const home = nodeOf(victim);
    const engine = rig.cluster.engine(home);
    engine.poolStatus.set(home.replace("node", "pool"), "Unknown");
    await rig.cluster.failChild(victim, "TimedOut");
    await pass(20);
    assert.equal(rig.cluster.rebuilds.get(victim) ?? 0, 0);
    engine.poolStatus.clear();
    await pass(5);
    assert.equal(await status(rig), "Online");
    assert.ok(children().includes(victim));
    assert.equal(rig.cluster.rebuilds.get(victim), 1);
    await rig.close();
  });
  test("new replicas go to pools that are well first", async () => {
    const { rig } = await published(5);
    for (const node of ["node-4", "node-5"]) {
      const status = node === "node-4" ? "Degraded" : "Online";
      rig.cluster.engine(node).poolStatus.set(node.replace("node", "pool"), status);
    }
    await rig.look();
    const other = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
    await rig.createVolume(other, { replicas: 4, size: 2 ** 20 });
    const nodes = replicasOfVolume(rig.core, other).map(
      ({ uuid }) => rig.core.registry.replica(uuid)?.node,
    );
    assert.ok(!nodes.includes("node-4"));
    await rig.close();
  });
});
