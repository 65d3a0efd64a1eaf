/** Targets that a move left behind on a node that was away, with real engines: they go, and their hosts with them. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import type { Nexus } from "#common/openapi/model.ts";
import { type EngineNode, type LocalCluster, until } from "../../hack/cluster/local.ts";
import { VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { type Cleanup, startCluster, startWriter, untilOnline } from "../support/cluster.ts";

const VOLUME = "5c1f6f0e-0d3b-4d2c-8a47-6f0f5be7c016";
const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

/** The engine stands still as if its node were cut off: it serves nobody, and knows nothing of what happens meanwhile. */
function suspend(t: Cleanup, cluster: LocalCluster, node: EngineNode): () => void {
  const pid = cluster.processes.pid(node.name);
  assert.ok(pid);
  process.kill(pid, "SIGSTOP");
  const resume = () => process.kill(pid, "SIGCONT");
  t.after(() => {
    try {
      resume();
    } catch {} // it has ended
  });
  return resume;
}

const republish = (cluster: LocalCluster, node: string, volume = VOLUME) =>
  cluster.rest.request("PUT", `/volumes/${volume}/target`, {
    ...{ publish_context: {}, protocol: "nvmf", republish: true, reuse_existing: false, node },
  });

const nexusesOn = async (cluster: LocalCluster, node: string) =>
  (await cluster.rest.request("GET", `/nodes/${node}/nexuses`)) as Nexus[];

const nodeStatus = async (cluster: LocalCluster, name: string) =>
  (await cluster.rest.nodes()).find(({ id }) => id === name)?.state?.status;

const canConnect = (uri: string) =>
  VerifyIo.run(["digest", "--uri", uri, "--bytes", String(MIB)]).then(
    () => true,
    () => false,
  );

async function untilGone(cluster: LocalCluster, node: string, uuid: string): Promise<void> {
  await until(
    `nexus ${uuid} to go from ${node}`,
    async () =>
      (await nodeStatus(cluster, node)) === "Online" &&
      (await nexusesOn(cluster, node)).every((nexus) => nexus.uuid !== uuid),
    { seconds: 120 },
  );
}

test("a target that was left behind goes when its node is back; a node that is asked for is obeyed or refused", async (t) => {
  const cluster = await startCluster(t);
  const [first, second, third] = cluster.nodes;
  assert.ok(first && second && third);
  await cluster.rest.createVolume(VOLUME, { size: SIZE, replicas: 2 });

  // A nexus that a person made by hand stays through all of it.
  const byHand = randomUUID();
  await cluster.rest.request("PUT", `/nodes/${first.name}/nexuses/${byHand}`, {
    ...{ children: [`malloc:///by-hand?size_mb=64&uuid=${randomUUID()}`], size: 32 * MIB },
  });

  const published = await cluster.rest.publish(VOLUME, first.name);
  const old = published.state.target;
  assert.ok(old);
  // A host of the old target that never leaves by itself.
  const host = startWriter(t, [
    ...["--uri", old.deviceUri, "--bytes", String(16 * MIB), "--seed", "3"],
    ...["--journal", `${cluster.folder}/journal`, "--rate", "100", "--progress-seconds", "0.5"],
    ...["--io-timeout-ms", "600000"],
  ]);
  await host.acknowledges(50);

  const resume = suspend(t, cluster, first);
  await until(
    "the node to be away",
    async () => (await nodeStatus(cluster, first.name)) === "Offline",
    {
      seconds: 60,
    },
  );
  await republish(cluster, second.name);
  await assert.rejects(republish(cluster, first.name), /offline|unknown/i);
  const moved = await cluster.rest.volume(VOLUME);
  assert.equal(moved.state.target?.node, second.name);

  resume();
  await untilGone(cluster, first.name, old.uuid);
  assert.equal(await canConnect(old.deviceUri), false, "nobody finds the old target any more");
  await untilOnline(cluster, VOLUME);

  // The node can have the target again, and others keep what is theirs.
  await republish(cluster, first.name);
  const back = await cluster.rest.volume(VOLUME);
  assert.equal(back.state.target?.node, first.name);
  assert.equal(await canConnect(back.state.target?.deviceUri ?? ""), true);
  await assert.rejects(republish(cluster, first.name), /it is there/);
  await untilGone(cluster, second.name, moved.state.target?.uuid ?? "");
  const left = (await nexusesOn(cluster, first.name)).map(({ uuid }) => uuid);
  assert.deepEqual(left.sort(), [byHand, back.state.target?.uuid].sort());

  // Of a volume that is destroyed while the node is away nothing stays either.
  const resumeAgain = suspend(t, cluster, first);
  await until(
    "the node to be away",
    async () => (await nodeStatus(cluster, first.name)) === "Offline",
    {
      seconds: 60,
    },
  );
  await republish(cluster, third.name);
  await cluster.rest.request("DELETE", `/volumes/${VOLUME}`);
  resumeAgain();
  await untilGone(cluster, first.name, back.state.target?.uuid ?? "");
  assert.deepEqual(
    (await nexusesOn(cluster, first.name)).map(({ uuid }) => uuid),
    [byHand],
  );
});
