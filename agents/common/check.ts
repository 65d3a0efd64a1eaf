/**
 * check(): a broken invariant is a bug, and a bug ends the process.
 *
 * Why: a restarted agent reads its state back from the store; one that runs on with a broken
 * invariant may write nonsense into it.
 * Invariant: the message names the invariant, not the symptom.
 */

/** Thrown by check(); only the top of a program or a test may catch it. */
export class BugError extends Error {
  constructor(invariant: string) {
    super(`bug: ${invariant}`);
    this.name = "BugError";
  }
}

export function check(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new BugError(invariant);
}
