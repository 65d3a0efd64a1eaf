/**
 * The store on etcd, through the etcd3 client.
 *
 * Why this file is the only one to import etcd3: its default policies trip a circuit breaker after
 * three failures, deadlines tear down its streams, and its watcher falls silent when history is
 * compacted past it. Here: no circuit breaker, a deadline on every unary call and on none of the
 * streams, and a watcher that lists again after compaction.
 * Invariants: every call ends within `timeoutMs`; errors are SvcErrors (outcome unknown: `unavailable`
 * or `deadline-exceeded`).
 */
import { ExponentialBackoff, noop } from "cockatiel";
import { Etcd3, type IKeyValue, type IRequestOp, type Watcher } from "etcd3";
import { type Clock, systemClock } from "../clock.ts";
import { errorMessage, SvcError, type SvcErrorKind } from "../errors.ts";
import { type Log, silentLog } from "../log.ts";
import {
  type Compare,
  type ObjectStore,
  STORE_PAGE_SIZE,
  type StoreEntry,
  type StoreEvent,
  type StoreOp,
  type StoreWatch,
  type Txn,
} from "./mod.ts";

export type EtcdOptions = {
  /** "host", "host:port" or a URL; several separated by commas. Default port 2379. */
  readonly endpoints: string;
  readonly timeoutMs: number;
  readonly clock?: Clock;
  readonly log?: Log;
};

const PORT_DEFAULT = 2379;
const SLOW_MS = 1000;
const WATCH_BACKOFF = { initialDelay: 200, maxDelay: 2000 };
// gRPC status codes as etcd answers them.
const KIND_BY_CODE: Readonly<Record<number, SvcErrorKind>> = {
  1: "aborted",
  3: "invalid-argument",
  4: "deadline-exceeded",
  5: "not-found",
  6: "already-exists",
  7: "permission-denied",
  8: "resource-exhausted",
  9: "failed-precondition",
  11: "out-of-range",
  14: "unavailable",
  16: "unauthenticated",
};

