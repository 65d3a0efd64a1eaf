import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { VerifyIo } from "../../hack/quickstart/verify_io.ts";
import {
  REPLICA_DATA_OFFSET,
  startCluster,
  startWriter,
  untilOnline,
  verifyReplicas,
} from "../support/cluster.ts";

const VOLUME = "4b4b2a0c-6a2e-4a52-9c31-2f2f8f3f7a01";
const MIB = 1024 * 1024;
const AREA = 56 * MIB;
const KILLS = 20;

test("killing any engine 20 times during writes loses no acknowledged write and leaves no replica different", async (t) => {
  const cluster = await startCluster(t);
  await cluster.rest.createVolume(VOLUME, { size: 64 * MIB, replicas: 3 });
  const published = await cluster.rest.publish(VOLUME, cluster.nodes[0]?.name);
  const uri = published.state.target?.deviceUri;
  assert.ok(uri);
  const journal = path.join(cluster.folder, "journal");
  const writer = startWriter(t, [
    ...["--uri", uri, "--bytes", String(AREA), "--journal", journal, "--seed", "11"],
    ...["--qd", "8", "--rate", "2000", "--retry-seconds", "90", "--progress-seconds", "0.1"],
  ]);
  for (let kill = 0; kill < KILLS; kill++) {
    const victim = cluster.nodes[kill % cluster.nodes.length];
    assert.ok(victim);
    await writer.acknowledges(300 + ((kill * 137) % 500)); // another moment of its work each time
    await cluster.endEngine(victim, "SIGKILL");
    // Away for longer or shorter; while the nexus's own engine is away nothing is acknowledged.
    if (victim !== cluster.nodes[0]) await writer.acknowledges((kill % 4) * 500);
    cluster.startEngine(victim);
    await untilOnline(cluster, VOLUME);
    t.diagnostic(`kill ${kill + 1} of ${KILLS}: ${victim.name}, Online again`);
  }
  writer.stop();
  const finished = await writer.finished;
  assert.equal(finished.code, 0, `writer: ${JSON.stringify(finished.result)} ${finished.stderr}`);
  assert.ok((finished.result?.writes ?? 0) > 1000, "the writer hardly wrote");
  await untilOnline(cluster, VOLUME);
  await cluster.rest.unpublish(VOLUME);
  await verifyReplicas(cluster, AREA, journal);

  // The check itself: one foreign block on one replica must be found.
  const [replica] = await cluster.rest.replicas();
  assert.ok(replica);
  const replicaUri = await cluster.rest.shareReplica(replica);
  await VerifyIo.run([
    ...[
      "write",
      "--uri",
      replicaUri,
      "--bytes",
      "64KiB",
      "--qd",
      "2",
      "--seconds",
      "0.2",
      "--seed",
      "99",
    ],
    ...["--offset-bytes", String(REPLICA_DATA_OFFSET + 17 * MIB)],
    ...["--journal", path.join(cluster.folder, "foreign")],
  ]);
  await assert.rejects(verifyReplicas(cluster, AREA, journal), /differs in MiB|mismatch/);
});
