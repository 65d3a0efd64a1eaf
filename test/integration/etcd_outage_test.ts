import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { VerifyIo } from "../../hack/quickstart/verify_io.ts";
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
const OUTAGE_MS = 20_000;

/** Writes acknowledged so far, as the writer's last progress line says. */
const acknowledged = (writer: VerifyIo): number =>
  writer.events.findLast((event) => event.event === "progress")?.writes ?? 0;

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
  await sleep(3000);
  assert.ok(acknowledged(writer) > 0, "the writer is not writing");

  await cluster.processes.end("etcd", "SIGKILL");
  await cluster.endEngine(victim, "SIGKILL");
  await sleep(2000); // everything in flight at the kill has come to rest
  const atRest = acknowledged(writer);
  await sleep(OUTAGE_MS - 2000);
  assert.equal(
    acknowledged(writer),
    atRest,
    "writes were acknowledged though the fault was not recorded",
  );

  cluster.startEtcd();
  const deadline = Date.now() + 60_000;
  while (acknowledged(writer) <= atRest + 100) {
    assert.ok(Date.now() < deadline, "I/O did not go on after etcd came back");
    await sleep(200);
  }
  await untilStatus(cluster, VOLUME, "Degraded");
  cluster.startEngine(victim);
  await untilOnline(cluster, VOLUME);
  writer.stop();
  const finished = await writer.finished;
  assert.equal(finished.code, 0, `writer: ${JSON.stringify(finished.result)} ${finished.stderr}`);
  await cluster.rest.unpublish(VOLUME);
  await verifyReplicas(cluster, AREA, journal);
});
