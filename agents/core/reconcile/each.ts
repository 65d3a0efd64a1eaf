/** Runs one step for each of many, so that the trouble of one is not the trouble of all. */
import { toSvcError } from "#common/errors.ts";
import type { Core } from "../context.ts";
import type { GuardKey } from "../specs/guards.ts";
import type { Outcome } from "./loop.ts";

/**
 * Takes each item's guard if it is free (else it is left for the next pass) and runs the step.
 * Busy when any step did something or failed.
 */
export async function forEach<T>(
  core: Core,
  items: readonly T[],
  options: {
    readonly name: string;
    readonly guardOf: (item: T) => GuardKey;
    readonly step: (item: T) => Promise<Outcome>;
  },
): Promise<Outcome> {
  let outcome: Outcome = "idle";
  for (const item of items) {
    const guard = options.guardOf(item);
    try {
      const done = await core.guards.tryRun(guard, () => options.step(item));
      if (done !== "idle") outcome = "busy";
    } catch (error) {
      outcome = "busy";
      core.log.warn("reconcile step failed", {
        "request.reconcile": options.name,
        resource: guard,
        error: toSvcError(error),
      });
    }
  }
  return outcome;
}
