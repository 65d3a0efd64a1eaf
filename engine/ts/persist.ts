/**
 * Puts of NexusInfo: from the engine's "put" events to etcd and back.
 *
 * Why: a nexus acknowledges no write that a faulted child missed before this record is durable.
 * Why a put names the revision that it replaces: a call that timed out may still be on its way to
 * the store, and must not undo a later put when it arrives.
 * Invariants: puts of one key are done in the order they were asked for, and what was answered stays
 * until the next one; a put is tried `attempts` times, one pause apart, then fails for good (its nexus
 * shuts down rather than lie); every event is answered exactly once; an engine's puts carry no lease.
 */
import type { Clock } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { ObjectStore } from "#common/store/mod.ts";
import type { EngineEvent } from "./native.ts";

const RETRY_PAUSE_MS = 1_000;
/** While the process stops, a store that is gone must not hold it up for minutes. */
const STOPPING_ATTEMPTS_MAX = 3;

type Store = Pick<ObjectStore, "get" | "txn">;

export type PutEvent = Extract<EngineEvent, { type: "put" }>;

export class NexusInfoPersister {
  readonly #store: Store | null;
  #attempts: number;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #answer: (id: bigint, failure: string | null) => void;
  /** The last put of each key that is still under way. */
  readonly #tails = new Map<string, Promise<void>>();

  constructor(options: {
    /** null: nothing is persisted, and that is success. */
    store: Store | null;
    attempts: number;
    clock: Clock;
    log: Log;
    answer: (id: bigint, failure: string | null) => void;
  }) {
    this.#store = options.store;
    this.#attempts = options.attempts;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#answer = options.answer;
  }

  accept(event: PutEvent): void {
    const before = this.#tails.get(event.key) ?? Promise.resolve();
    const done: Promise<void> = before
      .then(() => this.#put(event))
      .then((failure) => {
        if (this.#tails.get(event.key) === done) this.#tails.delete(event.key);
        this.#answer(event.id, failure);
      });
    this.#tails.set(event.key, done);
  }

  /** From now on a put is given up after a few attempts: the process is stopping. */
  hurry(): void {
    this.#attempts = Math.min(this.#attempts, STOPPING_ATTEMPTS_MAX);
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values());
  }

  async #put({ key, json }: PutEvent): Promise<string | null> {
    if (!this.#store) return null;
    for (let attempt = 1; ; attempt++) {
      try {
        await replace(this.#store, key, json);
        if (attempt > 1) this.#log.info("nexus info stored after retries", { key, attempt });
        return null;
      } catch (error) {
        const fields = { key, attempt, attempts: this.#attempts, error };
        if (attempt >= this.#attempts) {
          this.#log.error("nexus info could not be stored", fields);
          return `Cannot store NexusInfo at ${key}: ${errorMessage(error)}`;
        }
        if (attempt === 1) this.#log.warn("nexus info not stored yet", fields);
        await this.#clock.sleep(RETRY_PAUSE_MS);
      }
    }
  }
}

/** @throws conflict when the key changed meanwhile: an earlier try arrived late, so try again. */
async function replace(store: Store, key: string, value: string): Promise<void> {
  const found = await store.get(key);
  const replaced = await store.txn({
    when: [{ target: "mod", key, is: found?.modRevision ?? 0n }],
    apply: [{ op: "put", key, value }],
  });
  if (!replaced) throw new SvcError("conflict", `Cannot put ${key}: it changed meanwhile`);
}
