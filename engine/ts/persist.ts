/**
 * Puts of NexusInfo: from the engine's "put" events to etcd and back.
 *
 * Why: a nexus acknowledges no write that a faulted child missed before this record is durable.
 * Why a put names the revision that it replaces: a call that timed out may still be on its way to
 * the store, and must not undo a later put when it arrives; and agent-core fences the record of a
 * target that it moves away from: a nexus that it cannot reach must not go on without a further child.
 * Invariants: puts of one key are done in the order they were asked for, and what was answered stays
 * until the next one; the first put of a nexus overwrites what is there, any later one replaces only
 * what that nexus put last, and fails at once and for good when the record was changed or taken away
 * by somebody else; a put is tried `attempts` times, one pause apart, then fails for good (its nexus
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

/** `failure` null: the record is durable, at `revision`; that is 0n after a failure and without a store. */
export type PutAnswer = {
  readonly id: bigint;
  readonly failure: string | null;
  readonly revision: bigint;
};

export class NexusInfoPersister {
  readonly #store: Store | null;
  #attempts: number;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #answer: (answer: PutAnswer) => void;
  /** The last put of each key that is still under way. */
  readonly #tails = new Map<string, Promise<void>>();

  constructor(options: {
    /** null: nothing is persisted, and that is success. */
    store: Store | null;
    attempts: number;
    clock: Clock;
    log: Log;
    answer: (answer: PutAnswer) => void;
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
      .then((answer) => {
        if (this.#tails.get(event.key) === done) this.#tails.delete(event.key);
        this.#answer(answer);
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

  async #put({ id, key, json, replaces }: PutEvent): Promise<PutAnswer> {
    if (!this.#store) return { id, failure: null, revision: 0n };
    const failed = (why: string) => {
      return { id, failure: `Cannot store NexusInfo at ${key}: ${why}`, revision: 0n };
    };
    for (let attempt = 1; ; attempt++) {
      try {
        const revision =
          replaces === null
            ? await overwrite(this.#store, key, json)
            : await replace(this.#store, { key, value: json, replaces, again: attempt > 1 });
        if (revision === null) {
          this.#log.warn("nexus info is somebody else's now", { key, attempt });
          return failed("it was changed or removed; the nexus was replaced and must end");
        }
        if (attempt > 1) this.#log.info("nexus info stored after retries", { key, attempt });
        return { id, failure: null, revision };
      } catch (error) {
        const fields = { key, attempt, attempts: this.#attempts, error };
        if (attempt >= this.#attempts) {
          this.#log.error("nexus info could not be stored", fields);
          return failed(errorMessage(error));
        }
        if (attempt === 1) this.#log.warn("nexus info not stored yet", fields);
        await this.#clock.sleep(RETRY_PAUSE_MS);
      }
    }
  }
}

/** @throws conflict when the key changed meanwhile: an earlier try arrived late, so try again. */
async function overwrite(store: Store, key: string, value: string): Promise<bigint> {
  const found = await store.get(key);
  const revision = await store.txn({
    when: [{ target: "mod", key, is: found?.modRevision ?? 0n }],
    apply: [{ op: "put", key, value }],
  });
  if (revision === null) throw new SvcError("conflict", `Cannot put ${key}: it changed meanwhile`);
  return revision;
}

/**
 * Null: somebody else wrote the record, or took it away. `again`: an earlier try got no answer and may have been
 * applied; then the record says just what it should, which nobody's fence does. All tries compare the same
 * revision, so only one of them ever takes effect.
 */
async function replace(
  store: Store,
  put: { key: string; value: string; replaces: bigint; again: boolean },
): Promise<bigint | null> {
  const { key, value, replaces, again } = put;
  const revision = await store.txn({
    when: [{ target: "mod", key, is: replaces }],
    apply: [{ op: "put", key, value }],
  });
  if (revision !== null || !again) return revision;
  const found = await store.get(key);
  return found?.value === value ? found.modRevision : null;
}