/** "a,http://b:1" to the URLs etcd3 wants. */
export function etcdHosts(endpoints: string): string[] {
  return endpoints
    .split(",")
    .map((endpoint) => endpoint.trim())
    .filter((endpoint) => endpoint !== "")
    .map((endpoint) => {
      const [, scheme = "http://", rest = ""] = /^(https?:\/\/)?(.*?)\/*$/.exec(endpoint) ?? [];
      return `${scheme}${rest.includes(":") ? rest : `${rest}:${PORT_DEFAULT}`}`;
    });
}

function toEntry(kv: IKeyValue): StoreEntry {
  return {
    key: kv.key.toString(),
    value: kv.value.toString(),
    createRevision: BigInt(kv.create_revision),
    modRevision: BigInt(kv.mod_revision),
    lease: BigInt(kv.lease),
  };
}

/** The end of the range of all keys that start with a prefix. */
function prefixEnd(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  for (let index = end.length - 1; index >= 0; index--) {
    const byte = end[index] ?? 0xff;
    if (byte < 0xff) {
      end[index] = byte + 1;
      return end.subarray(0, index + 1);
    }
  }
  return Buffer.from([0]);
}

function toRequest(op: StoreOp): IRequestOp {
  const key = Buffer.from(op.key);
  if (op.op === "delete") return { request_delete_range: { key } };
  const value = Buffer.from(op.value);
  const lease = (op.lease ?? 0n).toString();
  return { request_put: { key, value, lease } };
}

function toCompare(compare: Compare) {
  const key = Buffer.from(compare.key);
  switch (compare.target) {
    case "value":
      return { key, target: "Value", result: "Equal", value: Buffer.from(compare.is) } as const;
    case "create":
      return {
        key,
        target: "Create",
        result: "Equal",
        create_revision: compare.is.toString(),
      } as const;
    case "mod":
      return { key, target: "Mod", result: "Equal", mod_revision: compare.is.toString() } as const;
    case "lease":
      return { key, target: "Lease", result: "Equal", lease: compare.is.toString() } as const;
  }
}

export class EtcdStore implements ObjectStore {
  readonly #client: Etcd3;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #timeoutMs: number;
  readonly #watches = new Set<EtcdWatch>();

  constructor({ endpoints, timeoutMs, clock = systemClock, log = silentLog }: EtcdOptions) {
    this.#clock = clock;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
    const hosts = etcdHosts(endpoints);
    if (hosts.length === 0)
      throw new SvcError("invalid-argument", "Cannot open store: no endpoint");
    this.#client = new Etcd3({
      hosts,
      dialTimeout: timeoutMs,
      // Streams (watches) live on; a deadline would tear them down again and again.
      defaultCallOptions: (context) =>
        context.isStream ? {} : { deadline: clock.now() + timeoutMs },
      faultHandling: {
        host: () => noop,
        global: noop,
        watchBackoff: new ExponentialBackoff(WATCH_BACKOFF).next(),
      },
    });
  }

  async get(key: string): Promise<StoreEntry | null> {
    const answer = await this.#call("get", key, () =>
      this.#client.kv.range({ key: Buffer.from(key) }),
    );
    const [kv] = answer.kvs;
    return kv ? toEntry(kv) : null;
  }

  async put(key: string, value: string, { lease = 0n }: { readonly lease?: bigint } = {}) {
    await this.#call("put", key, () =>
      this.#client.kv.put({
        key: Buffer.from(key),
        value: Buffer.from(value),
        lease: lease.toString(),
      }),
    );
  }

  async delete(key: string): Promise<boolean> {
    const answer = await this.#call("delete", key, () =>
      this.#client.kv.deleteRange({ key: Buffer.from(key) }),
    );
    return BigInt(answer.deleted) > 0n;
  }

  async deletePrefix(prefix: string): Promise<number> {
    const answer = await this.#call("delete", prefix, () =>
      this.#client.kv.deleteRange({ key: Buffer.from(prefix), range_end: prefixEnd(prefix) }),
    );
    return Number(answer.deleted);
  }

  async list(prefix: string, options: { readonly pageSize?: number } = {}): Promise<StoreEntry[]> {
    return (await this.#listAt(prefix, options.pageSize ?? STORE_PAGE_SIZE)).entries;
  }

  async #listAt(prefix: string, pageSize: number) {
    const entries: StoreEntry[] = [];
    const range_end = prefixEnd(prefix);
    let key = Buffer.from(prefix);
    let revision = "0";
    for (;;) {
      const page = await this.#call("list", prefix, () =>
        this.#client.kv.range({ key, range_end, revision, limit: pageSize }),
      );
      if (revision === "0") revision = page.header.revision;
      entries.push(...page.kvs.map(toEntry));
      const last = page.kvs.at(-1);
      if (!page.more || !last) return { entries, revision: BigInt(revision) };
      key = Buffer.concat([last.key, Buffer.from([0])]);
    }
  }

  async txn({ when, apply, otherwise = [] }: Txn): Promise<bigint | null> {
    const key = [...apply, ...when][0]?.key ?? "";
    const answer = await this.#call("txn", key, () =>
      this.#client.kv.txn({
        compare: when.map(toCompare),
        success: apply.map(toRequest),
        failure: otherwise.map(toRequest),
      }),
    );
    return answer.succeeded ? BigInt(answer.header.revision) : null;
  }

  async watchPrefix(prefix: string, onEvent: (event: StoreEvent) => void): Promise<StoreWatch> {
    const { entries: _, revision } = await this.#listAt(prefix, STORE_PAGE_SIZE);
    const watch = new EtcdWatch({
      prefix,
      onEvent,
      client: this.#client,
      clock: this.#clock,
      log: this.#log,
      list: () => this.#listAt(prefix, STORE_PAGE_SIZE),
      onClose: () => this.#watches.delete(watch),
    });
    this.#watches.add(watch);
    await watch.start(revision + 1n);
    return watch;
  }

  async leaseGrant({ ttlSec, id = 0n }: { readonly ttlSec: number; readonly id?: bigint }) {
    const answer = await this.#call("lease grant", id.toString(16), () =>
      this.#client.leaseClient.leaseGrant({ TTL: ttlSec, ID: id.toString() }),
    );
    return { id: BigInt(answer.ID), ttlSec: Number(answer.TTL) };
  }

  leaseKeepAlive(id: bigint): Promise<number> {
    return this.#call("lease keep-alive", id.toString(16), async () => {
      const deadline = this.#clock.now() + this.#timeoutMs;
      const stream = await this.#client.leaseClient.leaseKeepAlive({ deadline });
      try {
        return await new Promise<number>((resolve, reject) => {
          stream.on("data", (answer) => resolve(Math.max(0, Number(answer.TTL))));
          stream.on("error", reject);
          stream.on("end", () => reject(new Error("the server closed the stream")));
          stream.write({ ID: id.toString() });
        });
      } finally {
        stream.on("error", () => {}); // cancelling our own stream reports an error: expected
        stream.cancel();
      }
    });
  }

  async leaseRevoke(id: bigint): Promise<void> {
    try {
      await this.#call("lease revoke", id.toString(16), () =>
        this.#client.leaseClient.leaseRevoke({ ID: id.toString() }),
      );
    } catch (error) {
      if (!(error instanceof SvcError && error.kind === "not-found")) throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#watches].map((watch) => watch.close()));
    this.#client.close();
  }

  async #call<T>(call: string, key: string, work: () => Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    try {
      return await work();
    } catch (error) {
      throw storeError(call, key, error);
    } finally {
      const tookMs = this.#clock.monotonicMs() - startMs;
      if (tookMs > SLOW_MS) this.#log.warn("store is slow", { call, key, tookMs });
    }
  }
}

