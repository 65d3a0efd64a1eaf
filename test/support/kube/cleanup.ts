/**
 * What a suite has to undo, collected while its `before` hook runs, which has no `after` of its own.
 * Invariant: the last thing made goes first; one failure does not keep the rest.
 */
import type { Cleanup } from "../cluster.ts";

export class CleanupStack implements Cleanup {
  readonly #callbacks: (() => unknown)[] = [];

  after(callback: () => unknown): void {
    this.#callbacks.push(callback);
  }

  /** @throws the first failure, after everything was tried */
  async run(): Promise<void> {
    const failures: unknown[] = [];
    for (const callback of this.#callbacks.splice(0).toReversed()) {
      try {
        await callback();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
