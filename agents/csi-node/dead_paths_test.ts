/** Which paths are dead: those that do not work, not those that are only being made. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, dropDeadPaths } from "./nvme.ts";
import type { NodeSystem } from "./system.ts";
import { FakeSystem, MACHINE } from "./testing/fake_system.ts";
import { HOST, V } from "./testing/rig.ts";

const at = (address: string) => ({
  ...{ nqn: `nqn.2019-05.io.openebs:${V}`, address, port: 4421, hostNqn: HOST },
  ...{ keepAliveTmo: null, reconnectDelay: null, ctrlLossTmo: null, nrIoQueues: null },
});

test("a path that is being made is not taken for a dead one", async (t) => {
  const system = new FakeSystem(t);
  await connect(system, at("10.1.0.5"), MACHINE);
  const setState = (name: string, state: string) =>
    system.put(`/sys/class/nvme/${name}/state`, `${state}\n`);
  // As the kernel does it: the controller is there before the connection has been made.
  const slow: NodeSystem = Object.create(system, {
    connectFabrics: {
      value: async (line: string) => {
        const answer = await system.connectFabrics(line);
        setState("nvme1", "connecting");
        await dropDeadPaths(slow, at("10.1.0.5"));
        return answer;
      },
    },
    ...Object.fromEntries(
      (["list", "readText", "writeText"] as const).map((name) => [
        name,
        { value: system[name].bind(system) },
      ]),
    ),
  });
  await connect(slow, at("10.1.0.6"), MACHINE);
  assert.deepEqual(system.controllers, ["nvme0", "nvme1"]);
  setState("nvme1", "new");
  await dropDeadPaths(slow, at("10.1.0.5"));
  assert.deepEqual(system.controllers, ["nvme0", "nvme1"]);
  setState("nvme1", "connecting");
  await dropDeadPaths(slow, at("10.1.0.5"));
  assert.deepEqual(system.controllers, ["nvme0"], "it has been made, and does not work any more");
});
