import assert from "node:assert/strict";
import { test } from "node:test";
import { isKind } from "../errors.ts";
import { CALLS_MAX, UNREAD_BYTES_MAX, UNREAD_BYTES_OF_PEER_MAX, UnderWay } from "./under_way.ts";

const refused = (error: unknown) => isKind(error, "resource-exhausted");

test("UnderWay bounds calls, and lets further ones in as they end", () => {
  const all = new UnderWay();
  const calls = Array.from({ length: CALLS_MAX }, () => all.begin("a"));
  assert.throws(() => all.begin("b"), refused);
  calls[0]?.end();
  calls[0]?.end(); // told twice: counted once
  all.begin("b");
  assert.throws(() => all.begin("b"), refused);
});

test("UnderWay: who leaves answers unread is refused, others are answered; all goes back at the end", () => {
  const all = new UnderWay();
  const greedy = all.begin("a");
  greedy.answering(UNREAD_BYTES_OF_PEER_MAX); // a single one is let through
  assert.throws(() => all.begin("a"), refused);
  const honest = all.begin("b");
  honest.answering(1);
  honest.end();
  const others = ["c", "d"].map((peer) => all.begin(peer));
  others[0]?.answering(UNREAD_BYTES_MAX - UNREAD_BYTES_OF_PEER_MAX);
  assert.throws(() => others[1]?.answering(1), refused);
  greedy.end();
  others[1]?.answering(1);
  for (const call of others) call.end();
  assert.deepEqual([all.calls, all.bytes], [0, 0]);
});
