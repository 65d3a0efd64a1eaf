/** Leadership: one writer, fenced by the store itself. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ManualClock } from "../clock.ts";
import { SvcError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { storeKeys } from "./keys.ts";
import { LeaderLease } from "./leader_lease.ts";
import { MemoryStore } from "./memory.ts";
import type { ObjectStore, Txn } from "./mod.ts";

const TTL_MS = 30_000;

/** A machine that was suspended: only the wall clock went on. */
class SleepyClock extends ManualClock {
  sleptMs = 0;

  override now(): number {
    return super.now() + this.sleptMs;
  }
}

function rig() {
  const clock = new SleepyClock();
  const store = new MemoryStore(clock);
  const keys = storeKeys({ clusterUid: "c", namespace: "mayastor" });
  const signal = new AbortController().signal;
  const begin = (instanceName: string, behindLink: ObjectStore) => {
    const base = { keys, clock, log: silentLog, ttlMs: TTL_MS, instanceName };
    return LeaderLease.acquire({ ...base, store: behindLink }, signal);
  };
  /** `cut`: its lease cannot be kept, as if the network had gone. */
  const acquire = async (
    instanceName: string,
    { waitMs = 1000, link = { cut: false } }: { waitMs?: number; link?: { cut: boolean } } = {},
  ) => {
    let done = false;
    const lease = begin(instanceName, behind(store, link)).finally(() => {
      done = true;
    });
    lease.catch(() => {}); // awaited below
    for (let at = 0; at < waitMs && !done; at += 250) await clock.advance(250);
    return await lease;
  };
  return { clock, store, keys, begin, acquire };
}

/** The store as one sees it whose transactions hang until they are let go. */
function stalled(store: MemoryStore): {
  store: ObjectStore;
  letGo: () => void;
  waiting: () => number;
} {
  let letGo = (): void => {};
  let waiting = 0;
  const open = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const proxy = new Proxy(store, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      if (name !== "txn") return member.bind(target);
      return async (txn: Txn) => {
        waiting += 1;
        await open;
        return await target.txn(txn);
      };
    },
  });
  return { store: proxy, letGo, waiting: () => waiting };
}

/** The store as seen through a link that may be cut for keeping leases. */
function behind(store: MemoryStore, link: { cut: boolean }): ObjectStore {
  return new Proxy(store, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      if (name !== "leaseKeepAlive") return member.bind(target);
      return (id: bigint) =>
        link.cut ? Promise.reject(new SvcError("unavailable", "cut")) : target.leaseKeepAlive(id);
    },
  });
}

const put = (value: string) => [{ op: "put", key: "/spec", value } as const];

