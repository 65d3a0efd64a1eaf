/**
 * Keeps the last reading of the engine and answers scrapes from it.
 *
 * Invariants: a scrape reads anew unless the last reading is younger than a second; concurrent scrapes share one
 * read; an engine that answers nothing has no metrics instead of old ones, but for the one that says so. While it answers,
 * a part that cannot be read keeps its last figures for a while, and their age is told; close() waits for what runs.
 */
import type { Clock } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { engineFamily, familiesOf, partFamilies } from "./families.ts";
import type { Format } from "./negotiate.ts";
import { PROTOBUF_TYPE, writeProtobuf } from "./protobuf.ts";
import type { Engine, PartName, Parts, Reading } from "./reading.ts";
import { TEXT_TYPE, writeText } from "./text.ts";

const FRESH_MS = 1_000;
/** Retry while the engine does not answer; as published. */
const RETRY_MS = 10_000;

/** Figures that are older are told no more: a graph would show a straight line for what nobody knows. */
const KEPT_MS = 300_000;

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
  /** When each part was read last; none: never since the engine answers. */
  readonly #partMs = new Map<PartName, number>();
  /** Parts that could not be read the last time. */
  readonly #failing = new Set<PartName>();

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
    const families = [
      engineFamily(node, isReachable),
      ...partFamilies(node, this.#ages()),
      ...familiesOf(node, this.#reading),
    ];
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
      const parts = await engine.read(signal);
      this.#readMs = clock.monotonicMs();
      this.#reading = this.#merge(parts, this.#readMs);
      this.#tell(null);
      return true;
    } catch (error) {
      this.#forget();
      if (!signal.aborted) this.#tell(error);
      return false;
    }
  }

  /** What was read now, and of what could not be read the last figures, while they are not too old. */
  #merge(parts: Parts, nowMs: number): Reading {
    const part = <Name extends PartName>(name: Name): Reading[Name] => {
      const now = parts[name];
      this.#tellPart(name, now instanceof SvcError ? now : null);
      if (!(now instanceof SvcError)) {
        this.#partMs.set(name, nowMs);
        return now as Reading[Name]; // what is no failure is the part
      }
      const readMs = this.#partMs.get(name);
      const isKept = readMs !== undefined && nowMs - readMs <= KEPT_MS;
      if (!isKept) this.#partMs.delete(name);
      return isKept ? this.#reading[name] : NOTHING[name];
    };
    return {
      pools: part("pools"),
      poolHealth: part("poolHealth"),
      poolIo: part("poolIo"),
      volumeIo: part("volumeIo"),
      replicaIo: part("replicaIo"),
      latencies: part("latencies"),
    };
  }

  /** Of each part that could not be read the last time: seconds since its figures were read; null: there are none. */
  #ages(): ReadonlyMap<PartName, number | null> {
    const nowMs = this.#parts.clock.monotonicMs();
    return new Map(
      [...this.#failing].map((name) => {
        const readMs = this.#partMs.get(name);
        return [name, readMs === undefined ? null : (nowMs - readMs) / 1000];
      }),
    );
  }

  /** Says once that a part cannot be read, and once that it can again. */
  #tellPart(name: PartName, error: SvcError | null): void {
    const { log, node } = this.#parts;
    if ((error !== null) === this.#failing.has(name)) return;
    const fields = { "node.id": node, part: name };
    if (error === null) {
      this.#failing.delete(name);
      log.info("part of io-engine's metrics is read again", fields);
    } else {
      this.#failing.add(name);
      log.warn("part of io-engine's metrics cannot be read", { ...fields, error: error.message });
    }
  }

  #forget(): void {
    this.#reading = NOTHING;
    this.#readMs = null;
    this.#partMs.clear();
    this.#failing.clear();
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
