import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { MemoryStore } from "#common/store/memory.ts";
import type { ObjectStore, Txn } from "#common/store/mod.ts";
import { NexusInfoPersister, type PutEvent } from "./persist.ts";

type Answer = { id: bigint; failure: string | null };

type Store = Pick<ObjectStore, "get" | "txn">;

/** A store whose puts go through `puts` first. */
function storeOf(puts: (key: string, value: string) => Promise<void>): Store {
  const memory = new MemoryStore();
  return {
    get: (key) => memory.get(key),
    txn: async (txn) => {
      for (const op of txn.apply) if (op.op === "put") await puts(op.key, op.value);
      return memory.txn(txn);
    },
  };
}

function rig(puts: ((key: string, value: string) => Promise<void>) | Store, attempts = 3) {
  const clock = new ManualClock();
  const answers: Answer[] = [];
  const persister = new NexusInfoPersister({
    store: typeof puts === "function" ? storeOf(puts) : puts,
    attempts,
    clock,
    log: silentLog,
    answer: (id, failure) => answers.push({ id, failure }),
  });
  return { clock, answers, persister };
}

const put = (id: bigint, key: string, json: string): PutEvent => ({ type: "put", id, key, json });
const down = () => Promise.reject(new SvcError("unavailable", "etcd is down"));

test("NexusInfoPersister answers after the store has the record", async () => {
  const stored: string[] = [];
  const { persister, answers } = rig(async (key, value) => void stored.push(`${key}=${value}`));
  persister.accept(put(1n, "k", "v"));
  await persister.idle();
  assert.deepEqual(stored, ["k=v"]);
  assert.deepEqual(answers, [{ id: 1n, failure: null }]);
});

test("NexusInfoPersister retries, then gives up with the reason", async () => {
  let calls = 0;
  const { persister, answers, clock } = rig(() => {
    calls++;
    return down();
  });
  persister.accept(put(7n, "k", "v"));
  for (let turn = 0; turn < 5; turn++) await clock.advance(1_000);
  await persister.idle();
  assert.equal(calls, 3);
  assert.equal(answers.length, 1);
  assert.match(answers[0]?.failure ?? "", /Cannot store NexusInfo at k: etcd is down/);
});

test("NexusInfoPersister gives up sooner once it was told to hurry", async () => {
  let calls = 0;
  const { persister, answers, clock } = rig(() => {
    calls++;
    return down();
  }, 100);
  persister.accept(put(1n, "k", "v"));
  await clock.advance(0);
  persister.hurry();
  for (let turn = 0; turn < 5; turn++) await clock.advance(1_000);
  await persister.idle();
  assert.equal(calls, 3);
  assert.equal(answers.length, 1);
});

test("NexusInfoPersister keeps the order of one key over retries, and keys apart", async () => {
  const stored: string[] = [];
  let failures = 1;
  const { persister, answers, clock } = rig(async (key, value) => {
    if (key === "a" && failures-- > 0) await down();
    stored.push(`${key}=${value}`);
  });
  persister.accept(put(1n, "a", "1"));
  persister.accept(put(2n, "a", "2"));
  persister.accept(put(3n, "b", "1"));
  await clock.advance(0);
  assert.deepEqual(stored, ["b=1"]);
  await clock.advance(1_000);
  await persister.idle();
  assert.deepEqual(stored, ["b=1", "a=1", "a=2"]);
  assert.deepEqual(
    answers.map((answer) => answer.id),
    [3n, 1n, 2n],
  );
});

test("NexusInfoPersister without a store answers at once", async () => {
  const answers: Answer[] = [];
  const persister = new NexusInfoPersister({
    store: null,
    attempts: 1,
    clock: new ManualClock(),
    log: silentLog,
    answer: (id, failure) => answers.push({ id, failure }),
  });
  persister.accept(put(1n, "k", "v"));
  await persister.idle();
  assert.deepEqual(answers, [{ id: 1n, failure: null }]);
});

test("NexusInfoPersister is not undone by a put that timed out and arrives late", async () => {
  const memory = new MemoryStore();
  const underway: Txn[] = [];
  let lost = 1;
  const { persister, answers, clock } = rig({
    get: (key) => memory.get(key),
    txn: async (txn) => {
      if (lost-- <= 0) return memory.txn(txn);
      underway.push(txn);
      throw new SvcError("deadline-exceeded", "no answer; the outcome is unknown");
    },
  });
  persister.accept(put(1n, "k", "b is healthy"));
  await clock.advance(0);
  await clock.advance(1_000);
  await persister.idle();
  persister.accept(put(2n, "k", "b is not healthy"));
  await persister.idle();
  assert.deepEqual(answers, [
    { id: 1n, failure: null },
    { id: 2n, failure: null },
  ]);
  assert.equal(underway.length, 1);
  for (const late of underway) await memory.txn(late);
  assert.equal((await memory.get("k"))?.value, "b is not healthy");
});

test("NexusInfoPersister tries again when its own late put came in between", async () => {
  const memory = new MemoryStore();
  const underway: Txn[] = [];
  const { persister, answers, clock } = rig({
    get: (key) => memory.get(key),
    txn: async (txn) => {
      const late = underway.shift();
      if (late)
        await memory.txn(late); // right before the second try
      else if ((await memory.get("k")) === null) {
        underway.push(txn);
        throw new SvcError("deadline-exceeded", "no answer; the outcome is unknown");
      }
      return memory.txn(txn);
    },
  });
  persister.accept(put(1n, "k", "v"));
  await clock.advance(0);
  for (let turn = 0; turn < 3; turn++) await clock.advance(1_000);
  await persister.idle();
  assert.deepEqual(answers, [{ id: 1n, failure: null }]);
  assert.equal((await memory.get("k"))?.value, "v");
});
