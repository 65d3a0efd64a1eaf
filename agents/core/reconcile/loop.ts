/**
 * The reconcile loop: brings what is towards what is wanted, one small step after the other.
 *
 * Why one sequential loop: its steps read each other's results. Level-triggered: a trigger only says
 * "look soon"; what is done follows from the state alone, so a late or repeated run is harmless.
 * Within a task the resources are worked on a few at a time, so that one hanging engine does not hold up the others.
 * Invariants: one pass at a time; a task that fails does not stop the others, a bug stops everything; tasks that are due every n-th
 * timer loop run on every trigger of their own kind.
 */

import { BugError } from "#common/check.ts";
import type { Clock } from "#common/clock.ts";
import { toSvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { Trigger } from "../context.ts";

/** "busy": a step forward was made; "failed": one is due but could not be made now; "idle": all as wanted. */
export type Outcome = "busy" | "failed" | "idle";

/** Of several: any progress is progress, and otherwise any failure is worth trying again. */
export function mergeOutcomes(outcomes: readonly Outcome[]): Outcome {
  if (outcomes.includes("busy")) return "busy";
  return outcomes.includes("failed") ? "failed" : "idle";
}

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
/** After a step forward the next one need not wait for the timer; steps without end slow down to the busy period. */
const PROGRESS_MS_FIRST = 20;
const PROGRESS_PASSES_MAX = 30;
/** A step that failed is tried again ever later, up to the busy period. */
const RETRY_MS_FIRST = 1000;

export const ALL_TRIGGERS: readonly Trigger[] = [
  "start",
  "node-online",
  "node-offline",
  "volume-degraded",
  "creating-to-deleting",
  "replica-given-up",
  "changed",
];

/** What runs when something falls due: a pause is over, or a replica has been away for long enough. */
const DUE_TRIGGERS: readonly Trigger[] = ["changed", "replica-given-up"];

export class ReconcileLoop {
  readonly #options: LoopOptions;
  #pending = new Set<Trigger>();
  #wake: (() => void) | null = null;
  #timerLoops = 0;
  /** Monotonic; when something that waits falls due. */
  #dueAtMs: number | null = null;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  trigger(reason: Trigger): void {
    this.#pending.add(reason);
    this.#wake?.();
  }

  /** A pass at the latest when so much time has passed. The soonest wish counts; passes ask anew for the later ones. */
  wakeIn(ms: number): void {
    const atMs = this.#options.clock.monotonicMs() + Math.max(0, ms);
    if (this.#dueAtMs !== null && atMs >= this.#dueAtMs) return;
    this.#dueAtMs = atMs;
    this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    this.trigger("start");
    const pace = new Pace(this.#options);
    let pauseMs = 0;
    while (!signal.aborted) {
      const timer = await this.#wait(pauseMs, signal);
      if (signal.aborted) return;
      pauseMs = pace.next(await this.#pass(timer, signal));
    }
  }

  /** One pass over the tasks that are due. Exposed for tests and simulation. */
  async pass(signal: AbortSignal): Promise<Outcome> {
    for (const trigger of ALL_TRIGGERS) this.#pending.add(trigger);
    return await this.#pass(true, signal);
  }

  async #wait(pauseMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    const timerAtMs = clock.monotonicMs() + pauseMs;
    while (this.#pending.size === 0 && !signal.aborted) {
      const nowMs = clock.monotonicMs();
      if (nowMs >= timerAtMs) return true;
      const dueAtMs = this.#dueAtMs ?? timerAtMs;
      if (nowMs >= dueAtMs) {
        for (const reason of DUE_TRIGGERS) this.#pending.add(reason);
        break;
      }
      const stop = new AbortController();
      this.#wake = () => stop.abort();
      const either = AbortSignal.any([signal, stop.signal]);
      await clock.sleep(Math.min(timerAtMs, dueAtMs) - nowMs, either).catch(() => {}); // woken or stopping
      this.#wake = null;
    }
    await clock.sleep(SETTLE_MS, signal).catch(() => {}); // stopping: seen by the caller
    return false;
  }

  async #pass(timer: boolean, signal: AbortSignal): Promise<Outcome> {
    const { tasks, log, clock } = this.#options;
    const triggers = this.#pending;
    this.#pending = new Set();
    // What waits for later says so again when it is looked at.
    if (this.#dueAtMs !== null && clock.monotonicMs() >= this.#dueAtMs) this.#dueAtMs = null;
    if (timer) this.#timerLoops += 1;
    const outcomes: Outcome[] = [];
    for (const task of tasks) {
      if (signal.aborted) break;
      const due = timer && this.#timerLoops % task.every === 0;
      if (!due && !task.on.some((trigger) => triggers.has(trigger))) continue;
      try {
        outcomes.push(await task.run(signal));
      } catch (error) {
        if (error instanceof BugError) throw error; // ends the process
        outcomes.push("failed");
        const failure = toSvcError(error, "Reconciling failed");
        log.warn("reconciler failed", { "request.reconcile": task.name, error: failure });
      }
    }
    return mergeOutcomes(outcomes);
  }
}

/** How long to pause after a pass: progress is followed up at once, failures and endless progress ever later. */
class Pace {
  readonly #busyMs: number;
  readonly #idleMs: number;
  #quickPasses = 0;
  #quickMs = PROGRESS_MS_FIRST;
  #retryMs = RETRY_MS_FIRST;

  constructor({ busyMs, idleMs }: Pick<LoopOptions, "busyMs" | "idleMs">) {
    this.#busyMs = busyMs;
    this.#idleMs = idleMs;
  }

  next(outcome: Outcome): number {
    if (outcome !== "busy") {
      this.#quickPasses = 0;
      this.#quickMs = PROGRESS_MS_FIRST;
    }
    if (outcome !== "failed") this.#retryMs = RETRY_MS_FIRST;
    switch (outcome) {
      case "idle":
        return this.#idleMs;
      case "failed": {
        const pauseMs = Math.min(this.#retryMs, this.#busyMs);
        this.#retryMs *= 2;
        return pauseMs;
      }
      case "busy": {
        this.#quickPasses += 1;
        if (this.#quickPasses > PROGRESS_PASSES_MAX) return this.#busyMs;
        const pauseMs = Math.min(this.#quickMs, RETRY_MS_FIRST, this.#busyMs);
        this.#quickMs *= 2;
        return pauseMs;
      }
    }
  }
}
