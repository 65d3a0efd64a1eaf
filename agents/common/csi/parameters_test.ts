/** What is said to a parameter that is not known. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { PARAMETER } from "./driver.ts";
import { checkParameterNames, nearestParameter, normalParameters } from "./parameters.ts";

test("a name that is meant is found, one that is like none is not", () => {
  for (const [given, meant] of [
    ["Repl", "repl"],
    ["REPL", "repl"],
    ["repl_count", "repl"],
    ["replicas", "repl"],
    ["replica-count", "repl"],
    ["repls", "repl"],
    ["numReplicas", "repl"],
    ["thinProvisioned", "thin"],
    ["tin", "thin"],
    ["io_timeout", "ioTimeout"],
    ["ioTimeot", "ioTimeout"],
    ["nvmeCtrlLossTimeout", "nvmeCtrlLossTmo"],
    ["nvme_nr_io_queues", "nvmeNrIoQueues"],
    ["filesystem", "fsType"],
    ["protocl", "protocol"],
    ["StsAffinityGroup", "stsAffinityGroup"],
    ["colour", null],
    ["", null],
    ["x".repeat(100_000), null],
  ] as const) {
    assert.equal(nearestParameter(given), meant, given.slice(0, 20));
  }
});

test("known names pass, and Kubernetes' own; any other is refused with what was meant", () => {
  for (const name of [...Object.values(PARAMETER), "fstype", "csi.storage.k8s.io/fstype"]) {
    checkParameterNames("test", { [name]: "x" });
  }
  checkParameterNames("test", { fsType: "", "storage.kubernetes.io/csiProvisionerIdentity": "" });
  for (const [given, message] of [
    [{ replicas: "3" }, /"replicas" is not known: did you mean "repl"\?$/],
    [{ encrypted: "true" }, /encryption is not offered by this driver/],
    [{ poolHasTopologyKey: "a" }, /placement by labels is not offered/],
    [{ colour: "red" }, /known are repl, protocol, ioTimeout, /],
    [{ repl: "" }, /parameter repl is empty$/],
    [{ fsType: "xfs", fstype: "ext4" }, /fsType is given 2 times: fsType, fstype$/],
    [{ "csi.storage.k8s.io.evil/x": "1" }, /is not known/],
  ] as const) {
    assert.throws(() => checkParameterNames("test", given), { kind: "invalid-argument", message });
  }
});

test("fsType in another spelling is read as fsType", () => {
  assert.deepEqual(normalParameters({ fstype: "xfs", repl: "1" }), { fsType: "xfs", repl: "1" });
  assert.deepEqual(normalParameters({ repl: "1" }), { repl: "1" });
});
