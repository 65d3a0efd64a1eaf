/**
 * Keeps the last reading of the engine and answers scrapes from it.
 *
 * Invariants: a scrape reads anew unless the last reading is younger than a second; concurrent scrapes share one
 * read; a failed read empties the cache, so that an engine that is down has no metrics instead of old ones, but for
 * the one that says so; close() waits for what runs.
 */
import type { Clock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { engineFamily, familiesOf } from "./families.ts";
import type { Format } from "./negotiate.ts";
import { PROTOBUF_TYPE, writeProtobuf } from "./protobuf.ts";
import type { Engine, Reading } from "./reading.ts";
import { TEXT_TYPE, writeText } from "./text.ts";

const FRESH_MS = 1_000;
/** Retry while the engine does not answer; as published. */
const RETRY_MS = 10_000;

const NOTHING: Reading = {
  pools: [],
  poolHealth: [],
  poolIo: [],
  volumeIo: [],
  replicaIo: [],
  latencies: [],
};

export type ExporterParts = {
  readonly engine: Engine;
  readonly node: string;
  readonly pollingMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

export type Page = { readonly contentType: string; readonly body: string | Uint8Array };

export class Exporter {
  readonly #parts: ExporterParts;
  #reading: Reading = NOTHING;
  #readMs: number | null = null;
  #running: Promise<boolean> | null = null;
  #reachable: boolean | null = null;

  constructor(parts: ExporterParts) {
    this.#parts = parts;
  }

  /** Reads in the background until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    await this.#poll(signal);
    await this.#running;
  }

  async scrape(format: Format, signal: AbortSignal): Promise<Page> {
    const { clock, node } = this.#parts;
    if (this.#readMs === null || clock.monotonicMs() - this.#readMs >= FRESH_MS) {
      await this.refresh(signal);
    }
    const isReachable = this.#readMs !== null;
    const families = [engineFamily(node, isReachable), ...familiesOf(node, this.#reading)];
    return format === "protobuf"
      ? { contentType: PROTOBUF_TYPE, body: writeProtobuf(families) }
      : { contentType: TEXT_TYPE, body: await writeText(families) };
  }

  /** Reads everything; false when the engine did not answer. */
  refresh(signal: AbortSignal): Promise<boolean> {
    this.#running ??= this.#read(signal).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #read(signal: AbortSignal): Promise<boolean> {
    const { engine, clock } = this.#parts;
    try {
      const reading = await engine.read(signal);
      this.#reading = reading;
      this.#readMs = clock.monotonicMs();
      this.#tell(null);
      return true;
    } catch (error) {
      this.#forget();
      if (!signal.aborted) this.#tell(error);
      return false;
    }
  }

  #forget(): void {
    this.#reading = NOTHING;
    this.#readMs = null;
  }

  /** Says once that the engine is gone, and once that it is back. */
  #tell(error: unknown): void {
    const { log, node } = this.#parts;
    const reachable = error === null;
    if (reachable === this.#reachable) return;
    this.#reachable = reachable;
    if (reachable) log.info("io-engine is read", { "node.id": node });
    else log.warn("io-engine cannot be read", { "node.id": node, error: errorMessage(error) });
  }

  async #poll(signal: AbortSignal): Promise<void> {
    const { clock, pollingMs } = this.#parts;
    while (!signal.aborted) {
      const ok = await this.refresh(signal);
      await clock.sleep(ok ? pollingMs : Math.min(RETRY_MS, pollingMs), signal).catch(() => {});
    }
  }
}
