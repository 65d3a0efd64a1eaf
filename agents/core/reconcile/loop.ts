/**
 * The reconcile loop: brings what is towards what is wanted, one small step after the other.
 *
 * Why one sequential loop: its steps read each other's results. Level-triggered: a trigger only says
 * "look soon"; what is done follows from the state alone, so a late or repeated run is harmless.
 * Invariants: one pass at a time; a task that fails does not stop the others; tasks that are due every n-th
 * timer loop run on every trigger of their own kind.
 */

import type { Clock } from "#common/clock.ts";
import { toSvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { Trigger } from "../context.ts";

/** "busy": something was done or is to be retried; "idle": all as wanted. */
export type Outcome = "busy" | "idle";

export type Task = {
  readonly name: string;
  /** Runs on every n-th timer loop. */
  readonly every: number;
  /** Triggers that run it at once. */
  readonly on: readonly Trigger[];
  readonly run: (signal: AbortSignal) => Promise<Outcome>;
};

export type LoopOptions = {
  readonly clock: Clock;
  readonly log: Log;
  readonly tasks: readonly Task[];
  readonly busyMs: number;
  readonly idleMs: number;
};

/** A burst of triggers makes one pass. */
const SETTLE_MS = 20;
/** After a step forward the next one need not wait for the timer. */
const PROGRESS_MS = 1000;
const PROGRESS_PASSES_MAX = 30;

export const ALL_TRIGGERS: readonly Trigger[] = [
  "start",
  "node-online",
  "node-offline",
  "volume-degraded",
  "creating-to-deleting",
  "changed",
];

export class ReconcileLoop {
  readonly #options: LoopOptions;
  #pending = new Set<Trigger>();
  #wake: (() => void) | null = null;
  #timerLoops = 0;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  trigger(reason: Trigger): void {
    this.#pending.add(reason);
    this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    this.trigger("start");
    let quickPasses = 0;
    let pauseMs = 0;
    while (!signal.aborted) {
      const timer = await this.#wait(pauseMs, signal);
      if (signal.aborted) return;
      const outcome = await this.#pass(timer, signal);
      // A step forward is followed up quickly, but a step that keeps failing falls back to the timer.
      quickPasses = outcome === "busy" && !timer ? quickPasses + 1 : outcome === "busy" ? 1 : 0;
      const { busyMs, idleMs } = this.#options;
      if (outcome === "idle") pauseMs = idleMs;
      else pauseMs = quickPasses <= PROGRESS_PASSES_MAX ? Math.min(PROGRESS_MS, busyMs) : busyMs;
    }
  }

  /** One pass over the tasks that are due. Exposed for tests and simulation. */
  async pass(signal: AbortSignal): Promise<Outcome> {
    for (const trigger of ALL_TRIGGERS) this.#pending.add(trigger);
    return await this.#pass(true, signal);
  }

  async #wait(pauseMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    let timer = true;
    if (this.#pending.size === 0) {
      const stop = new AbortController();
      const either = AbortSignal.any([signal, stop.signal]);
      this.#wake = () => {
        timer = false;
        stop.abort();
      };
      await clock.sleep(pauseMs, either).catch(() => {}); // woken or stopping
      this.#wake = null;
    } else {
      timer = false;
    }
    if (!timer) await clock.sleep(SETTLE_MS, signal).catch(() => {}); // stopping: seen by the caller
    return timer;
  }

  async #pass(timer: boolean, signal: AbortSignal): Promise<Outcome> {
    const { tasks, log } = this.#options;
    const triggers = this.#pending;
    this.#pending = new Set();
    if (timer) this.#timerLoops += 1;
    let outcome: Outcome = "idle";
    for (const task of tasks) {
      if (signal.aborted) return outcome;
      const due = timer && this.#timerLoops % task.every === 0;
      if (!due && !task.on.some((trigger) => triggers.has(trigger))) continue;
      try {
        if ((await task.run(signal)) === "busy") outcome = "busy";
      } catch (error) {
        outcome = "busy";
        const failure = toSvcError(error, "Reconciling failed");
        log.warn("reconciler failed", { "request.reconcile": task.name, error: failure });
      }
    }
    return outcome;
  }
}