function storeError(call: string, key: string, error: unknown): SvcError {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  const message = errorMessage(error);
  const named = /requested lease not found/i.test(message) ? "not-found" : undefined;
  const kind = named ?? (typeof code === "number" ? KIND_BY_CODE[code] : undefined);
  const late = /deadline/i.test(message) ? "deadline-exceeded" : "unavailable";
  return new SvcError(kind ?? late, `Cannot ${call} in the store: ${message}`, {
    fields: { key },
    cause: error,
  });
}

type EtcdWatchOptions = {
  readonly prefix: string;
  readonly onEvent: (event: StoreEvent) => void;
  readonly client: Etcd3;
  readonly clock: Clock;
  readonly log: Log;
  readonly list: () => Promise<{ entries: StoreEntry[]; revision: bigint }>;
  readonly onClose: () => void;
};

/** One watch that outlives compaction: when its watcher dies it lists, reports a reset, goes on. */
class EtcdWatch implements StoreWatch {
  readonly #options: EtcdWatchOptions;
  readonly #closing = new AbortController();
  #watcher: Watcher | null = null;
  #restart: Promise<void> = Promise.resolve();

  constructor(options: EtcdWatchOptions) {
    this.#options = options;
  }

  async start(fromRevision: bigint): Promise<void> {
    const { client, prefix, onEvent, log } = this.#options;
    const builder = client.watch().prefix(prefix).startRevision(fromRevision.toString());
    const watcher = builder.watcher();
    this.#watcher = watcher;
    let dead = false;
    watcher.on("put", (kv) => {
      if (!dead) onEvent({ type: "put", entry: toEntry(kv) });
    });
    watcher.on("delete", (kv) => {
      const modRevision = BigInt(kv.mod_revision);
      if (!dead) onEvent({ type: "delete", key: kv.key.toString(), modRevision });
    });
    watcher.on("disconnected", (error) => log.debug("store watch disconnected", { error }));
    await new Promise<void>((resolve) => {
      watcher.on("connected", () => resolve());
      watcher.on("error", (error) => {
        resolve();
        if (dead || this.#closing.signal.aborted) return;
        dead = true;
        log.warn("store watch lost its place: listing again", { prefix, error });
        this.#restart = this.#relist();
      });
    });
  }

  async #relist(): Promise<void> {
    const { list, onEvent, clock, log, prefix } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#watcher?.cancel().catch(() => {}); // it is dead: nothing left to cancel
        const { entries, revision } = await list();
        if (signal.aborted) return;
        onEvent({ type: "reset", entries });
        await this.start(revision + 1n);
        return;
      } catch (error) {
        log.warn("store watch cannot list", { prefix, error });
        await clock.sleep(WATCH_BACKOFF.maxDelay, signal).catch(() => {}); // closing: loop ends
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#restart;
    this.#options.onClose();
    await this.#watcher?.cancel().catch(() => {}); // closing anyway
  }
}
