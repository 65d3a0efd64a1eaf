/**
 * Latency from the disk to the query: a real engine whose disk is slow by a known time, the exporter's process, and
 * Debian's Prometheus with native histograms and without. What it answers is held against the load generator's own
 * percentiles; every query of the dashboards is asked as well.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { freePort, until } from "../../hack/cluster/local.ts";
import { ProcessTable } from "../../hack/cluster/process.ts";
import { dashboards } from "../../infra/monitoring/dashboards.ts";
import { quantile } from "../../infra/monitoring/latency.ts";
import type { Cleanup } from "../support/cluster.ts";
import { EngineProcess } from "../support/engine.ts";
import { Prometheus, promtool, scratchFolder } from "../support/prometheus.ts";
import { firstPort, loopbackAddress } from "../support/slot.ts";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "..", "..");
const NODE = "node-1";
const VOLUME = "6d2a7a1f-1e4c-4e3d-9b58-7a1a6cf8d0a7";
const REPLICA = "3c0b8a52-6a67-4a3b-9d4e-5f7d20f0a001";
const MIB = 1024n * 1024n;
/** Long beside what a busy machine adds, so that medians can be compared. */
const READ_MS = 50;
const WRITE_MS = 100;
/** A bucket of schema 3 is this much wider than the one before. */
const BUCKET = 2 ** (1 / 8);
/**
 * What the way to the generator may add to the median, and what the engine's clock, read once a turn, may add: a
 * machine that is busy with other things interrupts both. Tails are longer still: they are shown, not compared.
 */
const BUSY_SHARE = 1.25;

type Perf = Readonly<
  Record<"reads" | "writes" | "errors" | "p50_us" | "p90_us" | "p99_us", number>
>;

/** An engine that serves a volume of one replica on a disk that is slow by a known time. */
async function startSlowEngine(t: Cleanup): Promise<{ engine: EngineProcess; uri: string }> {
  const engine = await EngineProcess.start({ name: NODE, address: loopbackAddress() });
  t.after(() => engine.kill());
  await engine.bdev.create({ uri: "malloc:///m0?size_mb=128" });
  const slow = `read_us=${READ_MS * 1000}&write_us=${WRITE_MS * 1000}`;
  await engine.pool.createPool({ name: "pool-1", disks: [`delay:///d0?base=m0&${slow}`] });
  const replica = await engine.replica.createReplica({
    ...{ name: REPLICA, uuid: REPLICA, pooluuid: "pool-1", size: 72n * MIB },
    ...{ thin: false, share: ShareProtocol.NONE, entityId: VOLUME },
  });
  await engine.nexus.createNexus({
    ...{ name: VOLUME, uuid: VOLUME, size: 64n * MIB, children: [replica.uri] },
    ...{ minCntlId: 1, maxCntlId: 0xffef },
  });
  const share = { uuid: VOLUME, key: "", share: ShareProtocol.NVMF };
  const published = await engine.nexus.publishNexus(share);
  return { engine, uri: published.nexus?.deviceUri ?? "" };
}

async function startExporter(t: Cleanup, address: string): Promise<string> {
  let stop = async () => {};
  const processes = new ProcessTable(scratchFolder(t, "exporter", () => stop()));
  stop = async () => {
    await processes.endAll("SIGTERM");
  };
  const port = await freePort(firstPort);
  const listen = `127.0.0.1:${port}`;
  const main = [process.execPath, "--import", "tsx", "agents/metrics-exporter/main.ts"];
  processes.start("exporter", [...main, "-p5m", "--api-versions=v1", "-m", listen], {
    cwd: root,
    env: { MY_POD_IP: address, MY_NODE_NAME: NODE },
  });
  await until(
    "the exporter answers",
    async () => (await fetch(`http://${listen}/metrics`).catch(() => null))?.ok ?? false,
    { seconds: 60 },
  );
  return listen;
}

async function generate(uri: string, rw: "randread" | "randwrite"): Promise<Perf> {
  const load = ["--rw", rw, "--qd", "16", "--warmup", "0", "--runtime", "5", "--json"];
  const { stdout } = await run(path.join(root, "build/release/perf"), ["--uri", uri, ...load]);
  return JSON.parse(stdout) as Perf; // its documented output
}

const text = async (listen: string) => await (await fetch(`http://${listen}/metrics`)).text();

/** The one value that an expression has; null while it has none. */
async function single(prometheus: Prometheus, expression: string): Promise<number | null> {
  const found = await prometheus.query(expression);
  assert.ok(found.length <= 1, `${expression} has ${found.length} series`);
  return found[0]?.value ?? null;
}

type Measured = { readonly kind: "read" | "write"; readonly delayMs: number; readonly perf: Perf };

