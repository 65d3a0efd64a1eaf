/**
 * Retry: repeats what failed for a reason that passes, with growing pauses.
 *
 * Invariants: only kinds that a caller may retry are repeated; the pause doubles from `delayMs` to
 * `delayMsMax` with jitter of a quarter; an aborted signal ends it at once with the last error.
 */
import type { Clock } from "./clock.ts";
import { isKind } from "./errors.ts";
import type { Random } from "./random.ts";

export type RetryOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly attempts: number;
  readonly delayMs: number;
  readonly delayMsMax: number;
  readonly retryable?: (error: unknown) => boolean;
};

export function isTransient(error: unknown): boolean {
  return isKind(error, "unavailable", "deadline-exceeded", "timeout", "aborted");
}

/** The pause before attempt `attempt` (from 1): exponential, capped, with jitter. */
export function backoffMs(
  attempt: number,
  { random, delayMs, delayMsMax }: Pick<RetryOptions, "random" | "delayMs" | "delayMsMax">,
): number {
  const base = Math.min(delayMs * 2 ** Math.min(attempt - 1, 20), delayMsMax);
  return base * (0.75 + (random.uint32() / 2 ** 32) * 0.5);
}

export async function retry<T>(options: RetryOptions, work: () => Promise<T>): Promise<T> {
  const { clock, signal, attempts, retryable = isTransient } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attempts || signal.aborted || !retryable(error)) throw error;
      try {
        await clock.sleep(backoffMs(attempt, options), signal);
      } catch {
        throw error; // aborted while pausing: the failure says more than the abort
      }
    }
  }
}
