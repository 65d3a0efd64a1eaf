import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { isKind, SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { Exporter } from "./exporter.ts";
import { BUCKETS_SEC, LatencyTable } from "./latency.ts";
import { readConfig } from "./options.ts";
import { type Engine, type OwnedIoReading, type Reading, volumeOf } from "./reading.ts";
import { render } from "./render.ts";

const VOLUME = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const io = { name: VOLUME, volume: VOLUME, readBytes: 4096, writeBytes: 8192 };
const volume = (readOps: number, readSec: number): OwnedIoReading => ({
  ...io,
  ...{ readOps, readSec, writeOps: 2, writeSec: 0.004 },
});
const reading: Reading = {
  pools: [
    {
      name: "mayastor-disk-pool",
      total: 5_360_320_512,
      used: 2_147_483_648,
      committed: 9_663_676_416,
      status: 1,
    },
  ],
  poolIo: [{ ...volume(1, 0.001), name: "mayastor-disk-pool" }],
  volumeIo: [volume(10, 0.01)],
  replicaIo: [{ ...volume(3, 0.002), name: "r1" }],
};
const env = { MY_POD_IP: "10.1.0.6", MY_NODE_NAME: "worker-0" };

test("readConfig() reads what the chart passes", () => {
  assert.deepEqual(readConfig(["-p5m", "--api-versions=v1"], env), {
    listen: { host: "0.0.0.0", port: 9502 },
    pollingMs: 300_000,
    engine: "10.1.0.6:10124",
    node: "worker-0",
  });
  const config = readConfig(["-a", "v0,v1", "-m", "[::]:1"], { ...env, MY_POD_IP: "fd00::6" });
  assert.deepEqual(config?.listen, { host: "::", port: 1 });
  assert.equal(config?.engine, "[fd00::6]:10124");
});

const bad: readonly [string, readonly string[], Record<string, string>, RegExp][] = [
  ["no versions", [], env, /--api-versions is required/],
  ["an unknown version", ["-a", "v9"], env, /"v9" is not a version/],
  ["v0 alone", ["-a", "v0"], env, /add v1/],
  ["no pod address", ["-a", "v1"], { MY_NODE_NAME: "n" }, /MY_POD_IP/],
  ["no node name", ["-a", "v1"], { MY_POD_IP: "10.0.0.1" }, /MY_NODE_NAME/],
  ["a bad address", ["-a", "v1", "-m", "9502"], env, /metrics-endpoint/],
  ["no time at all", ["-a", "v1", "-p", "0s"], env, /polling-time/],
];
for (const [what, args, environment, message] of bad) {
  test(`readConfig() refuses ${what}`, () => {
    assert.throws(
      () => readConfig(args, environment),
      (error) => isKind(error, "invalid-argument") && message.test(error.message),
    );
  });
}

test("volumeOf() finds the volume in the name of a nexus", () => {
  assert.equal(volumeOf(VOLUME), VOLUME);
  assert.equal(volumeOf(`nexus-${VOLUME}`), VOLUME);
  assert.equal(volumeOf("nexus0"), "");
});

test("render() writes the documented pool metrics", async () => {
  const { text, contentType } = await render("worker-0", { reading, latencies: [] });
  assert.match(contentType, /^text\/plain/);
  const labels = '{node="worker-0",name="mayastor-disk-pool"}';
  for (const line of [
    "# HELP disk_pool_status disk-pool status",
    "# TYPE disk_pool_status gauge",
    `disk_pool_status${labels} 1`,
    "# HELP disk_pool_total_size_bytes total size of the disk-pool in bytes",
    `disk_pool_total_size_bytes${labels} 5360320512`,
    `disk_pool_used_size_bytes${labels} 2147483648`,
    `disk_pool_committed_size_bytes${labels} 9663676416`,
    `diskpool_status${labels} 1`,
    `diskpool_num_read_ops${labels} 1`,
    `volume_num_read_ops{node="worker-0",pv_name="pvc-${VOLUME}"} 10`,
    `volume_read_latency_us{node="worker-0",pv_name="pvc-${VOLUME}"} 10000`,
    `volume_write_latency_us{node="worker-0",pv_name="pvc-${VOLUME}"} 4000`,
    `replica_bytes_written{node="worker-0",name="r1",pv_name="pvc-${VOLUME}"} 8192`,
  ]) {
    assert.ok(text.split("\n").includes(line), `${line}\nnot in\n${text}`);
  }
  const types = text.split("\n").filter((line) => line.startsWith("# TYPE"));
  assert.equal(new Set(types).size, types.length, "one family each");
});

test("render() writes latencies as histograms", async () => {
  const table = new LatencyTable();
  table.sample([volume(10, 0.01)]); // 1 ms each
  table.sample([volume(14, 0.09)]); // four of 20 ms
  const { text } = await render("n", { reading, latencies: table.all });
  const lines = text.split("\n");
  const of = (le: string) =>
    lines.find((line) =>
      line.startsWith(
        `volume_read_latency_seconds_bucket{node="n",pv_name="pvc-${VOLUME}",le="${le}"}`,
      ),
    );
  assert.ok(lines.includes("# TYPE volume_read_latency_seconds histogram"));
  assert.match(of("0.0005") ?? "", / 0$/);
  assert.match(of("0.001") ?? "", / 10$/);
  assert.match(of("0.01") ?? "", / 10$/);
  assert.match(of("0.025") ?? "", / 14$/);
  assert.match(of("+Inf") ?? "", / 14$/);
  const count = `volume_read_latency_seconds_count{node="n",pv_name="pvc-${VOLUME}"} 14`;
  assert.ok(lines.includes(count));
});

test("LatencyTable counts on when totals start anew, and forgets what is gone", () => {
  const table = new LatencyTable();
  table.sample([volume(100, 1)]);
  table.sample([volume(5, 0.5)]); // reset: five operations of 100 ms
  const [latency] = table.all;
  assert.equal(latency?.read.count, 105);
  assert.ok(Math.abs((latency?.read.sum ?? 0) - 1.5) < 1e-9);
  assert.equal(latency?.read.cumulative.at(-1), 105);
  assert.equal(latency?.read.cumulative.length, BUCKETS_SEC.length + 1);
  table.sample([]);
  assert.deepEqual(table.all, []);
});

class ScriptedEngine implements Engine {
  reads = 0;
  failing = false;
  async read(): Promise<Reading> {
    this.reads += 1;
    if (this.failing) throw new SvcError("unavailable", "Cannot reach the engine");
    return reading;
  }
  async readVolumes(): Promise<readonly OwnedIoReading[]> {
    return (await this.read()).volumeIo;
  }
  close(): void {}
}

function exporterOf(engine: Engine) {
  const clock = new ManualClock();
  const exporter = new Exporter({ engine, node: "n", pollingMs: 300_000, clock, log: silentLog });
  return { clock, exporter };
}
const signal = new AbortController().signal;

test("Exporter reads once for scrapes at the same time and within a second", async () => {
  const engine = new ScriptedEngine();
  const { clock, exporter } = exporterOf(engine);
  const pages = await Promise.all([exporter.scrape(signal), exporter.scrape(signal)]);
  assert.equal(engine.reads, 1);
  assert.equal(pages[0].text, pages[1].text);
  await exporter.scrape(signal);
  assert.equal(engine.reads, 1);
  await clock.advance(1_000);
  await exporter.scrape(signal);
  assert.equal(engine.reads, 2);
});

test("Exporter has no metrics of an engine that is down", async () => {
  const engine = new ScriptedEngine();
  const { clock, exporter } = exporterOf(engine);
  assert.match((await exporter.scrape(signal)).text, /disk_pool_status/);
  engine.failing = true;
  await clock.advance(1_000);
  assert.doesNotMatch((await exporter.scrape(signal)).text, /disk_pool|volume_/);
  engine.failing = false;
  assert.match((await exporter.scrape(signal)).text, /disk_pool_status/);
});

test("Exporter polls by its time and tries again after 10 s", async () => {
  const engine = new ScriptedEngine();
  engine.failing = true;
  const { clock, exporter } = exporterOf(engine);
  const stop = new AbortController();
  const running = exporter.run(stop.signal);
  await clock.advance(0);
  assert.equal(engine.reads, 1);
  await clock.advance(9_000);
  assert.equal(engine.reads, 1, "latencies are not sampled of an engine that is down");
  engine.failing = false;
  await clock.advance(1_000);
  assert.equal(engine.reads, 3, "all of it, and the latencies whose time has come as well");
  await clock.advance(20_000);
  assert.equal(engine.reads, 7, "latencies each 5 s");
  stop.abort();
  await running;
});
