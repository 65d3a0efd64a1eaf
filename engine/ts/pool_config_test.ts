import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePoolConfig } from "./pool_config.ts";

test("parsePoolConfig() reads pools", () => {
  const text = "pools:\n  - name: p1\n    disks: [/dev/sdb]\n    replicas: []\n";
  assert.deepEqual(parsePoolConfig(text, "f").pools[0]?.disks, ["/dev/sdb"]);
  assert.deepEqual(parsePoolConfig("", "f").pools, []);
});

test("parsePoolConfig() says what is wrong and where", () => {
  for (const text of ["pools: [{name: p1}]", "pools: 7", "pools: [{name: p, disks: []}]", "{"]) {
    assert.throws(() => parsePoolConfig(text, "/etc/pools.yaml"), {
      kind: "invalid-argument",
      message: /Cannot read pool configuration \/etc\/pools.yaml/,
    });
  }
});