/** Since the engine's start, so that no scrape interval blurs the figures. */
async function compare(prometheus: Prometheus, { kind, delayMs, perf }: Measured): Promise<string> {
  const operations = kind === "read" ? perf.reads : perf.writes;
  const shown: string[] = [];
  for (const on of ["volume", "replica"]) {
    const metric = `${on}_${kind}_latency_seconds{pv_name="pvc-${VOLUME}"}`;
    await until(`${on} ${kind}s in Prometheus`, async () => {
      const count = await single(prometheus, `histogram_count(${metric})`);
      return count !== null && count >= operations;
    });
    const parts = [
      [0.5, perf.p50_us / 1000],
      [0.9, perf.p90_us / 1000],
      [0.99, perf.p99_us / 1000],
    ] as const;
    for (const [part, own] of parts) {
      const seconds = await single(prometheus, `histogram_quantile(${part}, ${metric})`);
      const ms = (seconds ?? Number.NaN) * 1000;
      shown.push(`${on} ${kind} p${part * 100} ${ms.toFixed(1)} ms, perf ${own.toFixed(1)} ms`);
      const what = shown.at(-1);
      assert.ok(ms >= delayMs / BUCKET, `${what}: faster than its disk`);
      if (part === 0.99) continue;
      assert.ok(ms <= own * BUCKET * BUSY_SHARE, `${what}: slower than what the generator saw`);
      if (part === 0.5) assert.ok(ms >= own / BUCKET / BUSY_SHARE, `${what}: too far apart`);
    }
  }
  return shown.join("\n");
}

type Board = { readonly panels: readonly { title: string; targets: { expr: string }[] }[] };

/** Every panel's queries, with Grafana's variables filled in. */
function panelQueries(): { readonly where: string; readonly expr: string }[] {
  return Object.entries(dashboards()).flatMap(([name, json]) =>
    (JSON.parse(json) as Board).panels.flatMap(({ title, targets }) =>
      targets.map(({ expr }) => ({
        where: `${name} / ${title}`,
        expr: expr
          .replaceAll("$__rate_interval", "30s")
          .replaceAll(/\$(?:node|pool|volume|namespace|claim)\b/g, ".*"),
      })),
    ),
  );
}

test("latency reaches Prometheus as native histograms, and as classic ones where it takes no others", async (t) => {
  const { engine, uri } = await startSlowEngine(t);
  const listen = await startExporter(t, engine.settings.address);
  const [native, classic] = await Promise.all([
    Prometheus.start(t, { targets: [listen], native: true }),
    Prometheus.start(t, { targets: [listen], native: false }),
  ]);
  await until("both have scraped", async () => {
    const up = await Promise.all([single(native, "up"), single(classic, "up")]);
    return up.every((value) => value === 1);
  });
  const reads: Measured = { kind: "read", delayMs: READ_MS, perf: await generate(uri, "randread") };
  const writes: Measured = {
    ...{ kind: "write", delayMs: WRITE_MS },
    perf: await generate(uri, "randwrite"),
  };
  for (const { perf } of [reads, writes]) assert.equal(perf.errors, 0);

  await t.test("percentiles agree with the load generator's", async (t) => {
    t.diagnostic(await compare(native, reads));
    t.diagnostic(await compare(native, writes));
  });

  await t.test("a classic server gets buckets, and the same query answers there", async () => {
    const metric = "volume_write_latency_seconds";
    const count = writes.perf.writes;
    await until("classic buckets", async () => {
      const found = await single(classic, `${metric}_count{pv_name="pvc-${VOLUME}"}`);
      return found !== null && found >= count;
    });
    assert.equal(await single(classic, metric), null, "no native one there");
    assert.equal(await single(native, `${metric}_count`), null, "no classic one here");
    const median = { part: 0.5, metric, by: "pv_name", range: "5m" };
    for (const server of [native, classic]) {
      const seconds = (await single(server, quantile(median))) ?? Number.NaN;
      assert.ok(seconds > WRITE_MS / 2000 && seconds < (WRITE_MS / 1000) * 4, `${seconds}`);
    }
  });

  for (const { where, expr } of panelQueries()) {
    await t.test(`dashboard ${where}: ${expr.slice(0, 60)}`, async () => {
      for (const server of [native, classic]) {
        const found = await server.query(expr); // throws when it does not parse
        const fromKubelet = expr.includes("kubelet_");
        assert.equal(found.length > 0, !fromKubelet, `${expr} has ${found.length} series`);
        for (const { value } of found) assert.ok(!Number.isNaN(value), expr);
      }
    });
  }

  await t.test(
    "promtool likes the exposition, but for names that are published as they are",
    async () => {
      const page = await text(listen);
      const complaints = await promtool(["check", "metrics"], page).then(
        () => "",
        (error: Error) => error.message,
      );
      const about = complaints
        .split("\n")
        .slice(1)
        .filter((line) => line.trim() !== "");
      const ours = about.filter((line) => !/^\w+_(read|write)_latency_us /.test(line));
      assert.deepEqual(ours, []);
    },
  );

  await t.test("a reset of the statistics resets latencies", async () => {
    await engine.stats.resetIoStats({});
    await until("counts of zero", async () => {
      const metric = `volume_read_latency_seconds{pv_name="pvc-${VOLUME}"}`;
      return (await single(native, `histogram_count(${metric})`)) === 0;
    });
  });
});
