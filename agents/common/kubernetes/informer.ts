/**
 * Informer: a copy of one collection, kept current by list and watch.
 *
 * Why: a controller asks often and the API server should not notice; and a watch alone loses what happened while
 * it was broken, so every gap ends in a new list.
 * Invariants: `onChange` gets the key of everything that changed, was added or vanished, gaps included; a key may
 * be told twice, never not at all; an object that the parser refuses is left out and logged, the rest goes on;
 * what a write returned never takes the place of something newer that list or watch told meanwhile.
 */
import { type Static, Type } from "typebox";
import type { Clock } from "../clock.ts";
import { errorMessage } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import { backoffMs } from "../retry.ts";
import { parserOf } from "../rpc/json_api.ts";
import { isGone, type KubeClient, KubeError } from "./client.ts";

const PAGE_OBJECTS = 500;
/** A watch is asked to end after 5 to 10 minutes: connections spread over the API servers again. */
const WATCH_SEC_MIN = 300;
const WATCH_SEC_SPREAD = 300;
const PAUSE_MS = 200;
const PAUSE_MS_MAX = 20_000;

const ListMetaSchema = Type.Object({
  resourceVersion: Type.String(),
  continue: Type.Optional(Type.String()),
});
const ListSchema = Type.Object({
  metadata: ListMetaSchema,
  items: Type.Union([Type.Array(Type.Unknown()), Type.Null()]),
});
const NamedSchema = Type.Object({
  metadata: Type.Object({ name: Type.String(), resourceVersion: Type.String() }),
});
type Named = Static<typeof NamedSchema>;
type Known<T> = { readonly value: T; readonly resourceVersion: string };
const parseList = parserOf(ListSchema, "a list of the API server", "internal");
const parseNamed = parserOf(NamedSchema, "an object of the API server", "internal");
const parseMark = parserOf(
  Type.Object({ metadata: Type.Object({ resourceVersion: Type.String() }) }),
  "a bookmark of the API server",
  "internal",
);

export type InformerOptions<T> = {
  readonly client: KubeClient;
  /** Of the collection, e.g. `/apis/openebs.io/v1alpha1/namespaces/mayastor/diskpools`. */
  readonly path: string;
  /** @throws when the object is not what it should be */
  readonly parse: (object: unknown) => T;
  readonly onChange: (name: string) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
};

/** Versions of one kind of object count up; one of another form cannot be placed and counts as not newer. */
function isNewer(version: string, known: string): boolean {
  const isNumber = /^\d+$/;
  return isNumber.test(version) && isNumber.test(known) && BigInt(version) > BigInt(known);
}

export class Informer<T> {
  readonly #options: InformerOptions<T>;
  readonly #objects = new Map<string, Known<T>>();
  #resourceVersion: string | null = null;
  #lists = 0;

  constructor(options: InformerOptions<T>) {
    this.#options = options;
  }

  get(name: string): T | undefined {
    return this.#objects.get(name)?.value;
  }

  get names(): readonly string[] {
    return [...this.#objects.keys()];
  }

  /** How often everything was listed: 1 after the start, more after gaps. */
  get lists(): number {
    return this.#lists;
  }

  /**
   * Takes in an object that a write has just returned; the watch tells the same sooner or later. When it was sooner,
   * what it told after that counts: the object may be marked for deletion by now, or gone.
   */
  learn(object: unknown): void {
    const named = parseNamed(object);
    const known = this.#objects.get(named.metadata.name);
    if (known === undefined) return; // gone, or never told of
    if (isNewer(named.metadata.resourceVersion, known.resourceVersion)) this.#keep(named);
  }

  /** Follows the collection until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, log, path } = this.#options;
    let failures = 0;
    let lost = 0;
    while (!signal.aborted) {
      try {
        if (this.#resourceVersion === null) await this.#list(signal);
        await this.#follow(signal, () => {
          failures = 0;
          lost = 0;
        });
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        this.#resourceVersion = null; // whatever broke: only a list tells what was missed
        if (isGone(error) && lost === 0) {
          lost += 1; // again before any event: the server forgets faster than a list takes, or always says so
          log.info("watch fell behind: listing again", { path });
        } else {
          failures += 1;
          log.warn("watch is broken: listing again", {
            path,
            failures,
            error: errorMessage(error),
          });
          const pause = { random, delayMs: PAUSE_MS, delayMsMax: PAUSE_MS_MAX };
          await clock.sleep(backoffMs(failures, pause), signal).catch(() => {}); // aborted: the loop ends
        }
      }
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { client, path, onChange } = this.#options;
    const seen = new Set<string>();
    let from: string | undefined;
    let version: string;
    do {
      const page = parseList(
        await client.get(path, { signal, query: { limit: PAGE_OBJECTS, continue: from } }),
      );
      for (const item of page.items ?? []) {
        const named = parseNamed(item);
        seen.add(named.metadata.name);
        this.#keep(named);
      }
      version = page.metadata.resourceVersion;
      from = page.metadata.continue === "" ? undefined : page.metadata.continue;
    } while (from !== undefined);
    const vanished = [...this.#objects.keys()].filter((name) => !seen.has(name));
    for (const name of vanished) this.#objects.delete(name);
    this.#resourceVersion = version;
    this.#lists += 1;
    for (const name of [...vanished, ...seen]) onChange(name);
  }

  /** One watch, from the version known to its end. */
  async #follow(signal: AbortSignal, onEvent: () => void): Promise<void> {
    const { client, path, random, onChange } = this.#options;
    const resourceVersion = this.#resourceVersion;
    if (resourceVersion === null) return;
    const timeoutSec = WATCH_SEC_MIN + (random.uint32() % WATCH_SEC_SPREAD);
    let events = 0;
    for await (const { type, object } of client.watch(path, {
      resourceVersion,
      timeoutSec,
      signal,
    })) {
      events += 1;
      onEvent();
      if (type === "BOOKMARK") {
        this.#resourceVersion = parseMark(object).metadata.resourceVersion;
        continue;
      }
      const named = parseNamed(object);
      if (type === "DELETED") this.#objects.delete(named.metadata.name);
      else this.#keep(named);
      this.#resourceVersion = named.metadata.resourceVersion;
      onChange(named.metadata.name);
    }
    // A server that ends watches at once would otherwise be asked without a pause.
    if (events === 0 && !signal.aborted) {
      throw new KubeError(`Cannot follow ${path}: the watch ended without an event`, {
        status: 0,
        reason: "WatchEnded",
      });
    }
  }

  #keep(named: Named): void {
    const { name, resourceVersion } = named.metadata;
    try {
      this.#objects.set(name, { value: this.#options.parse(named), resourceVersion });
    } catch (error) {
      this.#objects.delete(name);
      this.#options.log.warn("object left out", { name, error: errorMessage(error) });
    }
  }
}
