/**
 * Gate: owns background work, so that closing a thing waits for what it started.
 *
 * Invariants: after close() begins nothing new enters; close() resolves when the last piece of work
 * has ended. Errors of the work go to `onError`, never to nobody.
 */
export class Gate {
  readonly #running = new Set<Promise<void>>();
  readonly #onError: (error: unknown) => void;
  #closing = false;

  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  get size(): number {
    return this.#running.size;
  }

  /** Starts work; returns false, without starting it, when the gate is closing. */
  enter(work: () => Promise<void>): boolean {
    if (this.#closing) return false;
    const running: Promise<void> = work()
      .catch(this.#onError)
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
    return true;
  }

  async close(): Promise<void> {
    this.#closing = true;
    while (this.#running.size > 0) await Promise.all([...this.#running]);
  }
}