describe("LeaderLease", () => {
  test("acquire() writes lock and owner as published", async () => {
    const { store, keys, acquire } = rig();
    const lease = await acquire("pod-1");
    const lock = await store.get(keys.leaseLock("CoreAgent", lease.id));
    assert.equal(lock?.value, "");
    assert.equal(lock?.lease, lease.id);
    assert.deepEqual(JSON.parse((await store.get(keys.leaseOwner("CoreAgent")))?.value ?? ""), {
      kind: "CoreAgent",
      lease_id: lease.id.toString(16),
      instance_name: "pod-1",
    });
    await lease.close();
    assert.equal(await store.get(keys.leaseLock("CoreAgent", lease.id)), null);
  });

  test("acquire() gives up after a TTL while the holder lives", async () => {
    const { clock, acquire } = rig();
    const holder = await acquire("one");
    await assert.rejects(acquire("two", { waitMs: 2 * TTL_MS }), { kind: "failed-precondition" });
    await holder.write(put("still mine"));
    await clock.advance(TTL_MS);
    await holder.close();
  });

  test("acquire() takes over from a holder that died", async () => {
    const { store, acquire } = rig();
    const link = { cut: false };
    const dead = await acquire("one", { link });
    link.cut = true;
    const next = await acquire("two", { waitMs: 2 * TTL_MS });
    await next.write(put("new"));
    await assert.rejects(dead.write(put("late")), { kind: "unavailable" });
    assert.equal((await store.get("/spec"))?.value, "new");
    await next.close();
  });

  test("a former leader learns that it was replaced", async () => {
    const { clock, acquire } = rig();
    const link = { cut: false };
    const old = await acquire("one", { link });
    link.cut = true;
    const next = await acquire("two", { waitMs: 2 * TTL_MS });
    link.cut = false;
    await clock.advance(TTL_MS);
    assert.equal(old.replaced.aborted, true);
    assert.equal(next.replaced.aborted, false);
    await next.close();
  });

  test("a former leader that takes its lease again behind a successor's lock does not lead", async () => {
    const { clock, store, keys, begin, acquire } = rig();
    const link = { cut: false };
    const former = await acquire("one", { link });
    link.cut = true;
    const slow = stalled(store);
    const becoming = begin("two", slow.store);
    becoming.catch(() => {}); // awaited below
    while (slow.waiting() === 0) await clock.advance(250);
    // The successor has the lock and is about to write itself down; meanwhile the network is back.
    link.cut = false;
    await clock.advance(12_000);
    slow.letGo();
    await clock.advance(250);
    const next = await becoming;
    await next.write(put("new"));
    for (let again = 0; again < 8; again++) {
      await assert.rejects(former.write(put("late")), { kind: "unavailable" });
      await clock.advance(TTL_MS / 4);
    }
    assert.equal(former.replaced.aborted, true);
    assert.equal(next.replaced.aborted, false);
    assert.equal((await store.get("/spec"))?.value, "new");
    const owner = await store.get(keys.leaseOwner("CoreAgent"));
    assert.equal(JSON.parse(owner?.value ?? "").instance_name, "two");
    await next.write(put("newer"));
    await next.close();
  });

  test("write() is refused by the store itself when another one is written down as owner", async () => {
    const { store, keys, acquire } = rig();
    const lease = await acquire("one");
    const other = { kind: "CoreAgent", lease_id: "1", instance_name: "two" };
    await store.put(keys.leaseOwner("CoreAgent"), JSON.stringify(other));
    await assert.rejects(lease.write(put("late")), { kind: "unavailable" });
    assert.equal(await store.get("/spec"), null);
    await lease.close();
  });

  test("writeIf() writes while its condition holds, and says when it does not", async () => {
    const { store, keys, acquire } = rig();
    const lease = await acquire("one");
    const fresh = [{ target: "mod", key: "/spec", is: 0n }] as const;
    assert.equal(await lease.writeIf(fresh, put("first")), true);
    assert.equal(await lease.writeIf(fresh, put("second")), false);
    assert.equal((await store.get("/spec"))?.value, "first");
    assert.equal(lease.held, true, "the condition failed, not the lock");
    // Its own fence moves the owner's revision meanwhile: that is no answer to the condition.
    store.fault = ({ call }) => (call === "txn" ? "late" : "none");
    await assert.rejects(lease.writeIf(fresh, put("lost")), { kind: "unavailable" });
    store.fault = () => "none";
    const entry = await store.get("/spec");
    const same = [{ target: "mod", key: "/spec", is: entry?.modRevision ?? 0n }] as const;
    assert.equal(await lease.writeIf(same, put("third")), true);
    store.deliverLate();
    assert.equal((await store.get("/spec"))?.value, "third");
    const other = { kind: "CoreAgent", lease_id: "1", instance_name: "two" };
    await store.put(keys.leaseOwner("CoreAgent"), JSON.stringify(other));
    await assert.rejects(lease.writeIf([], put("late")), { kind: "unavailable" });
    await assert.rejects(lease.writeIf(fresh, put("late")), { kind: "unavailable" });
    await lease.close();
  });

  test("a write that failed without an answer takes no effect after a later one", async () => {
    const { store, acquire } = rig();
    const lease = await acquire("one");
    await lease.write(put("first"));
    store.fault = ({ call }) => (call === "txn" ? "late" : "none");
    await assert.rejects(lease.write(put("lost")), { kind: "unavailable" });
    store.fault = () => "none";
    await lease.write(put("second"));
    store.deliverLate();
    assert.equal((await store.get("/spec"))?.value, "second");
    await lease.write(put("third"));
    assert.equal((await store.get("/spec"))?.value, "third");
    await lease.close();
  });

  test("a fence that comes late itself, and writes at the same time, cost no write", async () => {
    const { store, acquire } = rig();
    const lease = await acquire("one");
    store.fault = ({ call }) => (call === "txn" ? "late" : "none");
    await assert.rejects(lease.write(put("lost")), { kind: "unavailable" });
    await assert.rejects(lease.write(put("lost")), { kind: "unavailable" }); // its fence is late now
    store.fault = () => "none";
    const both = [lease.write(put("a")), lease.write([{ op: "put", key: "/other", value: "b" }])];
    await Promise.all(both);
    store.deliverLate();
    assert.equal((await store.get("/spec"))?.value, "a");
    assert.equal((await store.get("/other"))?.value, "b");
    await lease.write(put("after it"));
    assert.equal((await store.get("/spec"))?.value, "after it");
    await lease.close();
  });

  test("leads is false before the lease can have run out, until it was kept again", async () => {
    const { clock, acquire } = rig();
    const link = { cut: false };
    const lease = await acquire("one", { link });
    assert.equal(lease.leads, true);
    link.cut = true;
    await clock.advance(TTL_MS * 0.85);
    assert.equal(lease.leads, true);
    await clock.advance(TTL_MS * 0.1);
    assert.equal(lease.leads, false);
    link.cut = false;
    await clock.advance(TTL_MS / 2);
    await clock.advance(TTL_MS / 2);
    assert.equal(lease.leads, true);
    clock.sleptMs = TTL_MS;
    assert.equal(lease.leads, false, "the machine slept");
    await clock.advance(TTL_MS / 2);
    assert.equal(lease.leads, true);
    await lease.close();
  });

  test("surelyLeads() asks the store at once when our clock cannot tell, once for all who ask", async () => {
    const { clock, store, keys, acquire } = rig();
    const link = { cut: false };
    const lease = await acquire("one", { link });
    link.cut = true;
    // The keeper has failed several times and pauses for longer than a caller waits.
    for (let step = 0; step < 20; step++) await clock.advance(TTL_MS / 10);
    assert.equal(await lease.surelyLeads(), false, "the store is away");
    link.cut = false;
    assert.equal(lease.leads, false);
    assert.deepEqual(
      await Promise.all([lease.surelyLeads(), lease.surelyLeads(), lease.surelyLeads()]),
      [true, true, true],
    );
    assert.equal(lease.leads, true);
    await lease.write(put("at once"));
    assert.equal((await store.get("/spec"))?.value, "at once");
    await lease.close();
    assert.equal(await lease.surelyLeads(), false);
    assert.deepEqual(await store.list(keys.leaseLockPrefix("CoreAgent")), [], "it stays given up");
  });

  test("a lease that ran out during an outage is taken again under the same id", async () => {
    const { clock, store, keys, acquire } = rig();
    const lease = await acquire("one");
    store.fault = () => "before";
    await clock.advance(3 * TTL_MS);
    await assert.rejects(lease.write(put("x")), { kind: "unavailable" });
    store.fault = () => "none";
    for (let step = 0; step < 8; step++) await clock.advance(TTL_MS / 4);
    await lease.write(put("again"));
    const lock = await store.get(keys.leaseLock("CoreAgent", lease.id));
    assert.equal(lock?.lease, lease.id);
    await lease.close();
  });

  test("a lease that ran out during an outage is taken again by the first write, though its keeper still pauses", async () => {
    const { clock, store, keys, acquire } = rig();
    const lease = await acquire("one");
    // Its keeper has just failed again and asks next in 10 s or more; the lease has run out meanwhile.
    store.fault = () => "before";
    for (let step = 0; step < 30; step++) await clock.advance(TTL_MS / 10);
    await assert.rejects(lease.write(put("x")), { kind: "unavailable" });
    store.fault = () => "none";
    assert.equal(await store.get(keys.leaseLock("CoreAgent", lease.id)), null);
    const other = lease.write([{ op: "put", key: "/other", value: "b" }]);
    await Promise.all([lease.write(put("at once")), other]);
    assert.equal((await store.get("/spec"))?.value, "at once");
    assert.equal((await store.get("/other"))?.value, "b");
    assert.equal(lease.held, true);
    await lease.close();
  });

  test("a write that is refused says why: no store, a successor, or the end of this one", async () => {
    const { clock, store, acquire } = rig();
    const link = { cut: false };
    const lease = await acquire("one", { link });
    link.cut = true;
    const next = await acquire("two", { waitMs: 2 * TTL_MS });
    await assert.rejects(lease.write(put("x")), { message: /does not answer; the leader lease/ });
    link.cut = false;
    await assert.rejects(lease.write(put("x")), { message: /another agent-core took over/ });
    await assert.rejects(lease.write(put("x")), { message: /another agent-core took over/ });
    await clock.advance(TTL_MS / 4);
    await next.close();
    await assert.rejects(next.write(put("x")), { kind: "unavailable" });
    await assert.rejects(next.write(put("x")), { message: /is stopping/ });
    assert.equal(await store.get("/spec"), null);
  });
});
