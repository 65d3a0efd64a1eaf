/**
 * Latency histograms of volumes, made from running totals.
 *
 * Why: the engine counts operations and their summed time, not a distribution. Sampled often, the mean of each
 * short interval, weighted by its operations, comes close to one; peaks inside an interval are averaged.
 * Invariants: `count` and `sum` are exact; buckets only grow; totals that went back (the engine or the nexus was
 * made anew, or statistics were reset) count from zero again; a volume that is gone is forgotten.
 */
import type { OwnedIoReading } from "./reading.ts";

/** Upper ends in seconds: from a local read to a stalled disk. */
export const BUCKETS_SEC = [
  0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
  2.5, 5, 10,
] as const;

export type Distribution = {
  /** Operations at or below the end of each bucket; the last bucket has no end. */
  readonly cumulative: readonly number[];
  readonly sum: number;
  readonly count: number;
};

class Accumulator {
  readonly #perBucket = new Array<number>(BUCKETS_SEC.length + 1).fill(0);
  #lastOps = 0;
  #lastSec = 0;
  #sum = 0;
  #count = 0;

  add(ops: number, sec: number): void {
    const restarted = ops < this.#lastOps || sec < this.#lastSec;
    const newOps = restarted ? ops : ops - this.#lastOps;
    const newSec = restarted ? sec : sec - this.#lastSec;
    this.#lastOps = ops;
    this.#lastSec = sec;
    if (newOps === 0) return;
    const mean = newSec / newOps;
    const found = BUCKETS_SEC.findIndex((end) => mean <= end);
    const bucket = found < 0 ? BUCKETS_SEC.length : found;
    this.#perBucket[bucket] = (this.#perBucket[bucket] ?? 0) + newOps;
    this.#sum += newSec;
    this.#count += newOps;
  }

  get distribution(): Distribution {
    let total = 0;
    const cumulative = this.#perBucket.map((count) => {
      total += count;
      return total;
    });
    return { cumulative, sum: this.#sum, count: this.#count };
  }
}

export type VolumeLatency = {
  readonly volume: string;
  readonly read: Distribution;
  readonly write: Distribution;
};

export class LatencyTable {
  readonly #volumes = new Map<
    string,
    { readonly read: Accumulator; readonly write: Accumulator }
  >();

  /** Takes in the totals of all volumes of the engine. */
  sample(readings: readonly OwnedIoReading[]): void {
    const here = new Set(readings.map(({ volume }) => volume));
    for (const volume of this.#volumes.keys()) if (!here.has(volume)) this.#volumes.delete(volume);
    for (const { volume, readOps, readSec, writeOps, writeSec } of readings) {
      if (volume === "") continue;
      const known = this.#volumes.get(volume) ?? {
        read: new Accumulator(),
        write: new Accumulator(),
      };
      this.#volumes.set(volume, known);
      known.read.add(readOps, readSec);
      known.write.add(writeOps, writeSec);
    }
  }

  get all(): readonly VolumeLatency[] {
    return [...this.#volumes].map(([volume, { read, write }]) => ({
      volume,
      read: read.distribution,
      write: write.distribution,
    }));
  }
}
