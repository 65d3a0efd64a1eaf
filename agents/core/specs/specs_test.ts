/** The discipline of changing specs, and the guards around it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { seededRandom } from "#common/random.ts";
import type { StoreOp } from "#common/store/mod.ts";
import type { PoolSpec } from "#common/types/pool.ts";
import type { ReplicaSpec } from "#common/types/replica.ts";
import { Guards } from "./guards.ts";
import { makeSpecs } from "./tables.ts";

function rig() {
  const written: StoreOp[] = [];
  const store = { fails: false };
  const specs = makeSpecs({
    write: async (ops) => {
      if (store.fails) throw new SvcError("unavailable", "Cannot reach the store");
      written.push(...ops);
    },
    keyOf: (kind, id) => `/${kind}/${id}`,
    onChange: () => {},
  });
  return { specs, pools: specs.pools, written, store };
}

const SPEC: PoolSpec = {
  node: "n",
  id: "p",
  disks: ["/dev/sdb"],
  status: "Creating",
  labels: null,
  operation: { operation: "Create", result: null },
};

const REPLICA: ReplicaSpec = {
  ...{ name: "r", uuid: "r", size: 1, pool: "p", share: "none", thin: false },
  ...{ status: { Created: "online" }, managed: true, allowed_hosts: [], operation: null },
  owners: { volume: null, disown_all: false },
};

describe("SpecTable", () => {
  test("ownedBy() says what a look at every spec would, whatever happens to them", async () => {
    const { specs, store } = rig();
    const { replicas } = specs;
    const random = seededRandom(7);
    const below = (limit: number) => random.uint32() % limit;
    const volumes = Array.from({ length: 4 }, () => random.uuid());
    const ids = Array.from({ length: 12 }, () => random.uuid());
    const owners = () => ({ volume: volumes[below(5)] ?? null, disown_all: false });
    const nothing = async () => {};
    const steps: readonly ((id: string) => Promise<unknown>)[] = [
      (uuid) => replicas.insert({ ...REPLICA, uuid, owners: owners() }),
      (uuid) => replicas.insert({ ...REPLICA, uuid, owners: owners() }),
      (uuid) => replicas.update(uuid, (spec) => ({ ...spec, size: spec.size + 1 })),
      (uuid) => replicas.carryOut(uuid, { OwnerUpdate: { ...owners(), volume: null } }, nothing),
      (uuid) => replicas.begin(uuid, { OwnerUpdate: owners() }),
      (uuid) => (replicas.find(uuid)?.operation ? replicas.commit(uuid) : nothing()),
      (uuid) => replicas.flush(uuid),
      (uuid) => replicas.condemn(uuid),
      (uuid) => replicas.carryOut(uuid, "Destroy", nothing, { destroys: true }),
      (uuid) => replicas.remove(uuid),
    ];
    const loaded = [{ ...REPLICA, uuid: ids[0] ?? "", owners: owners() }];
    replicas.load(loaded.map((spec) => ({ key: "k", value: JSON.stringify(spec) })));
    let found = 0;
    for (let step = 0; step < 4000; step++) {
      store.fails = below(8) === 0;
      const id = ids[below(ids.length)] ?? "";
      // Refused where the spec is not so, and by the store: then nothing may have changed either.
      await steps[below(steps.length)]?.(id).catch(() => {});
      for (const volume of volumes) {
        const naive = replicas.all().filter((spec) => spec.owners.volume === volume);
        const byId = (a: ReplicaSpec, b: ReplicaSpec) => (a.uuid < b.uuid ? -1 : 1);
        assert.deepEqual(replicas.ownedBy(volume).sort(byId), naive.sort(byId), `step ${step}`);
        found += naive.length;
      }
    }
    assert.ok(found > 4000, "the volumes had replicas");
    assert.deepEqual(replicas.ownedBy("nobody"), []);
  });

  test("writes an operation down before and off after it", async () => {
    const { pools, written } = rig();
    await pools.insert(SPEC);
    await pools.commit("p");
    await pools.carryOut("p", "Destroy", async () => {}, { destroys: true });
    const values = written.map((op) => (op.op === "put" ? JSON.parse(op.value) : null));
    assert.deepEqual(
      values.map((value) => value && [value.status, value.operation?.operation ?? null]),
      [["Creating", "Create"], [{ Created: "Online" }, null], ["Deleting", "Destroy"], null],
    );
    assert.equal(pools.find("p"), undefined);
  });

  test("writes nothing that it could not read back", async () => {
    const { pools, specs, written } = rig();
    const bad = { ...SPEC, labels: { count: 1 } } as unknown as PoolSpec; // as a request might be, unparsed
    await assert.rejects(pools.insert(bad), { kind: "invalid-argument", message: /labels/ });
    const node = { id: "n", endpoint: "a:1", labels: {}, draining_volumes: ["V"] };
    await assert.rejects(specs.nodes.put(node), { kind: "invalid-argument" });
    assert.deepEqual(written, []);
    assert.equal(pools.find("p"), undefined);
    await pools.insert(SPEC);
    await pools.commit("p");
    const change = pools.update("p", (spec) => ({ ...spec, disks: [7] }) as unknown as PoolSpec);
    await assert.rejects(change, { kind: "invalid-argument" });
    assert.deepEqual(pools.get("p").disks, SPEC.disks);
  });

  test("shows nothing in memory that the store refused", async () => {
    const { pools, store } = rig();
    store.fails = true;
    await assert.rejects(pools.insert(SPEC), { kind: "failed-persist" });
    assert.equal(pools.find("p"), undefined);
  });

  test("keeps a result that could not be written, refuses more, and flushes it later", async () => {
    const { pools, store, written } = rig();
    await pools.insert(SPEC);
    store.fails = true;
    await assert.rejects(pools.commit("p"), { kind: "failed-persist" });
    assert.equal(pools.get("p").operation?.result, true);
    await assert.rejects(pools.begin("p", "Destroy"), { kind: "failed-persist" });
    store.fails = false;
    assert.equal(await pools.flush("p"), true);
    assert.deepEqual(pools.get("p").status, { Created: "Online" });
    assert.equal(written.length, 2);
  });

  test("refuses a second operation, and any on what is going away", async () => {
    const { pools } = rig();
    await pools.insert(SPEC);
    await assert.rejects(pools.begin("p", "Create"), { kind: "conflict" });
    await pools.condemn("p");
    await assert.rejects(pools.begin("p", "Create"), { kind: "deleting" });
  });

  test("a destruction that failed goes on, and no answer says that it was refused", async () => {
    for (const [kind, answered] of [
      ["failed-precondition", "unavailable"],
      ["invalid-argument", "unavailable"],
      ["conflict", "unavailable"],
      ["resource-exhausted", "unavailable"],
      ["unavailable", "unavailable"],
      ["deadline-exceeded", "deadline-exceeded"],
    ] as const) {
      const { pools } = rig();
      await pools.insert(SPEC);
      await pools.commit("p");
      const fail = () => Promise.reject(new SvcError(kind, "no"));
      await assert.rejects(pools.carryOut("p", "Destroy", fail, { destroys: true }), {
        kind: answered,
        message: /goes on by itself later: no/,
      });
      assert.equal(pools.phase(pools.get("p")), "Deleting");
    }
  });

  test("what was carried out and could not be written off says so", async () => {
    const { pools, store } = rig();
    await pools.insert(SPEC);
    await pools.commit("p");
    const work = async () => {
      store.fails = true;
    };
    await assert.rejects(pools.carryOut("p", "Destroy", work, { destroys: true }), {
      kind: "failed-persist",
      message: /Cannot persist pool p: .* was carried out/,
    });
    store.fails = false;
    assert.equal(await pools.flush("p"), true);
    assert.equal(pools.find("p"), undefined);
  });

  test("a failed step leaves the spec as it was", async () => {
    const { pools } = rig();
    await pools.insert(SPEC);
    const before = await pools.commit("p");
    const failing = pools.carryOut("p", "Create", () => Promise.reject(new Error("no")));
    await assert.rejects(failing, /no/);
    assert.deepEqual(pools.get("p"), before);
  });
});

describe("Guards", () => {
  test("run() lets one in at a time, in order", async () => {
    const guards = new Guards(new ManualClock());
    const order: string[] = [];
    const work = (name: string) => async () => {
      order.push(`${name} in`);
      for (let turn = 0; turn < 5; turn++) await Promise.resolve();
      order.push(`${name} out`);
    };
    await Promise.all(["a", "b", "c"].map((name) => guards.run("volume/x", work(name))));
    assert.deepEqual(order, ["a in", "a out", "b in", "b out", "c in", "c out"]);
    assert.equal(guards.busy("volume/x"), false);
  });

  test("run() answers conflict when it stays busy, and is free again after", async () => {
    const clock = new ManualClock();
    const guards = new Guards(clock);
    let end = (): void => {};
    const first = guards.run(
      "pool/x",
      () =>
        new Promise<void>((resolve) => {
          end = resolve;
        }),
    );
    const second = assert.rejects(
      guards.run("pool/x", async () => {}),
      { kind: "conflict" },
    );
    await clock.advance(10_001);
    await second;
    end();
    await first;
    assert.equal(await guards.run("pool/x", async () => "in"), "in");
  });

  test("tryRun() does not wait, and frees the guard when the work fails", async () => {
    const guards = new Guards(new ManualClock());
    await guards.run("node/x", async () => {
      assert.equal(await guards.tryRun("node/x", async () => "in"), null);
    });
    await assert.rejects(guards.tryRun("node/x", () => Promise.reject(new Error("bad"))));
    assert.equal(await guards.tryRun("node/x", async () => "in"), "in");
  });
});
