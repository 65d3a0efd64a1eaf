/**
 * Guards: one operation at a time per resource, and no global lock.
 *
 * Why: an operation reads a spec, calls engines and writes the spec back; two of them on one resource
 * would undo each other.
 * Invariants: guards nest in one order only (pool or volume, then nexus, then replica; the disks of a node after the pool; a watch alone), so they never deadlock;
 * waiters go first come, first served; a holder always releases (use `run`).
 */
import type { Clock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";

export type GuardKey =
  `${"volume" | "nexus" | "replica" | "pool" | "node" | "name" | "group" | "watch" | "disks"}/${string}`;

/** How long a request waits for the operation before it: the documented answer then is conflict. */
const WAIT_MS_MAX = 10_000;

export class Guards {
  readonly #clock: Clock;
  readonly #queues = new Map<GuardKey, (() => void)[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  busy(key: GuardKey): boolean {
    return this.#queues.has(key);
  }

  /** Runs work under the guard, waiting for it. @throws {SvcError} `conflict` when it stays busy */
  async run<T>(key: GuardKey, work: () => Promise<T>): Promise<T> {
    await this.#enter(key);
    try {
      return await work();
    } finally {
      this.#leave(key);
    }
  }

  /** Runs work if the guard is free; null when it is not: a reconciler comes back later. */
  async tryRun<T>(key: GuardKey, work: () => Promise<T>): Promise<T | null> {
    if (this.#queues.has(key)) return null;
    this.#queues.set(key, []);
    try {
      return await work();
    } finally {
      this.#leave(key);
    }
  }

  async #enter(key: GuardKey): Promise<void> {
    const queue = this.#queues.get(key);
    if (!queue) {
      this.#queues.set(key, []);
      return;
    }
    const timer = new AbortController();
    let wake = (): void => {};
    const turn = new Promise<true>((resolve) => {
      wake = () => resolve(true);
    });
    queue.push(wake);
    const late = this.#clock.sleep(WAIT_MS_MAX, timer.signal).then(
      () => false as const,
      () => true as const,
    );
    const entered = await Promise.race([turn, late]);
    timer.abort();
    if (entered) return;
    const waiting = queue.indexOf(wake);
    if (waiting < 0) return; // our turn came in the same moment
    queue.splice(waiting, 1);
    throw new SvcError("conflict", `Cannot start: another operation on ${key} is running; retry`);
  }

  #leave(key: GuardKey): void {
    const queue = this.#queues.get(key);
    const next = queue?.shift();
    if (next) next();
    else this.#queues.delete(key);
  }
}
