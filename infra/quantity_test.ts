import assert from "node:assert/strict";
import { test } from "node:test";
import { canonicalQuantity } from "./quantity.ts";

test("canonicalQuantity() writes amounts as the API server keeps them", () => {
  for (const [given, kept] of [
    ["1000m", "1"],
    ["1500m", "1500m"],
    ["0.5", "500m"],
    ["2.0", "2"],
    ["1000", "1k"],
    ["0", "0"],
    ["0m", "0"],
    ["1024Mi", "1Gi"],
    ["1.5Gi", "1536Mi"],
    ["512Mi", "512Mi"],
    ["10Gi", "10Gi"],
    ["1500M", "1500M"],
    ["2000M", "2G"],
    ["100m", "100m"],
    ["1e3", "1e3"],
    ["a lot", "a lot"],
    ["", ""],
  ] as const) {
    assert.equal(canonicalQuantity(given), kept, given);
  }
});
