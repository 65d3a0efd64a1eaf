/**
 * Watches: a URL that is called when a volume's key in the store changes.
 *
 * Invariants: as published, the watched key is that of kind `Volume`; watches live in memory only; a callback that
 * fails is logged, not repeated; a callback has a deadline.
 */
import { SvcError } from "#common/errors.ts";
import { Gate } from "#common/gate.ts";
import type { RestWatch } from "#common/openapi/model.ts";
import type { StoreWatch } from "#common/store/mod.ts";
import type { Core } from "../context.ts";

const CALLBACK_MS_MAX = 5000;
/** Per volume: enough for any use, small enough to be no burden. */
const WATCHES_MAX = 64;

type Entry = { readonly callback: string; readonly watch: StoreWatch };

export class WatchService {
  readonly #core: Core;
  readonly #gate: Gate;
  readonly #entries = new Map<string, Entry[]>();

  constructor(core: Core) {
    this.#core = core;
    this.#gate = new Gate((error) => core.log.warn("watch callback failed", { error }));
  }

  list(volume: string): RestWatch[] {
    const resource = this.#core.keys.object("Volume", volume);
    return (this.#entries.get(volume) ?? []).map(({ callback }) => ({ callback, resource }));
  }

  /** @throws {SvcError} `invalid-argument`, `already-exists`, `resource-exhausted` */
  async add(volume: string, callback: string): Promise<void> {
    if (!URL.canParse(callback)) {
      throw new SvcError("invalid-argument", `Cannot watch: "${callback}" is no URL`);
    }
    const entries = this.#entries.get(volume) ?? [];
    if (entries.some((entry) => entry.callback === callback)) {
      throw new SvcError("already-exists", `Watch of ${volume} by ${callback} already exists`);
    }
    if (entries.length >= WATCHES_MAX) {
      throw new SvcError("resource-exhausted", `Cannot watch: ${WATCHES_MAX} watches are the most`);
    }
    const key = this.#core.keys.object("Volume", volume);
    const watch = await this.#core.store.watchPrefix(key, () => {
      this.#gate.enter(() => this.#call(callback));
    });
    this.#entries.set(volume, [...entries, { callback, watch }]);
  }

  /** @throws {SvcError} `not-found` */
  async remove(volume: string, callback: string): Promise<void> {
    const entries = this.#entries.get(volume) ?? [];
    const found = entries.find((entry) => entry.callback === callback);
    if (!found) throw new SvcError("not-found", `Watch of ${volume} by ${callback} not found`);
    this.#entries.set(
      volume,
      entries.filter((entry) => entry !== found),
    );
    await found.watch.close();
  }

  async close(): Promise<void> {
    const all = [...this.#entries.values()].flat();
    this.#entries.clear();
    await Promise.all(all.map((entry) => entry.watch.close()));
    await this.#gate.close();
  }

  async #call(callback: string): Promise<void> {
    const signal = AbortSignal.timeout(CALLBACK_MS_MAX);
    const answer = await fetch(callback, { method: "PUT", signal });
    if (!answer.ok) throw new SvcError("aborted", `Watch callback answered ${answer.status}`);
  }
}
