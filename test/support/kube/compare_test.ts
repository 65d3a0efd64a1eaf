import assert from "node:assert/strict";
import { test } from "node:test";
import { amount, missing } from "./compare.ts";

test("missing() accepts what the server adds and finds what it dropped or changed", () => {
  const wanted = { spec: { replicas: 3, list: [{ a: 1 }, { b: "x" }], flag: true } };
  const added = { spec: { replicas: 3, list: [{ a: 1, d: 9 }, { b: "x" }], flag: true }, more: 1 };
  assert.deepEqual(missing(wanted, added), []);
  assert.deepEqual(missing(wanted, { spec: { ...added.spec, flag: undefined } }), [
    ".spec.flag: wanted true, found undefined",
  ]);
  assert.deepEqual(missing(wanted, { spec: { ...added.spec, replicas: 2 } }), [
    ".spec.replicas: wanted 3, found 2",
  ]);
  assert.deepEqual(missing([1, 2], [1, 2, 3], "list"), ["list: wanted [1,2], found [1,2,3]"]);
  assert.deepEqual(missing({ a: [{ b: 1 }] }, { a: [{ b: 2 }] }), [".a[0].b: wanted 1, found 2"]);
});

test("missing() takes empty and absent for the same, but not empty and full", () => {
  assert.deepEqual(missing({ a: [], b: {}, c: "" }, {}), []);
  assert.deepEqual(missing({ a: [1] }, {}), [".a: wanted [1], found undefined"]);
  assert.deepEqual(missing({ a: false }, {}), [".a: wanted false, found undefined"]);
  assert.deepEqual(missing({ a: "" }, { a: "b" }), ['.a: wanted "", found "b"']);
});

test("missing() compares amounts as amounts, and only where amounts are", () => {
  assert.equal(amount("1500m"), 1.5);
  assert.equal(amount("2Gi"), 2 ** 31);
  assert.equal(amount("5s"), null);
  assert.deepEqual(missing({ limits: { cpu: "1000m" } }, { limits: { cpu: "1" } }), []);
  assert.equal(missing({ limits: { cpu: "1000m" } }, { limits: { cpu: "2" } }).length, 1);
  assert.equal(missing({ args: { cpu: "1000m" } }, { args: { cpu: "1" } }).length, 1);
});
