/**
 * Watches: a URL that is called when a volume's key in the store changes.
 *
 * Invariants: as published, the watched key is that of kind `Volume`; watches live in memory only and end with their
 * volume; what is listed is exactly what is watched in the store; a callback that fails is logged, not repeated; a
 * callback has a deadline.
 */
import { deadlineSignal } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import { Gate } from "#common/gate.ts";
import type { RestWatch } from "#common/openapi/model.ts";
import type { StoreEvent, StoreWatch } from "#common/store/mod.ts";
import type { Core } from "../context.ts";

export const CALLBACK_MS_MAX = 5000;
/** Per volume: enough for any use, small enough to be no burden. */
export const WATCHES_MAX = 64;

/** The part of the global fetch that callbacks need. */
export type Fetch = (
  url: string,
  options: { readonly method: "PUT"; readonly signal: AbortSignal },
) => Promise<Pick<Response, "ok" | "status" | "body">>;

type Entry = { readonly callback: string; readonly watch: StoreWatch };

export class WatchService {
  readonly #core: Core;
  readonly #fetch: Fetch;
  readonly #gate: Gate;
  readonly #entries = new Map<string, readonly Entry[]>();
  #closed = false;

  constructor(core: Core, fetcher: Fetch = fetch) {
    this.#core = core;
    this.#fetch = fetcher;
    this.#gate = new Gate((error) => core.log.warn("watch callback failed", { error }));
  }

  list(volume: string): RestWatch[] {
    const resource = this.#core.keys.object("Volume", volume);
    return (this.#entries.get(volume) ?? []).map(({ callback }) => ({ callback, resource }));
  }

  /** @throws {SvcError} `invalid-argument`, `not-found`, `already-exists`, `resource-exhausted`, or the store's own */
  async add(volume: string, callback: string): Promise<void> {
    if (!URL.canParse(callback) || !/^https?:$/.test(new URL(callback).protocol)) {
      throw new SvcError("invalid-argument", `Cannot watch: "${callback}" is no http URL`);
    }
    // One at a time per volume: the list must not change while the store is asked.
    await this.#core.guards.run(`watch/${volume}`, () => this.#addHeld(volume, callback));
  }

  async #addHeld(volume: string, callback: string): Promise<void> {
    const { specs, keys, store } = this.#core;
    specs.volumes.get(volume);
    if (this.#closed) throw new SvcError("unavailable", "Cannot watch: agent-core is stopping");
    const entries = this.#entries.get(volume) ?? [];
    if (entries.some((entry) => entry.callback === callback)) {
      throw new SvcError("already-exists", `Watch of ${volume} by ${callback} already exists`);
    }
    if (entries.length >= WATCHES_MAX) {
      throw new SvcError("resource-exhausted", `Cannot watch: ${WATCHES_MAX} watches are the most`);
    }
    const key = keys.object("Volume", volume);
    const watch = await store.watchPrefix(key, (event) => {
      if (isAbout(event, key)) this.#gate.enter(() => this.#call(callback));
    });
    this.#entries.set(volume, [...entries, { callback, watch }]);
  }

  /** @throws {SvcError} `not-found` */
  async remove(volume: string, callback: string): Promise<void> {
    await this.#core.guards.run(`watch/${volume}`, async () => {
      const entries = this.#entries.get(volume) ?? [];
      const found = entries.find((entry) => entry.callback === callback);
      if (!found) throw new SvcError("not-found", `Watch of ${volume} by ${callback} not found`);
      const others = entries.filter((entry) => entry !== found);
      if (others.length > 0) this.#entries.set(volume, others);
      else this.#entries.delete(volume);
      await found.watch.close();
    });
  }

  /** The volume is gone: nobody can list or remove its watches any more. */
  forget(volume: string): void {
    const { guards } = this.#core;
    // Also when there is none yet: one may be in the making.
    if (!this.#entries.has(volume) && !guards.busy(`watch/${volume}`)) return;
    this.#gate.enter(() => guards.run(`watch/${volume}`, () => this.#drop(volume)));
  }

  /** Calls that are under way end by their deadline. */
  async close(): Promise<void> {
    this.#closed = true;
    const { guards } = this.#core;
    const drop = (volume: string) => guards.run(`watch/${volume}`, () => this.#drop(volume));
    await Promise.all([...this.#entries.keys()].map(drop));
    await this.#gate.close();
  }

  async #drop(volume: string): Promise<void> {
    const entries = this.#entries.get(volume) ?? [];
    this.#entries.delete(volume);
    for (const { callback, watch } of entries) {
      await watch.close().catch((error: unknown) => {
        const fields = { "volume.uuid": volume, callback, reason: errorMessage(error) };
        this.#core.log.warn("watch cannot be closed", fields);
      });
    }
  }

  async #call(callback: string): Promise<void> {
    const deadline = deadlineSignal(this.#core.clock, CALLBACK_MS_MAX);
    try {
      const answer = await this.#fetch(callback, { method: "PUT", signal: deadline.signal });
      await answer.body?.cancel(); // else its connection is kept until the answer is collected
      if (answer.ok) return;
      throw new SvcError("aborted", `Watch callback ${callback} answered ${answer.status}`);
    } finally {
      deadline.clear();
    }
  }
}

/** A prefix may be that of other keys too; a reset says that anything may have changed. */
function isAbout(event: StoreEvent, key: string): boolean {
  if (event.type === "reset") return true;
  return (event.type === "put" ? event.entry.key : event.key) === key;
}
