/**
 * Keeps the last reading of the engine and answers scrapes from it.
 *
 * Invariants: a scrape reads anew unless the last reading is younger than a second; concurrent scrapes share one
 * read; a failed read empties the cache, so that an engine that is down has no metrics instead of old ones;
 * close() waits for what runs.
 */
import type { Clock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { LatencyTable } from "./latency.ts";
import type { Engine, OwnedIoReading, Reading } from "./reading.ts";
import { render } from "./render.ts";

const FRESH_MS = 1_000;
/** Retry while the engine does not answer; as published. */
const RETRY_MS = 10_000;
/** Short enough that a slow spell shows, long enough to cost nothing. */
const LATENCY_MS = 5_000;

const NOTHING: Reading = { pools: [], poolIo: [], volumeIo: [], replicaIo: [] };

export type ExporterParts = {
  readonly engine: Engine;
  readonly node: string;
  readonly pollingMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

export class Exporter {
  readonly #parts: ExporterParts;
  readonly #latencies = new LatencyTable();
  #reading: Reading = NOTHING;
  #readMs: number | null = null;
  #running: Promise<boolean> | null = null;
  #reachable: boolean | null = null;

  constructor(parts: ExporterParts) {
    this.#parts = parts;
  }

  /** Reads in the background until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#poll(signal), this.#sampleLatencies(signal)]);
    await this.#running;
  }

  async scrape(signal: AbortSignal): Promise<{ contentType: string; text: string }> {
    const { clock, node } = this.#parts;
    if (this.#readMs === null || clock.monotonicMs() - this.#readMs >= FRESH_MS) {
      await this.refresh(signal);
    }
    return await render(node, { reading: this.#reading, latencies: this.#latencies.all });
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
      this.#sample(reading.volumeIo);
      this.#tell(null);
      return true;
    } catch (error) {
      this.#forget();
      if (!signal.aborted) this.#tell(error);
      return false;
    }
  }

  #sample(volumes: readonly OwnedIoReading[]): void {
    this.#latencies.sample(volumes.filter(({ volume }) => volume !== ""));
  }

  #forget(): void {
    this.#reading = NOTHING;
    this.#readMs = null;
    this.#latencies.sample([]);
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

  async #sampleLatencies(signal: AbortSignal): Promise<void> {
    const { engine, clock } = this.#parts;
    while (!signal.aborted) {
      await clock.sleep(LATENCY_MS, signal).catch(() => {}); // aborted: the loop ends
      if (signal.aborted || this.#readMs === null) continue; // not reachable: the poll finds it again
      try {
        this.#sample(await engine.readVolumes(signal));
      } catch (error) {
        if (signal.aborted) return;
        this.#forget();
        this.#tell(error);
      }
    }
  }
}
