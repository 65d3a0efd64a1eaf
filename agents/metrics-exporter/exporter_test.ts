import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { Exporter } from "./exporter.ts";
import type { Engine, PartName, Parts } from "./reading.ts";
import { readDelimited } from "./testing/delimited.ts";
import { READING } from "./testing/reading.ts";

class ScriptedEngine implements Engine {
  reads = 0;
  failing = false;
  readonly slow = new Set<PartName>();
  async read(): Promise<Parts> {
    this.reads += 1;
    if (this.failing) throw new SvcError("unavailable", "Cannot reach the engine");
    const late = new SvcError("deadline-exceeded", "no answer within 5000 ms");
    return { ...READING, ...Object.fromEntries([...this.slow].map((name) => [name, late])) };
  }
  close(): void {}
}

function exporterOf(engine: Engine) {
  const clock = new ManualClock();
  const exporter = new Exporter({ engine, node: "n", pollingMs: 300_000, clock, log: silentLog });
  return { clock, exporter };
}
const signal = new AbortController().signal;
const scrapeText = async (exporter: Exporter) =>
  String((await exporter.scrape("text", signal)).body);

test("Exporter reads once for scrapes at the same time and within a second", async () => {
  const engine = new ScriptedEngine();
  const { clock, exporter } = exporterOf(engine);
  const pages = await Promise.all([scrapeText(exporter), scrapeText(exporter)]);
  assert.equal(engine.reads, 1);
  assert.equal(pages[0], pages[1]);
  await scrapeText(exporter);
  assert.equal(engine.reads, 1);
  await clock.advance(1_000);
  await scrapeText(exporter);
  assert.equal(engine.reads, 2);
});

const reachable = (value: 0 | 1) => `mayastor_exporter_engine_reachable{node="n"} ${value}`;
const samplesIn = (text: string) => text.split("\n").filter((line) => /^[^#]/.test(line));

test("Exporter says that an engine is down and has no other metrics of it, in either format", async () => {
  const engine = new ScriptedEngine();
  const { clock, exporter } = exporterOf(engine);
  assert.match(await scrapeText(exporter), /disk_pool_status/);
  assert.ok(samplesIn(await scrapeText(exporter)).includes(reachable(1)));
  engine.failing = true;
  await clock.advance(1_000);
  assert.deepEqual(samplesIn(await scrapeText(exporter)), [reachable(0)]);
  const { body, contentType } = await exporter.scrape("protobuf", signal);
  assert.ok(body instanceof Uint8Array);
  const names = readDelimited(body).map(({ name }) => name);
  assert.deepEqual(names, ["mayastor_exporter_engine_reachable"]);
  assert.match(contentType, /^application\/vnd\.google\.protobuf; proto=/);
  engine.failing = false;
  assert.match(await scrapeText(exporter), /disk_pool_status/);
  assert.ok(samplesIn(await scrapeText(exporter)).includes(reachable(1)));
});

test("a part that cannot be read keeps its last figures for a while, and takes nothing else away", async () => {
  const engine = new ScriptedEngine();
  const { clock, exporter } = exporterOf(engine);
  const whole = samplesIn(await scrapeText(exporter));
  assert.ok(!whole.some((line) => line.startsWith("mayastor_exporter_part")));
  const told = (age: number) => [
    'mayastor_exporter_part_failed{node="n",part="latencies"} 1',
    `mayastor_exporter_part_age_seconds{node="n",part="latencies"} ${age}`,
  ];
  engine.slow.add("latencies");
  await clock.advance(1_000);
  const slow = samplesIn(await scrapeText(exporter));
  assert.deepEqual(slow.toSorted(), [...whole, ...told(1)].toSorted());
  await clock.advance(299_000);
  const late = samplesIn(await scrapeText(exporter));
  assert.deepEqual(late.toSorted(), [...whole, ...told(300)].toSorted());
  await clock.advance(1_000);
  const without = samplesIn(await scrapeText(exporter));
  assert.ok(without.includes(reachable(1)), "the engine is not down");
  assert.ok(without.some((line) => line.startsWith("disk_pool_status")));
  assert.ok(!without.some((line) => line.includes("_latency_seconds")));
  assert.ok(!without.some((line) => line.startsWith("mayastor_exporter_part_age")));
  engine.slow.clear();
  await clock.advance(1_000);
  assert.deepEqual(samplesIn(await scrapeText(exporter)), whole);
});

test("Exporter polls by its time and tries again after 10 s", async () => {
  const engine = new ScriptedEngine();
  engine.failing = true;
  const { clock, exporter } = exporterOf(engine);
  const stop = new AbortController();
  const running = exporter.run(stop.signal);
  await clock.advance(0);
  assert.equal(engine.reads, 1);
  engine.failing = false;
  await clock.advance(10_000);
  assert.equal(engine.reads, 2);
  await clock.advance(299_000);
  assert.equal(engine.reads, 2);
  await clock.advance(1_000);
  assert.equal(engine.reads, 3);
  stop.abort();
  await running;
});
