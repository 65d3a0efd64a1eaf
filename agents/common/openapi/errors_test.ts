import assert from "node:assert/strict";
import { test } from "node:test";
import { SVC_ERROR_KINDS, SvcError } from "../errors.ts";
import { ERROR_STATUS, fromRestError, REST_KIND, svcKind, toRestError } from "./errors.ts";
import { REST_ERROR_KINDS } from "./model.ts";

test("REST_KIND maps kinds one to one, each with a status", () => {
  assert.equal(SVC_ERROR_KINDS.length, REST_ERROR_KINDS.length);
  for (const kind of SVC_ERROR_KINDS) assert.equal(svcKind(REST_KIND[kind]), kind);
  for (const kind of REST_ERROR_KINDS) assert.ok(ERROR_STATUS[kind] >= 400);
});

test("toRestError() tells the chain in details and the innermost cause in message", () => {
  const inner = new Error("connection refused");
  const middle = new SvcError("unavailable", "Cannot reach node-1", { cause: inner });
  const outer = new SvcError("failed-precondition", "Cannot create pool", { cause: middle });
  assert.deepEqual(toRestError(outer), {
    details: "Cannot create pool: Cannot reach node-1: connection refused",
    message: "connection refused",
    kind: "FailedPrecondition",
  });
});

test("fromRestError() and toRestError() are inverse", () => {
  for (const body of [
    { details: "a: b", message: "b", kind: "InUse" as const },
    { details: "same", message: "same", kind: "NotFound" as const },
  ]) {
    assert.deepEqual(toRestError(fromRestError(body)), body);
  }
});
