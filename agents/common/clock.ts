/**
 * Clock: the only door to time, so that a test or a simulation can own it.
 *
 * Invariants: now() may jump (it is the wall clock), monotonicMs() never goes back;
 * sleep() ends at once when its signal is aborted and then rejects with the signal's reason.
 */

export interface Clock {
  /** Wall clock, ms since the epoch. */
  now(): number;
  /** For intervals and deadlines: ms, never goes back. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    }),
};

/** A signal that aborts when the outer one does or after `ms`, with its own cleanup. */
export function deadlineSignal(
  clock: Clock,
  ms: number,
  outer?: AbortSignal,
): { signal: AbortSignal; clear(): void } {
  const done = new AbortController();
  const expired = new AbortController();
  const timer = clock.sleep(ms, done.signal).then(
    () => expired.abort(new Error(`deadline of ${ms} ms passed`)),
    () => {}, // cleared: nothing to report
  );
  void timer;
  const signal = outer ? AbortSignal.any([outer, expired.signal]) : expired.signal;
  return { signal, clear: () => done.abort() };
}

/** A clock moved by hand: time passes only in advance(). */
export class ManualClock implements Clock {
  #nowMs: number;
  #sleepers: { atMs: number; wake: () => void }[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const sleeper = {
        atMs: this.#nowMs + ms,
        wake: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#sleepers.push(sleeper);
    });
  }

  /** Moves time forward, waking sleepers in the order of their times. */
  async advance(ms: number): Promise<void> {
    await settleTurns(); // what was set off before may still be on its way to sleep
    const endMs = this.#nowMs + ms;
    for (;;) {
      const next = this.#sleepers
        .filter((sleeper) => sleeper.atMs <= endMs)
        .sort((a, b) => a.atMs - b.atMs)[0];
      if (!next) break;
      this.#sleepers = this.#sleepers.filter((other) => other !== next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.wake();
      await settleTurns();
    }
    this.#nowMs = endMs;
    await settleTurns();
  }
}

/** Lets promises that are ready run on; more turns than any chain of ours is deep. */
async function settleTurns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}
