/** metrics-exporter-pool as a process beside a real engine that serves a volume. */
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { freePort, until } from "../../hack/cluster/local.ts";
import { startCluster, startWriter } from "../support/cluster.ts";
import { firstPort } from "../support/slot.ts";

const VOLUME = "6d2a7a1f-1e4c-4e3d-9b58-7a1a6cf8d0a7";
const MIB = 1024 * 1024;

/** One sample's value by its name and some of its labels. */
function sample(text: string, name: string, labels: Readonly<Record<string, string>>) {
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  const line = text
    .split("\n")
    .find((row) => row.startsWith(`${name}{`) && wanted.every((label) => row.includes(label)));
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(" ") + 1));
}

test("metrics-exporter-pool tells what the engine of its pod does", async (t) => {
  const cluster = await startCluster(t, { engines: 1, diskMiB: 256 });
  const [node] = cluster.nodes;
  assert.ok(node);
  const port = await freePort(firstPort);
  cluster.processes.start(
    "exporter",
    [
      ...[process.execPath, "agents/metrics-exporter/main.ts"],
      ...["-p5m", "--api-versions=v1", "-m", `127.0.0.1:${port}`],
    ],
    {
      cwd: path.resolve(import.meta.dirname, "..", ".."),
      env: { MY_POD_IP: node.address, MY_NODE_NAME: node.name },
    },
  );
  const url = `http://127.0.0.1:${port}`;
  const scrape = async () => {
    const response = await fetch(`${url}/metrics`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    return await response.text();
  };
  const pool = { node: node.name, name: node.pool };
  const first = await until("pool metrics", async () => {
    const text = await scrape();
    return text.includes("disk_pool_status") && text;
  });
  assert.equal(sample(first, "disk_pool_status", pool), 1);
  const total = sample(first, "disk_pool_total_size_bytes", pool) ?? 0;
  assert.ok(total > 200 * MIB && total <= 256 * MIB, `${total}`);
  assert.equal(sample(first, "diskpool_total_size_bytes", pool), total);

  await cluster.rest.createVolume(VOLUME, { size: 64 * MIB, replicas: 1 });
  const published = await cluster.rest.publish(VOLUME);
  const uri = published.state.target?.deviceUri;
  assert.ok(uri);
  const journal = path.join(cluster.folder, "journal");
  const writer = startWriter(t, [
    ...["--uri", uri, "--bytes", String(32 * MIB), "--journal", journal, "--seed", "3"],
    ...["--qd", "4", "--rate", "500"],
  ]);
  const volume = { node: node.name, pv_name: `pvc-${VOLUME}` };
  await until("writes in the metrics", async () => {
    const ops = sample(await scrape(), "volume_num_write_ops", volume);
    return ops !== null && ops > 100;
  });
  writer.stop();
  const finished = await writer.finished;
  assert.equal(finished.code, 0, finished.stderr);
  await new Promise((resolve) => setTimeout(resolve, 1100)); // older than what a scrape may repeat
  const text = await scrape();
  const writes = sample(text, "volume_num_write_ops", volume) ?? 0;
  assert.ok(writes >= (finished.result?.writes ?? Number.POSITIVE_INFINITY), `${writes}`);
  assert.ok((sample(text, "volume_bytes_written", volume) ?? 0) >= writes * 512);
  assert.ok((sample(text, "volume_write_latency_us", volume) ?? 0) > 0);
  assert.ok((sample(text, "replica_num_write_ops", { node: node.name }) ?? 0) >= writes);
  assert.ok((sample(text, "diskpool_num_write_ops", pool) ?? 0) > 0);
  assert.equal(sample(text, "volume_write_latency_seconds_count", volume), writes);
  const all = sample(text, "volume_write_latency_seconds_bucket", { ...volume, le: "+Inf" });
  assert.equal(all, writes);
  // The replica has room beside the data for what a nexus keeps there.
  const replicas = (await cluster.rest.request("GET", "/replicas")) as { size: number }[]; // REST message
  const committed = replicas.reduce((sum, { size }) => sum + size, 0);
  assert.ok(committed > 64 * MIB && committed < 96 * MIB, `${committed}`);
  assert.equal(sample(text, "disk_pool_committed_size_bytes", pool), committed);

  assert.equal((await fetch(`${url}/other`)).status, 404);

  await cluster.endEngine(node, "SIGKILL");
  await until("no metrics of a dead engine", async () => !(await scrape()).includes("disk_pool"));
  cluster.startEngine(node);
  await until("metrics again", async () => (await scrape()).includes("disk_pool_status"));
  await cluster.processes.end("exporter", "SIGTERM");
});
