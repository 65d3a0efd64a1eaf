import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFlags, parseGates } from "./flags.ts";
import { quantity, quantityText, topologies } from "./provisioner.ts";

test("parseFlags() reads flags as Go does and refuses unknown ones", () => {
  const known = { v: "text", "csi-address": "text", "extra-create-metadata": "bool" } as const;
  const args = ["--v=2", "-csi-address", "/run/csi.sock", "--extra-create-metadata"];
  assert.deepEqual(parseFlags(args, known), {
    v: "2",
    "csi-address": "/run/csi.sock",
    "extra-create-metadata": "true",
  });
  for (const bad of [["--csi-adress=x"], ["x"], ["--v"], ["--constructor=x"]])
    assert.throws(() => parseFlags(bad, known), /flag/, bad.join(" "));
});

test("parseGates() reads switches", () => {
  assert.deepEqual(parseGates("Topology=true,Other=false"), { Topology: true, Other: false });
  assert.throws(() => parseGates("Topology"), /invalid feature gate/);
});

test("quantity() and quantityText() turn sizes around", () => {
  assert.equal(quantity("1Gi"), 1073741824n);
  assert.equal(quantity("5M"), 5000000n);
  assert.equal(quantityText(1073741824n), "1Gi");
  assert.equal(quantityText(1073741825n), "1073741825");
  assert.throws(() => quantity("1.5Gi"), /no whole quantity/);
});

test("topologies() lists nodes that run the driver, the selected one first", () => {
  const meta = (name: string, labels = {}) => ({
    metadata: { name, uid: name, resourceVersion: "1", labels },
  });
  const csiNode = (name: string, keys: readonly string[]) => ({
    ...meta(name),
    spec: { drivers: [{ name: "d", topologyKeys: keys }] },
  });
  const nodes = new Map(["a", "b", "c"].map((name) => [name, meta(name, { k: name })]));
  const csiNodes = [csiNode("a", ["k"]), csiNode("b", ["k"]), csiNode("c", ["missing"])];
  const found = topologies("d", "b", { csiNodes, nodes });
  assert.deepEqual(found, [{ k: "b" }, { k: "a" }]);
  assert.deepEqual(topologies("other", undefined, { csiNodes, nodes }), []);
});
