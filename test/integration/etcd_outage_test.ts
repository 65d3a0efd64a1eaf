import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  startCluster,
  startWriter,
  untilOnline,
  untilStatus,
  verifyReplicas,
} from "../support/cluster.ts";

const VOLUME = "5c1f6f0e-0d3b-4d2c-8a47-6f0f5be7c002";
const MIB = 1024 * 1024;
const AREA = 56 * MIB;
/** How long etcd is away, and how much of that what was in flight at the kill may take to settle. */
const OUTAGE_MS = 20_000;
const REST_MS = 2000;

test("a write that a child missed is not acknowledged while etcd cannot record the fault", async (t) => {
  const cluster = await startCluster(t);
  await cluster.rest.createVolume(VOLUME, { size: 64 * MIB, replicas: 3 });
  const published = await cluster.rest.publish(VOLUME, cluster.nodes[0]?.name);
  const uri = published.state.target?.deviceUri;
  const victim = cluster.nodes[2];
  assert.ok(uri && victim);
  const journal = path.join(cluster.folder, "journal");
  const writer = startWriter(t, [
    ...["--uri", uri, "--bytes", String(AREA), "--journal", journal, "--seed", "12"],
    ...["--qd", "8", "--rate", "2000", "--progress-seconds", "0.5", "--io-timeout-ms", "60000"],
  ]);
  await writer.acknowledges(2000);

  await cluster.processes.end("etcd", "SIGKILL");
  await cluster.endEngine(victim, "SIGKILL");
  await sleep(REST_MS);
  const atRest = writer.acknowledged;
  await sleep(OUTAGE_MS - REST_MS);
  assert.equal(
    writer.acknowledged,
    atRest,
    "writes were acknowledged though the fault was not recorded",
  );

  cluster.startEtcd();
  await writer.acknowledges(100); // I/O goes on
  await untilStatus(cluster, VOLUME, "Degraded");
  cluster.startEngine(victim);
  await untilOnline(cluster, VOLUME);
  writer.stop();
  const finished = await writer.finished;
  assert.equal(finished.code, 0, `writer: ${JSON.stringify(finished.result)} ${finished.stderr}`);
  await cluster.rest.unpublish(VOLUME);
  await verifyReplicas(cluster, AREA, journal);
});
