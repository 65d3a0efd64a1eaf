import assert from "node:assert/strict";
import { test } from "node:test";
import { Locks } from "./locks.ts";

const never = new AbortController().signal;

test("Locks.run() lets one holder in at a time, in order", async () => {
  const locks = new Locks();
  const trace: string[] = [];
  let finish: () => void = () => {};
  const first = locks.run("a", never, async () => {
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    trace.push("first");
  });
  const second = locks.run("a", never, async () => void trace.push("second"));
  const third = locks.run("a", never, async () => void trace.push("third"));
  await locks.run("b", never, async () => void trace.push("other name"));
  assert.deepEqual(trace, ["other name"]);
  finish();
  await Promise.all([first, second, third]);
  assert.deepEqual(trace, ["other name", "first", "second", "third"]);
  assert.equal(locks.size, 0);
});

test("Locks.run() gives up a waiter whose signal is aborted, without running it", async () => {
  const locks = new Locks();
  const stop = new AbortController();
  let finish: () => void = () => {};
  const held = locks.run(
    "a",
    never,
    () =>
      new Promise<void>((resolve) => {
        finish = resolve;
      }),
  );
  let ran = false;
  const waiting = locks.run("a", stop.signal, async () => {
    ran = true;
  });
  const failed = assert.rejects(waiting, { kind: "deadline-exceeded" });
  stop.abort(new Error("late"));
  await failed;
  finish();
  await held;
  assert.equal(ran, false);
  await locks.run("a", never, async () => {});
  assert.equal(locks.size, 0);
});

test("Locks.run() frees the lock when the work fails", async () => {
  const locks = new Locks();
  await assert.rejects(
    locks.run("a", never, () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.equal(await locks.run("a", never, async () => 7), 7);
});
