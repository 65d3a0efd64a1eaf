import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { LocalCluster, until } from "../../hack/cluster/local.ts";
import {
  ownPlace,
  QUICK_CORE,
  startWriter,
  untilOnline,
  verifyReplicas,
} from "../support/cluster.ts";
import { clearOnSignal } from "../support/interrupts.ts";

const VOLUME = "4b4b2a0c-6a2e-4a52-9c31-2f2f8f3f7a01";
const FILLER = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
const MIB = 1024 * 1024;
const AREA = 96 * MIB;

test("a thin volume whose pool runs out of space moves to another pool, while it is written", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  t.after(() => LocalCluster.clear(folder));
  clearOnSignal(folder);
  const cluster = await LocalCluster.create({
    ...{ folder, engines: 3, diskMiB: 256, coreArgs: QUICK_CORE },
    ...ownPlace(3),
  });
  await cluster.start();
  const [first, second, third] = cluster.nodes;
  assert.ok(first && second && third);
  for (const { name, pool, disk } of [first, second]) {
    await cluster.rest.createPool(name, pool, `aio://${disk}`);
  }
  const policy = { self_heal: true };
  await cluster.rest.request("PUT", `/volumes/${FILLER}`, {
    ...{ policy, size: 176 * MIB, replicas: 1, thin: false },
    topology: {
      node_topology: { explicit: { allowed_nodes: [second.name], preferred_nodes: [] } },
    },
  });
  const thin = { policy, size: 112 * MIB, replicas: 2, thin: true };
  await cluster.rest.request("PUT", `/volumes/${VOLUME}`, thin);
  const published = await cluster.rest.publish(VOLUME, first.name);
  const uri = published.state.target?.deviceUri;
  assert.ok(uri);
  const journal = path.join(folder, "journal");
  const writer = startWriter(t, [
    ...["--uri", uri, "--bytes", String(AREA), "--journal", journal, "--seed", "11"],
    ...["--qd", "8", "--rate", "1000", "--retry-seconds", "60", "--progress-seconds", "0.1"],
  ]);
  const seen = async () => (await cluster.rest.volume(VOLUME)).state;
  await until(
    `${VOLUME} is out of space on ${second.name}`,
    async () => {
      const { status, replica_topology: replicas } = await seen();
      const full = Object.values(replicas).find(
        (replica) => replica["child-status-reason"] === "OutOfSpace",
      );
      return status === "Degraded" && full?.node === second.name;
    },
    { seconds: 60 },
  );
  await writer.acknowledges(500); // the other replica takes them
  assert.equal((await seen()).status, "Degraded", "there is nowhere to go yet");
  await cluster.rest.createPool(third.name, third.pool, `aio://${third.disk}`);
  const { state } = await untilOnline(cluster, VOLUME);
  const nodes = Object.values(state.replica_topology).map(({ node }) => node);
  assert.deepEqual(nodes.sort(), [first.name, third.name]);
  await writer.acknowledges(500);
  writer.stop();
  const finished = await writer.finished;
  assert.equal(finished.code, 0, `writer: ${JSON.stringify(finished.result)} ${finished.stderr}`);
  await cluster.rest.unpublish(VOLUME);
  await cluster.rest.request("DELETE", `/volumes/${FILLER}`);
  await verifyReplicas(cluster, AREA, journal, 2);
});
