/** Runs one step for each of many, so that the trouble of one is not the trouble of all. */
import { BugError } from "#common/check.ts";
import { toSvcError } from "#common/errors.ts";
import type { Core } from "../context.ts";
import type { GuardKey } from "../specs/guards.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";

/** How many steps run at a time: enough that a few hanging engines leave room, few enough to burden nobody. */
export const PARALLEL = 8;

/**
 * Takes each item's guard if it is free (else it is left for the next pass) and runs the step. Once the signal is
 * aborted no further step is begun; those under way end by their own deadlines.
 */
export async function forEach<T>(
  core: Core,
  items: readonly T[],
  options: {
    readonly name: string;
    readonly signal: AbortSignal;
    readonly guardOf: (item: T) => GuardKey;
    readonly step: (item: T) => Promise<Outcome>;
  },
): Promise<Outcome> {
  const outcomes: Outcome[] = [];
  const one = async (item: T): Promise<void> => {
    const guard = options.guardOf(item);
    try {
      outcomes.push((await core.guards.tryRun(guard, () => options.step(item))) ?? "failed");
    } catch (error) {
      if (error instanceof BugError) throw error; // ends the process
      outcomes.push("failed");
      core.log.warn("reconcile step failed", {
        "request.reconcile": options.name,
        resource: guard,
        error: toSvcError(error),
      });
    }
  };
  const queue = items.values();
  const worker = async (): Promise<void> => {
    // One iterator for all workers: each takes what is next.
    for (const item of queue) {
      if (options.signal.aborted) return;
      await one(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, items.length) }, worker));
  return mergeOutcomes(outcomes);
}
