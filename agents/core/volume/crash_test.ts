/**
 * Crash safety: agent-core dies at every single step of every volume operation, and the next one cleans up.
 *
 * Each operation runs once to count its changing calls (store writes and engine calls); then it runs again for each
 * of them, cut just before and just after the call took effect. Afterwards a new agent starts and settles.
 * Checked: nothing is unfinished, nothing belongs to nobody, at most one nexus is open per volume, a created
 * volume is whole, and the same request then succeeds. Whoever asks does not know of the crash and may ask again at
 * once, before anything was cleaned up: what it is then told is done is done.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isKind } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import { replicasOfVolume } from "../scheduling/snapshot.ts";
import { call, Rig } from "../testing/rig.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";

type Scenario = {
  readonly name: string;
  readonly prepare: (rig: Rig) => Promise<unknown>;
  readonly act: (rig: Rig) => Promise<unknown>;
  /** Kinds that mean "it was done already" when the request is repeated. */
  readonly done: readonly (
    | "already-exists"
    | "already-published"
    | "not-published"
    | "not-found"
    | "failed-precondition"
  )[];
  readonly check: (rig: Rig) => Promise<void>;
  /** Lets what was asked for end; by default it needs no time. */
  readonly settle?: (rig: Rig) => Promise<void>;
};

/** Kinds that ask to come back later. */
const NOT_YET = ["conflict", "deleting", "failed-precondition", "failed-persist"] as const;

async function published(rig: Rig): Promise<void> {
  await rig.createVolume(V1, { replicas: 2 });
  await rig.publish(V1, "node-1");
}

async function isOnline(rig: Rig, children: number | null): Promise<void> {
  const { state, spec } = await rig.volume(V1);
  assert.equal(spec.status, "Created");
  assert.equal(state.status, "Online");
  assert.equal(state.target?.children.length ?? null, children);
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: "create",
    prepare: async () => {},
    act: (rig) => rig.createVolume(V1, { replicas: 2 }),
    done: ["already-exists"],
    check: (rig) => isOnline(rig, null),
  },
  {
    name: "publish",
    prepare: (rig) => rig.createVolume(V1, { replicas: 2 }),
    act: (rig) => rig.publish(V1, "node-1"),
    done: ["already-published"],
    check: (rig) => isOnline(rig, 2),
  },
  {
    name: "unpublish",
    prepare: published,
    act: (rig) => call(rig.api, "UnpublishVolume", { volume: V1, force: false }),
    done: ["not-published"],
    check: (rig) => isOnline(rig, null),
  },
  {
    name: "republish",
    prepare: published,
    act: (rig) =>
      call(rig.api, "RepublishVolume", {
        volume: V1,
        protocol: "nvmf",
        reuseExisting: false,
        frontendNode: "",
      }),
    done: [],
    check: (rig) => isOnline(rig, 2),
  },
  {
    name: "more replicas",
    prepare: published,
    act: (rig) => call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas: 3 }),
    done: ["failed-precondition"],
    check: (rig) => isOnline(rig, 3),
  },
  {
    name: "fewer replicas",
    prepare: published,
    act: (rig) => call(rig.api, "SetVolumeReplicaCount", { volume: V1, replicas: 1 }),
    done: ["failed-precondition"],
    check: (rig) => isOnline(rig, 1),
  },
  {
    name: "drain",
    prepare: published,
    act: async (rig) => {
      await call(rig.api, "DrainNode", { node: "node-1", label: "x" });
      await rig.passes(2);
    },
    done: ["failed-precondition"],
    settle: async (rig) => {
      await rig.passes(3);
      await rig.clock.advance(121_000); // old targets are waited for
      await rig.settle();
    },
    check: async (rig) => {
      await isOnline(rig, 2);
      const { nodes, nexuses, volumes } = rig.core.specs;
      assert.ok("Drained" in (nodes.get("node-1").cordon_drain_state ?? {}));
      const target = volumes.get(V1).target;
      assert.notEqual(target?.node, "node-1");
      assert.deepEqual(
        nexuses.all().map((nexus) => nexus.uuid),
        [target?.nexus],
        "no old target stays",
      );
    },
  },
  {
    name: "destroy",
    prepare: published,
    act: (rig) => call(rig.api, "DestroyVolume", { volume: V1 }),
    done: ["not-found"],
    check: async (rig) => {
      assert.deepEqual(rig.core.specs.volumes.all(), []);
      assert.deepEqual(rig.core.registry.replicas(), []);
      assert.deepEqual(rig.core.registry.nexuses(), []);
    },
  },
];

