/** The contract of ObjectStore, held by etcd and by its in-memory twin alike. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../clock.ts";
import { EtcdStore, etcdHosts } from "./etcd.ts";
import { MemoryStore } from "./memory.ts";
import type { ObjectStore, StoreEvent } from "./mod.ts";
import { EtcdServer, etcdMissing } from "./testing/etcd.ts";

test("etcdHosts() fills in scheme and port", () => {
  assert.deepEqual(etcdHosts("etcd"), ["http://etcd:2379"]);
  assert.deepEqual(etcdHosts("https://a, b:1/"), ["https://a:2379", "http://b:1"]);
});

type Rig = { readonly store: ObjectStore; readonly close: () => Promise<void> };

const RIGS: readonly { name: string; skip: string | false; make: () => Promise<Rig> }[] = [
  {
    name: "MemoryStore",
    skip: false,
    make: async () => {
      const store = new MemoryStore();
      return { store, close: () => store.close() };
    },
  },
  {
    name: "EtcdStore",
    skip: etcdMissing(),
    make: async () => {
      const server = await EtcdServer.create();
      const store = new EtcdStore({ endpoints: server.endpoint, timeoutMs: 5000 });
      const close = async () => {
        await store.close();
        await server.stop();
      };
      return { store, close };
    },
  },
];

/** Waits for an event that must come; the test runner's own timeout bounds it. */
async function eventually(done: () => boolean): Promise<void> {
  while (!done()) await systemClock.sleep(5);
}

for (const { name, skip, make } of RIGS) {
  describe(name, { skip, timeout: 60_000 }, () => {
    let rig: Rig;
    let store: ObjectStore;
    before(async () => {
      rig = await make();
      store = rig.store;
    });
    after(() => rig.close());

    test("get() of a missing key is null", async () => {
      assert.equal(await store.get("/missing"), null);
    });

    test("put() then get() gives the value back, with revisions that grow", async () => {
      await store.put("/a/1", "one");
      const first = await store.get("/a/1");
      await store.put("/a/1", "zwei ü");
      const second = await store.get("/a/1");
      assert.ok(first && second);
      assert.equal(first.value, "one");
      assert.equal(second.value, "zwei ü");
      assert.equal(second.createRevision, first.createRevision);
      assert.equal(second.modRevision, first.modRevision + 1n);
      assert.equal(second.lease, 0n);
    });

    test("delete() says whether the key existed", async () => {
      await store.put("/d", "x");
      assert.equal(await store.delete("/d"), true);
      assert.equal(await store.delete("/d"), false);
      assert.equal(await store.get("/d"), null);
    });

    test("list() returns what is below a prefix, in key order, over pages", async () => {
      for (const index of [3, 1, 2, 5, 4]) await store.put(`/list/${index}`, `${index}`);
      await store.put("/listing", "not below");
      const entries = await store.list("/list/", { pageSize: 2 });
      assert.deepEqual(
        entries.map((entry) => entry.value),
        ["1", "2", "3", "4", "5"],
      );
      assert.deepEqual(await store.list("/none/"), []);
    });

    test("deletePrefix() deletes what is below a prefix and nothing else", async () => {
      await store.put("/dp/1", "");
      await store.put("/dp/2", "");
      await store.put("/dp", "stays");
      assert.equal(await store.deletePrefix("/dp/"), 2);
      assert.equal((await store.get("/dp"))?.value, "stays");
    });

    test("txn() applies one branch or the other", async () => {
      const created = { target: "create", key: "/t", is: 0n } as const;
      const apply = [{ op: "put", key: "/t", value: "new" }] as const;
      const otherwise = [{ op: "put", key: "/t/lost", value: "yes" }] as const;
      assert.notEqual(await store.txn({ when: [created], apply, otherwise }), null);
      assert.equal(await store.txn({ when: [created], apply, otherwise }), null);
      assert.equal((await store.get("/t"))?.value, "new");
      assert.equal((await store.get("/t/lost"))?.value, "yes");
    });

    test("txn() tells the revision of what it put", async () => {
      const when = [{ target: "mod", key: "/rev/1", is: 0n }] as const;
      const apply = ["/rev/1", "/rev/2"].map((key) => ({ op: "put", key, value: "x" }) as const);
      const revision = await store.txn({ when, apply });
      await store.put("/rev/3", "later");
      assert.ok(revision !== null);
      assert.equal((await store.get("/rev/1"))?.modRevision, revision);
      assert.equal((await store.get("/rev/2"))?.modRevision, revision);
      const now = (await store.get("/rev/3"))?.modRevision;
      assert.equal(
        await store.txn({ when: [], apply: [] }),
        now,
        "nothing changed: the present one",
      );
    });

    test("txn() compares values and mod revisions", async () => {
      await store.put("/cas", "1");
      const entry = await store.get("/cas");
      assert.ok(entry);
      const put = (value: string) => [{ op: "put", key: "/cas", value }] as const;
      const { modRevision } = entry;
      const mod = { target: "mod", key: "/cas", is: modRevision } as const;
      assert.notEqual(await store.txn({ when: [mod], apply: put("2") }), null);
      assert.equal(await store.txn({ when: [mod], apply: put("3") }), null);
      const value = { target: "value", key: "/cas", is: "2" } as const;
      assert.notEqual(await store.txn({ when: [value], apply: put("4") }), null);
      assert.equal((await store.get("/cas"))?.value, "4");
    });

    test("txn() compares the lease of a key, which is 0 when the key is missing", async () => {
      const { id } = await store.leaseGrant({ ttlSec: 60 });
      await store.put("/leased", "", { lease: id });
      assert.equal((await store.get("/leased"))?.lease, id);
      const holds = async (key: string, is: bigint) =>
        (await store.txn({ when: [{ target: "lease", key, is }], apply: [] })) !== null;
      assert.equal(await holds("/leased", id), true);
      assert.equal(await holds("/leased", id + 1n), false);
      assert.equal(await holds("/no-such-key", id), false);
      await store.leaseRevoke(id);
      assert.equal(await store.get("/leased"), null);
      assert.equal(await holds("/leased", id), false);
    });

    test("leaseGrant() gives the id asked for; leaseKeepAlive() tells a live lease from a gone one", async () => {
      const id = 0x1234567890abcden;
      assert.equal((await store.leaseGrant({ ttlSec: 30, id })).id, id);
      assert.equal(await store.leaseKeepAlive(id), 30);
      await store.leaseRevoke(id);
      assert.equal(await store.leaseKeepAlive(id), 0);
      await store.leaseRevoke(id); // gone already: fine
      await assert.rejects(store.put("/late", "", { lease: id }), { kind: "not-found" });
    });

    test("watchPrefix() sees every later change, in order, and stops at close()", async () => {
      const events: StoreEvent[] = [];
      await store.put("/w/before", "");
      const watch = await store.watchPrefix("/w/", (event) => events.push(event));
      await store.put("/w/1", "a");
      await store.put("/other", "b");
      await store.delete("/w/1");
      await eventually(() => events.length === 2);
      const seen = events.map((event) => [event.type, event.type === "put" && event.entry.value]);
      assert.deepEqual(seen, [
        ["put", "a"],
        ["delete", false],
      ]);
      await watch.close();
      await store.put("/w/2", "after close");
      assert.equal(events.length, 2);
    });
  });
}
