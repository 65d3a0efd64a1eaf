/**
 * Named locks for gRPC calls: one call at a time for each pool, each replica and each nexus.
 *
 * Why: published behaviour; a caller whose deadline passes while it waits gets deadline-exceeded and
 * its call has then had no effect.
 * Invariants: first come, first served; a waiter whose signal is aborted never runs.
 */
import { SvcError } from "#common/errors.ts";

type Waiter = { readonly enter: () => void };

export class Locks {
  readonly #queues = new Map<string, Waiter[]>();

  /** How many names are locked. */
  get size(): number {
    return this.#queues.size;
  }

  /** Runs `work` while holding `name`. @throws {SvcError} `deadline-exceeded`, or what work throws */
  async run<T>(name: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#lock(name, signal);
    try {
      return await work();
    } finally {
      this.#unlock(name);
    }
  }

  #lock(name: string, signal: AbortSignal): Promise<void> {
    const queue = this.#queues.get(name);
    if (!queue) {
      this.#queues.set(name, []);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        enter: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = () => {
        queue.splice(queue.indexOf(waiter), 1);
        const message = `Cannot lock ${name} in time: another call holds it`;
        reject(new SvcError("deadline-exceeded", message, { cause: signal.reason }));
      };
      if (signal.aborted) {
        queue.push(waiter);
        onAbort();
        return;
      }
      signal.addEventListener("abort", onAbort, { once: true });
      queue.push(waiter);
    });
  }

  #unlock(name: string): void {
    const next = this.#queues.get(name)?.shift();
    if (next) next.enter();
    else this.#queues.delete(name);
  }
}