const CASES = (["before", "after"] as const).flatMap((when) =>
  [false, true].map((early) => [when, early] as const),
);

async function prepared(scenario: Scenario): Promise<Rig> {
  const rig = await Rig.start({ nodes: 3 });
  await rig.createPools();
  await scenario.prepare(rig);
  return rig;
}

/** What must hold after any crash once the next agent has settled. */
function checkConsistent(rig: Rig, where: string): void {
  const { specs, registry } = rig.core;
  const tables = [
    specs.volumes.all(),
    specs.nexuses.all(),
    specs.replicas.all(),
    specs.pools.all(),
  ];
  for (const spec of tables.flat()) {
    assert.equal(spec.operation, null, `${where}: unfinished ${encodeJson(spec)}`);
  }
  const known = new Set(specs.replicas.all().map((spec) => spec.uuid));
  for (const replica of registry.replicas()) {
    assert.ok(known.has(replica.uuid), `${where}: replica ${replica.uuid} belongs to nobody`);
  }
  for (const spec of specs.replicas.all()) {
    assert.ok(registry.replica(spec.uuid), `${where}: replica ${spec.uuid} does not exist`);
  }
  for (const nexus of rig.cluster.engines.flatMap((engine) => rig.cluster.nexusesOn(engine))) {
    assert.ok(specs.nexuses.find(nexus.uuid), `${where}: nexus ${nexus.uuid} belongs to nobody`);
  }
  const open = rig.cluster.openNexuses();
  const target = specs.volumes.find(V1)?.target;
  const wanted = target?.active ? [target.nexus] : [];
  assert.deepEqual(
    open.map((nexus) => nexus.uuid),
    wanted,
    `${where}: open nexuses`,
  );
}

/** What must hold as soon as somebody was told that it does: a volume's replicas exist. */
function checkKept(rig: Rig, where: string): void {
  const { specs } = rig.core;
  const spec = specs.volumes.find(V1);
  if (!spec || specs.volumes.phase(spec) !== "Created") return;
  const owned = replicasOfVolume(rig.core, V1);
  assert.ok(owned.length >= spec.num_replicas, `${where}: ${owned.length} replicas`);
  for (const { uuid } of owned) {
    const there = rig.cluster.engines.some((engine) => engine.replica(uuid) !== undefined);
    assert.ok(there, `${where}: replica ${uuid} does not exist`);
  }
}

/** Asks again before anything was cleaned up; being refused is fine then. True when it was done. */
async function askAtOnce(rig: Rig, scenario: Scenario, where: string): Promise<boolean> {
  try {
    await scenario.act(rig);
  } catch (error) {
    const refused = isKind(error, ...scenario.done, ...NOT_YET);
    assert.ok(refused, `${where}: the request repeated at once fails: ${error}`);
    return false;
  }
  checkKept(rig, `${where}, repeated at once`);
  return true;
}

for (const scenario of SCENARIOS) {
  describe(`a crash during ${scenario.name}`, { timeout: 120_000 }, () => {
    const settle = scenario.settle ?? ((rig: Rig) => rig.settle());
    test("leaves nothing that the next agent cannot finish or undo, at every step", async () => {
      const model = await prepared(scenario);
      model.link.arm(null);
      await scenario.act(model);
      const steps = [...model.link.log];
      await model.close();
      assert.ok(steps.length >= 2, "the operation is written down and carried out");
      for (const [index, step] of steps.entries()) {
        for (const [when, early] of CASES) {
          const where = `crash ${when} step ${index + 1} (${step})`;
          const rig = await prepared(scenario);
          rig.link.arm({ call: index + 1, when });
          await scenario.act(rig).catch(() => {}); // the crash, or nothing when it was the last step
          rig.crashAgent();
          await rig.startAgent();
          const asked = early && (await askAtOnce(rig, scenario, where));
          await settle(rig);
          checkConsistent(rig, where);
          try {
            if (!asked) await scenario.act(rig);
          } catch (error) {
            const done = isKind(error, ...scenario.done);
            assert.ok(done, `${where}: the repeated request fails: ${error}`);
          }
          await settle(rig);
          checkConsistent(rig, `${where}, repeated`);
          await scenario.check(rig);
          await rig.close();
        }
      }
    });
  });
}
