import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { NexusInfoPersister, type PutEvent } from "./persist.ts";

type Answer = { id: bigint; failure: string | null };

function rig(puts: (key: string, value: string) => Promise<void>, attempts = 3) {
  const clock = new ManualClock();
  const answers: Answer[] = [];
  const persister = new NexusInfoPersister({
    store: { put: puts },
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
