import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { MemoryStore } from "#common/store/memory.ts";
import type { ObjectStore, Txn } from "#common/store/mod.ts";
import { NexusInfoPersister, type PutAnswer, type PutEvent } from "./persist.ts";

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
  const answers: PutAnswer[] = [];
  const persister = new NexusInfoPersister({
    store: typeof puts === "function" ? storeOf(puts) : puts,
    attempts,
    clock,
    log: silentLog,
    answer: (answer) => answers.push(answer),
  });
  return { clock, answers, persister };
}

/** Of a nexus's first put, unless it names the revision of the one before. */
const put = (id: bigint, key: string, json: string, replaces: bigint | null = null): PutEvent => ({
  ...{ type: "put", id, key, json, replaces },
});
const down = () => Promise.reject(new SvcError("unavailable", "etcd is down"));

test("NexusInfoPersister answers after the store has the record", async () => {
  const stored: string[] = [];
  const { persister, answers } = rig(async (key, value) => void stored.push(`${key}=${value}`));
  persister.accept(put(1n, "k", "v"));
  await persister.idle();
  assert.deepEqual(stored, ["k=v"]);
  assert.deepEqual(answers, [{ id: 1n, failure: null, revision: 2n }]);
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
  const answers: PutAnswer[] = [];
  const persister = new NexusInfoPersister({
    store: null,
    attempts: 1,
    clock: new ManualClock(),
    log: silentLog,
    answer: (answer) => answers.push(answer),
  });
  persister.accept(put(1n, "k", "v"));
  await persister.idle();
  assert.deepEqual(answers, [{ id: 1n, failure: null, revision: 0n }]);
});

/** A store whose first `lost` transactions are under way and get no answer; `deliver` lets them arrive. */
function losing(lost: number) {
  const memory = new MemoryStore();
  const underway: Txn[] = [];
  const store: Store = {
    get: (key) => memory.get(key),
    txn: async (txn) => {
      if (lost-- <= 0) return memory.txn(txn);
      underway.push(txn);
      throw new SvcError("deadline-exceeded", "no answer; the outcome is unknown");
    },
  };
  const deliver = async () => {
    const arrived: boolean[] = [];
    for (const late of underway.splice(0)) arrived.push((await memory.txn(late)) !== null);
    return arrived;
  };
  return { memory, store, deliver };
}

test("NexusInfoPersister is not undone by a put that timed out and arrives late", async () => {
  const { memory, store, deliver } = losing(1);
  const { persister, answers, clock } = rig(store);
  persister.accept(put(1n, "k", "b is healthy"));
  await clock.advance(0);
  await clock.advance(1_000);
  await persister.idle();
  persister.accept(put(2n, "k", "b is not healthy", 2n));
  await persister.idle();
  assert.deepEqual(answers, [
    { id: 1n, failure: null, revision: 2n },
    { id: 2n, failure: null, revision: 3n },
  ]);
  assert.deepEqual(await deliver(), [false]);
  assert.equal((await memory.get("k"))?.value, "b is not healthy");
});

test("NexusInfoPersister tries a first put again when its own late try came in between", async () => {
  const { memory, store, deliver } = losing(1);
  const { persister, answers, clock } = rig({
    get: (key) => store.get(key),
    txn: async (txn) => {
      await deliver(); // right before the second try
      return store.txn(txn);
    },
  });
  persister.accept(put(1n, "k", "v"));
  await clock.advance(0);
  for (let turn = 0; turn < 3; turn++) await clock.advance(1_000);
  await persister.idle();
  assert.deepEqual(answers, [{ id: 1n, failure: null, revision: 3n }]);
  assert.equal((await memory.get("k"))?.value, "v");
});

test("NexusInfoPersister takes a late try of a later put for its own", async () => {
  for (const arrives of ["before", "after"] as const) {
    const { memory, store, deliver } = losing(1);
    await memory.put("k", "b is healthy");
    const { persister, answers, clock } = rig(store);
    persister.accept(put(2n, "k", "b is not healthy", 2n));
    await clock.advance(0);
    if (arrives === "before") assert.deepEqual(await deliver(), [true]);
    await clock.advance(1_000);
    await persister.idle();
    if (arrives === "after") assert.deepEqual(await deliver(), [false]);
    assert.deepEqual(answers, [{ id: 2n, failure: null, revision: 3n }], arrives);
    assert.equal((await memory.get("k"))?.value, "b is not healthy");
    persister.accept(put(3n, "k", "b is healthy again", 3n));
    await persister.idle();
    assert.equal(answers.at(-1)?.failure, null, "and goes on from there");
  }
});

/** Puts with the record at revision 2, after `meanwhile`; nothing but the end of the put may take time. */
async function putAfter(meanwhile: (memory: MemoryStore) => Promise<unknown>) {
  const memory = new MemoryStore();
  const { persister, answers } = rig(memory, 100);
  persister.accept(put(1n, "k", "b is healthy"));
  await persister.idle();
  await meanwhile(memory);
  persister.accept(put(2n, "k", "b is not healthy", 2n));
  await persister.idle(); // nobody moves the clock: no second try
  return { persister, memory, answer: answers.at(-1) };
}

test("NexusInfoPersister fails at once when the record was fenced, and leaves it alone", async () => {
  const { persister, memory, answer } = await putAfter((store) => store.put("k", "fenced"));
  assert.match(answer?.failure ?? "", /Cannot store NexusInfo at k: it was changed or removed/);
  assert.equal(answer?.revision, 0n);
  assert.equal((await memory.get("k"))?.value, "fenced");
  persister.accept(put(3n, "k", "the nexus was made again"));
  await persister.idle();
  assert.equal((await memory.get("k"))?.value, "the nexus was made again");
});

test("NexusInfoPersister fails at once when the record is gone, or says the same by another's hand", async () => {
  const gone = await putAfter((store) => store.delete("k"));
  assert.match(gone.answer?.failure ?? "", /it was changed or removed/);
  assert.equal(await gone.memory.get("k"), null);
  const again = await putAfter(async (store) => {
    await store.delete("k");
    await store.put("k", "b is healthy");
  });
  assert.match(again.answer?.failure ?? "", /it was changed or removed/);
});

test("NexusInfoPersister is refused when the fence comes between a lost try and the next one", async () => {
  for (const arrives of ["before", "after"] as const) {
    const { memory, store, deliver } = losing(1);
    await memory.put("k", "b is healthy");
    const { persister, answers, clock } = rig(store);
    persister.accept(put(2n, "k", "b is not healthy", 2n));
    await clock.advance(0);
    if (arrives === "before") assert.deepEqual(await deliver(), [true]);
    await memory.put("k", "fenced");
    if (arrives === "after") assert.deepEqual(await deliver(), [false]);
    await clock.advance(1_000);
    await persister.idle();
    assert.match(answers[0]?.failure ?? "", /it was changed or removed/, arrives);
    assert.equal((await memory.get("k"))?.value, "fenced");
  }
});
