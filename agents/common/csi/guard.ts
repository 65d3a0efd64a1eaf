/**
 * One operation a volume at a time, and no more than so many at once.
 *
 * Why: orchestrators repeat a call that takes long while the first one still runs; CSI wants the second refused.
 * Invariants: run() refuses at once with `aborted`, it never queues on a volume; Limiter lets callers in by order.
 */
import { SvcError } from "../errors.ts";

export class VolumeGuard {
  readonly #running = new Map<string, string>();

  /** @throws {SvcError} `aborted` while another operation on this volume runs */
  async run<T>(volume: string, operation: string, work: () => Promise<T>): Promise<T> {
    const running = this.#running.get(volume);
    if (running !== undefined) {
      throw new SvcError(
        "aborted",
        `Cannot start ${operation}: ${running} is in progress for volume ${volume}`,
        { fields: { "volume.uuid": volume } },
      );
    }
    this.#running.set(volume, operation);
    try {
      return await work();
    } finally {
      this.#running.delete(volume);
    }
  }
}

/** At most `limit` pieces of work at a time; the others wait their turn. */
export class Limiter {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift(); // hands its place on, or frees it
      if (next) next();
      else this.#free += 1;
    }
  }
}
