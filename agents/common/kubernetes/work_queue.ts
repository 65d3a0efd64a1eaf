/**
 * A queue of keys: each is worked on by one worker at a time, again when it changed meanwhile.
 *
 * Why: level-triggered controllers; a hundred events of one object are one piece of work.
 * Invariants: of two due times of a key the earlier one counts; a handler that throws is run again, with pauses
 * that grow from `delayMs` to `delayMsMax`; run() returns when the signal is aborted and every handler has ended.
 */
import type { Clock } from "../clock.ts";
import { Gate } from "../gate.ts";
import type { Random } from "../random.ts";
import { backoffMs } from "../retry.ts";

/** Handles one key; resolves to when to look again (milliseconds), or null for only on a change. */
export type Handler = (key: string, signal: AbortSignal) => Promise<number | null>;

export type WorkQueueOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly concurrency: number;
  /** Pauses after errors. */
  readonly delayMs: number;
  readonly delayMsMax: number;
  readonly onError: (key: string, error: unknown) => void;
};

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  readonly #dueMs = new Map<string, number>();
  readonly #active = new Set<string>();
  readonly #failures = new Map<string, number>();
  #wake: () => void = () => {};

  constructor(options: WorkQueueOptions) {
    this.#options = options;
  }

  /** Keys that wait for their time, those in work not counted. */
  get size(): number {
    return this.#dueMs.size;
  }

  add(key: string): void {
    this.addAfter(key, 0);
  }

  addAfter(key: string, delayMs: number): void {
    const at = this.#options.clock.monotonicMs() + delayMs;
    const known = this.#dueMs.get(key);
    if (known !== undefined && known <= at) return;
    this.#dueMs.set(key, at);
    this.#wake();
  }

  async run(handle: Handler, signal: AbortSignal): Promise<void> {
    const { clock, concurrency } = this.#options;
    const gate = new Gate((error) => {
      throw error; // #work catches what handlers throw: this is a bug of the queue
    });
    while (!signal.aborted) {
      const waking = new AbortController();
      this.#wake = () => waking.abort();
      for (const key of this.#ready(concurrency - this.#active.size)) {
        this.#dueMs.delete(key);
        this.#active.add(key);
        gate.enter(() => this.#work(key, handle, signal));
      }
      await clock.sleep(this.#pauseMs(), AbortSignal.any([signal, waking.signal])).catch(() => {});
    }
    await gate.close();
  }

  #ready(room: number): string[] {
    const now = this.#options.clock.monotonicMs();
    return [...this.#dueMs]
      .filter(([key, at]) => at <= now && !this.#active.has(key))
      .sort((a, b) => a[1] - b[1])
      .slice(0, Math.max(0, room))
      .map(([key]) => key);
  }

  /** Until the next key that nobody works on is due; a day when there is none: a change wakes us. */
  #pauseMs(): number {
    const { clock, concurrency } = this.#options;
    if (this.#active.size >= concurrency) return 86_400_000;
    const waiting = [...this.#dueMs].filter(([key]) => !this.#active.has(key));
    const next = Math.min(...waiting.map(([, at]) => at));
    return Number.isFinite(next) ? Math.max(0, Math.ceil(next - clock.monotonicMs())) : 86_400_000;
  }

  async #work(key: string, handle: Handler, signal: AbortSignal): Promise<void> {
    const { random, delayMs, delayMsMax, onError } = this.#options;
    try {
      const again = await handle(key, signal);
      this.#failures.delete(key);
      if (again !== null) this.addAfter(key, again);
    } catch (error) {
      if (!signal.aborted) {
        const failures = (this.#failures.get(key) ?? 0) + 1;
        this.#failures.set(key, failures);
        this.addAfter(key, backoffMs(failures, { random, delayMs, delayMsMax }));
        onError(key, error);
      }
    } finally {
      this.#active.delete(key);
      this.#wake();
    }
  }
}
