/**
 * What both controllers need of Kubernetes: copies of collections across namespaces, and a loop that looks at
 * everything again whenever something has changed.
 *
 * Why not the agents' informer: that one knows objects of one namespace by name; claims of all namespaces are needed.
 * Invariant: a pass never runs beside itself; a failed pass is run again after a pause.
 */
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "#common/clock.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { findConnection } from "#common/kubernetes/connection.ts";

const PAUSE_MS = 1_000;
/** Failed work (a volume that cannot be made yet) is tried again this often at most. */
const AGAIN_MS = 2_000;
const WATCH_SEC = 300;

/** The few fields of any object that are looked at here. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly finalizers?: readonly string[];
    readonly deletionTimestamp?: string;
  };
}

export const keyOf = ({ metadata }: KubeObject): string =>
  metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`;

export async function connect(): Promise<KubeClient> {
  return new KubeClient(await findConnection(process.env, systemClock));
}

/** Deletes an object; one that is gone already is fine. (The agents' client has no such call: they delete nothing.) */
export async function remove(path: string, signal: AbortSignal): Promise<void> {
  const { server, credentials } = await findConnection(process.env, systemClock);
  const options = { ...(await credentials()), method: "DELETE", signal };
  const status = await new Promise<number>((resolve, reject) => {
    const call = request(server + path, options, (response) => {
      response.resume().once("end", () => resolve(response.statusCode ?? 0));
    });
    call.once("error", reject).end();
  });
  if (status > 299 && status !== 404) throw new Error(`Cannot delete ${path}: status ${status}`);
}

/** A copy of one collection; `ready` resolves after the first list. */
export class Collection<T extends KubeObject> {
  readonly objects = new Map<string, T>();
  readonly ready: Promise<void>;
  readonly #client: KubeClient;
  readonly #path: string;
  readonly #onChange: () => void;
  #isListed: () => void = () => {};

  constructor(client: KubeClient, path: string, onChange: () => void) {
    this.#client = client;
    this.#path = path;
    this.#onChange = onChange;
    this.ready = new Promise((resolve) => {
      this.#isListed = resolve;
    });
  }

  get all(): readonly T[] {
    return [...this.objects.values()];
  }

  /**
   * Takes in what a write returned, so that the next pass does not act on the older one. A change of an object that
   * has gone meanwhile does not bring it back.
   */
  put(object: unknown, { isNew = false } = {}): T {
    const taken = object as T; // the API server's answer to a write of this kind
    if (isNew || this.objects.has(keyOf(taken))) this.objects.set(keyOf(taken), taken);
    return taken;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        let version = await this.#list(signal);
        while (!signal.aborted) version = await this.#follow(version, signal);
      } catch (error) {
        if (signal.aborted) return;
        console.error(`watch of ${this.#path}: ${String(error)}`);
        await sleep(PAUSE_MS);
      }
    }
  }

  async #list(signal: AbortSignal): Promise<string> {
    const list = (await this.#client.get(this.#path, { signal })) as {
      readonly metadata: { readonly resourceVersion: string };
      readonly items: readonly T[] | null;
    }; // a list of the API server
    this.objects.clear();
    for (const item of list.items ?? []) this.objects.set(keyOf(item), item);
    this.#isListed();
    this.#onChange();
    return list.metadata.resourceVersion;
  }

  async #follow(from: string, signal: AbortSignal): Promise<string> {
    let version = from;
    for await (const { type, object } of this.#client.watch(this.#path, {
      resourceVersion: from,
      timeoutSec: WATCH_SEC,
      signal,
    })) {
      const seen = object as T; // an object of this collection, or a bookmark with a version
      version = seen.metadata.resourceVersion;
      if (type === "BOOKMARK") continue;
      if (type === "DELETED") this.objects.delete(keyOf(seen));
      else this.objects.set(keyOf(seen), seen);
      this.#onChange();
    }
    return version;
  }
}

/** Runs `pass` after each wake(), and again after a while when it says that work is left. */
export class Loop {
  #isDue = true;
  #wake: () => void = () => {};

  wake(): void {
    this.#isDue = true;
    this.#wake();
  }

  /** `pass` resolves to false when it should be tried again. */
  async run(pass: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (!this.#isDue) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      this.#isDue = false;
      const isDone = await pass().catch((error: unknown) => {
        console.error(String(error));
        return false;
      });
      if (!isDone) setTimeout(() => this.wake(), AGAIN_MS).unref();
    }
  }
}

/** Tells about an object, as `kubectl describe` shows it. */
export async function postEvent(
  client: KubeClient,
  event: {
    readonly about: KubeObject;
    readonly apiVersion: string;
    readonly kind: string;
    readonly type: "Normal" | "Warning";
    readonly reason: string;
    readonly message: string;
    readonly component: string;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { about, apiVersion, kind, type, reason, message, component, signal } = event;
  const { name, uid, resourceVersion, namespace = "default" } = about.metadata;
  const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const body = {
    apiVersion: "v1",
    kind: "Event",
    metadata: { generateName: `${name}.`, namespace },
    involvedObject: { apiVersion, kind, name, uid, resourceVersion, namespace },
    ...{ type, reason, message, source: { component } },
    ...{ firstTimestamp: now, lastTimestamp: now, count: 1 },
  };
  const path = `/api/v1/namespaces/${namespace}/events`;
  // Events are for people: work goes on without.
  await client
    .create(path, body, { signal })
    .catch((error: unknown) => console.error(String(error)));
}
