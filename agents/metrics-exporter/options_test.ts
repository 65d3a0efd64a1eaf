import assert from "node:assert/strict";
import { test } from "node:test";
import { isKind } from "#common/errors.ts";
import { readConfig } from "./options.ts";

const env = { MY_POD_IP: "10.1.0.6", MY_NODE_NAME: "worker-0" };

test("readConfig() reads what the chart passes", () => {
  assert.deepEqual(readConfig(["-p5m", "--api-versions=v1"], env), {
    listen: { host: "0.0.0.0", port: 9502 },
    pollingMs: 300_000,
    engine: "10.1.0.6:10124",
    node: "worker-0",
  });
  const config = readConfig(["-a", "v0,v1", "-m", "[::]:1"], { ...env, MY_POD_IP: "fd00::6" });
  assert.deepEqual(config?.listen, { host: "::", port: 1 });
  assert.equal(config?.engine, "[fd00::6]:10124");
});

const bad: readonly [string, readonly string[], Record<string, string>, RegExp][] = [
  ["no versions", [], env, /--api-versions is required/],
  ["an unknown version", ["-a", "v9"], env, /"v9" is not a version/],
  ["v0 alone", ["-a", "v0"], env, /add v1/],
  ["no pod address", ["-a", "v1"], { MY_NODE_NAME: "n" }, /MY_POD_IP/],
  ["no node name", ["-a", "v1"], { MY_POD_IP: "10.0.0.1" }, /MY_NODE_NAME/],
  ["a bad address", ["-a", "v1", "-m", "9502"], env, /metrics-endpoint/],
  ["no time at all", ["-a", "v1", "-p", "0s"], env, /polling-time/],
];
for (const [what, args, environment, message] of bad) {
  test(`readConfig() refuses ${what}`, () => {
    assert.throws(
      () => readConfig(args, environment),
      (error) => isKind(error, "invalid-argument") && message.test(error.message),
    );
  });
}
