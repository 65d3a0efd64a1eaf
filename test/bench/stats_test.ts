import assert from "node:assert/strict";
import { test } from "node:test";
import { median, spread, table } from "./stats.ts";

test("median() takes the middle, whatever the order", () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test("spread() relates the range to the median", () => {
  assert.equal(spread([90, 100, 110]), 0.2);
});

test("table() lines columns up", () => {
  assert.equal(
    table([
      ["what", "IOPS"],
      ["a", "10"],
    ]),
    "what  IOPS\na       10",
  );
});
