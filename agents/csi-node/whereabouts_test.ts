/** A volume whose target has moved away from its published address: found again, and never mistaken. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import type { Volume } from "#common/openapi/model.ts";
import { block, HOST, STAGING, stageOf, start, unstageOf, uriOf, V, W } from "./testing/rig.ts";
import { type ReadVolume, restVolumes, whereIs } from "./whereabouts.ts";

const FORMER = "10.1.0.5";
const NOW = "10.1.0.6";
const OTHER_HOST = "nqn.2019-05.io.openebs:node-name:worker-2";
const us = [{ name: "worker-1", nqn: HOST }];
const bare = (uri: string) => uri.split("?")[0] ?? "";

function volumeAt(
  uri: string,
  {
    nodes = us,
    status = "Created" as const,
  }: { nodes?: typeof us; status?: "Created" | "Deleting" } = {},
): Volume {
  const size = 2 ** 20;
  const policy = { self_heal: true };
  const target = { node: "node-1", protocol: "nvmf" as const };
  const nexus = { ...{ uuid: V, node: "node-1", size, state: "Online" as const, children: [] } };
  return {
    spec: {
      ...{ uuid: V, size, thin: false, policy, num_replicas: 1, status },
      target: nodes.length === 0 ? target : { ...target, frontend_nodes: nodes },
    },
    state: {
      ...{ uuid: V, size, status: "Online", replica_topology: {} },
      target: { ...nexus, protocol: "nvmf", rebuilds: 0, deviceUri: uri },
    },
  };
}

const connect = {
  ...{ nqn: `nqn.2019-05.io.openebs:${V}`, address: FORMER, port: 4421, hostNqn: HOST },
  ...{ keepAliveTmo: null, reconnectDelay: null, ctrlLossTmo: null, nrIoQueues: null },
};
const find = (volume: Volume) => whereIs(volume, { connect, nodeName: "worker-1" });

test("whereIs() tells where the target of this node's volume is", () => {
  const moved = { is: "moved", address: NOW, port: 4421 };
  assert.deepEqual(find(volumeAt(uriOf(V, NOW))), moved);
  assert.deepEqual(find(volumeAt(uriOf(V, NOW), { nodes: [] })), moved, "an older REST");
  assert.deepEqual(find(volumeAt(bare(uriOf(V, NOW)))), moved, "without access lists");
});

test("whereIs() tells nothing of what is another's, or not there", () => {
  const other = [{ name: "worker-2", nqn: OTHER_HOST }];
  const { spec, state } = volumeAt(uriOf(V, NOW));
  const { target: _, ...unpublished } = spec;
  const { target: __, ...unseen } = state;
  const rows: readonly [Volume, RegExp][] = [
    [volumeAt(uriOf(W, NOW)), /its target is nqn/],
    [volumeAt(uriOf(V, NOW), { nodes: other }), /not published to this node/],
    [volumeAt(uriOf(V, NOW).replace("worker-1", "worker-2")), /not published to this node/],
    [volumeAt(bare(uriOf(V, NOW)), { nodes: other }), /not published to this node/],
    [volumeAt(bare(uriOf(V, NOW)), { nodes: [] }), /not published to this node/], // to whom, nobody says
    [volumeAt(uriOf(V)), /at the published address/],
    [volumeAt(""), /cannot be seen/],
    [volumeAt(uriOf(V, NOW), { status: "Deleting" }), /not published/],
    [{ spec: unpublished, state }, /not published/],
    [{ spec, state: unseen }, /cannot be seen/],
  ];
  for (const [volume, why] of rows) {
    const found = find(volume);
    assert.match(found.is === "unknown" ? found.why : "moved", why);
  }
});

test("a stage after a reboot finds the target that has moved since the volume was published", async (t) => {
  let asked = 0;
  const readVolume: ReadVolume = async (uuid) => {
    assert.equal(uuid, V);
    asked += 1;
    return volumeAt(uriOf(V, NOW));
  };
  const { system, ok } = await start(t, { readVolume });
  await ok("NodeStageVolume", stageOf());
  assert.equal(asked, 0, "the published address works: nobody is asked");
  system.reboot();
  system.silent.add(FORMER);
  for (let round = 0; round < 2; round++) await ok("NodeStageVolume", stageOf());
  assert.equal(asked, 1, "the second time the volume is attached");
  assert.match(
    system.connects.at(-2) ?? "",
    new RegExp(`hostnqn=${HOST},.*traddr=${NOW},trsvcid=4421`),
  );
  assert.deepEqual(
    system.mounts.map(({ at }) => at),
    [STAGING],
  );
  await ok("NodeUnstageVolume", unstageOf());
  // What answers at the former address, but has no volume any more, is left.
  system.silent.clear();
  system.empty.add(FORMER);
  await ok("NodeStageVolume", stageOf({ volumeCapability: block }));
  assert.equal(system.controllers.length, 1);
  assert.match(system.connects.at(-1) ?? "", new RegExp(`traddr=${NOW}`));
});

test("a stage that finds no target of its own fails with what it met, and leaves nothing", async (t) => {
  const answers: readonly (() => Volume)[] = [
    () => volumeAt(uriOf(W, NOW)),
    () => volumeAt(uriOf(V, NOW).replace("worker-1", "worker-2")),
    () => volumeAt(uriOf(V)),
    () => volumeAt("no uri"),
    () => {
      throw new SvcError("unavailable", "nobody answers");
    },
  ];
  for (const answer of answers) {
    const { system, expect } = await start(t, { readVolume: async () => answer() });
    system.silent.add(FORMER);
    const failed = await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
    assert.match(failed.message, /Cannot connect to .* at 10\.1\.0\.5:4421/);
    assert.deepEqual([system.connects.length, system.controllers], [1, []]);
  }
  const { system, expect } = await start(t, { readVolume: async () => volumeAt(uriOf(V, NOW)) });
  for (const address of [FORMER, NOW]) system.silent.add(address);
  const failed = await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
  assert.match(failed.message, /at 10\.1\.0\.6:4421/);
  assert.deepEqual(system.controllers, []);
});

test("restVolumes() reads a volume, and says why it cannot", async (t) => {
  const volume = volumeAt(uriOf(V, NOW));
  const answers: [status: number, body: string][] = [
    [200, JSON.stringify(volume)],
    [404, "{}"],
    [200, "{}"],
  ];
  const server = createServer((request, response) => {
    assert.equal(request.url, `/v0/volumes/${V}`);
    const [status, body] = answers.shift() ?? [500, ""];
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo; // it listens on TCP
  const read = restVolumes(`http://127.0.0.1:${port}`, systemClock);
  assert.deepEqual(await read(V), volume);
  await assert.rejects(read(V), { kind: "unavailable", message: /status 404/ });
  await assert.rejects(read(V), { kind: "internal" });
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(read(V), { kind: "unavailable", message: /^Cannot read volume .* at http/ });
});
