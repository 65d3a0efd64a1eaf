import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { Exporter } from "./exporter.ts";
import type { Engine, Reading } from "./reading.ts";
import { readDelimited } from "./testing/delimited.ts";
import { READING } from "./testing/reading.ts";

class ScriptedEngine implements Engine {
  reads = 0;
  failing = false;
  async read(): Promise<Reading> {
    this.reads += 1;
    if (this.failing) throw new SvcError("unavailable", "Cannot reach the engine");
    return READING;
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
