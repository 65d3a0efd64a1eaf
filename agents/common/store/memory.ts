/**
 * The in-memory twin of etcd: for unit tests and simulation.
 *
 * Why: agents under test must meet the same revisions, leases, transactions and watches as in
 * production, on a clock the test owns.
 * Invariants: passes contract_test.ts, as etcd does; leases expire by the clock, seen at the next call;
 * `fault` may fail any call before or after it took effect, as a network does.
 */
import { type Clock, systemClock } from "../clock.ts";
import { SvcError } from "../errors.ts";
import type {
  Compare,
  ObjectStore,
  StoreEntry,
  StoreEvent,
  StoreOp,
  StoreWatch,
  Txn,
} from "./mod.ts";

export type StoreCall = { readonly call: string; readonly keys: readonly string[] };
/**
 * "before": nothing happens; "after": it happened but the caller is told it failed; "late": the caller is told it failed,
 * and it happens at the next deliverLate().
 */
export type StoreFault = (call: StoreCall) => "none" | "before" | "after" | "late";

type Watcher = { readonly prefix: string; readonly onEvent: (event: StoreEvent) => void };
type Lease = { readonly ttlSec: number; expiresMs: number };

export class MemoryStore implements ObjectStore {
  readonly #clock: Clock;
  readonly #entries = new Map<string, StoreEntry>();
  readonly #leases = new Map<bigint, Lease>();
  readonly #watchers = new Set<Watcher>();
  #revision = 1n;
  #nextLease = 0x5e6787b9b88c0000n;
  readonly #late: (() => void)[] = [];
  fault: StoreFault = () => "none";

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  get revision(): bigint {
    return this.#revision;
  }

  get(key: string): Promise<StoreEntry | null> {
    return this.#call("get", [key], () => this.#entries.get(key) ?? null);
  }

  put(key: string, value: string, options: { readonly lease?: bigint } = {}): Promise<void> {
    return this.#call("put", [key], () => {
      const { lease } = options;
      this.#apply([
        lease === undefined ? { op: "put", key, value } : { op: "put", key, value, lease },
      ]);
    });
  }

  delete(key: string): Promise<boolean> {
    return this.#call("delete", [key], () => {
      const existed = this.#entries.has(key);
      this.#apply([{ op: "delete", key }]);
      return existed;
    });
  }

  deletePrefix(prefix: string): Promise<number> {
    return this.#call("deletePrefix", [prefix], () => {
      const keys = this.#below(prefix).map((entry) => entry.key);
      this.#apply(keys.map((key) => ({ op: "delete", key })));
      return keys.length;
    });
  }

  list(prefix: string): Promise<StoreEntry[]> {
    return this.#call("list", [prefix], () => this.#below(prefix));
  }

  txn({ when, apply, otherwise = [] }: Txn): Promise<bigint | null> {
    const keys = [...when, ...apply, ...otherwise].map((part) => part.key);
    return this.#call("txn", keys, () => {
      const holds = when.every((compare) => this.#holds(compare));
      this.#apply(holds ? apply : otherwise);
      return holds ? this.#revision : null;
    });
  }

  watchPrefix(prefix: string, onEvent: (event: StoreEvent) => void): Promise<StoreWatch> {
    return this.#call("watch", [prefix], () => {
      const watcher = { prefix, onEvent };
      this.#watchers.add(watcher);
      return {
        close: async () => {
          this.#watchers.delete(watcher);
        },
      };
    });
  }

  leaseGrant({ ttlSec, id }: { readonly ttlSec: number; readonly id?: bigint }) {
    return this.#call("leaseGrant", [], () => {
      const lease = id ?? this.#nextLease++;
      if (this.#leases.has(lease)) {
        throw new SvcError("already-exists", "Cannot grant lease: it already exists");
      }
      this.#leases.set(lease, { ttlSec, expiresMs: this.#clock.monotonicMs() + ttlSec * 1000 });
      return { id: lease, ttlSec };
    });
  }

  leaseKeepAlive(id: bigint): Promise<number> {
    return this.#call("leaseKeepAlive", [], () => {
      const lease = this.#leases.get(id);
      if (!lease) return 0;
      lease.expiresMs = this.#clock.monotonicMs() + lease.ttlSec * 1000;
      return lease.ttlSec;
    });
  }

  leaseRevoke(id: bigint): Promise<void> {
    return this.#call("leaseRevoke", [], () => this.#drop(id));
  }

  /** What was on its way arrives. */
  deliverLate(): void {
    for (const work of this.#late.splice(0)) {
      this.#expire();
      work();
    }
  }

  async close(): Promise<void> {
    this.#watchers.clear();
  }

  async #call<T>(call: string, keys: readonly string[], work: () => T): Promise<T> {
    await Promise.resolve(); // a remote call is never finished when it returns
    const fault = this.fault({ call, keys });
    const failure = () => new SvcError("unavailable", `Cannot reach the store: ${call} failed`);
    if (fault === "before") throw failure();
    if (fault === "late") {
      this.#late.push(() => void work());
      throw failure();
    }
    this.#expire();
    const result = work();
    if (fault === "after") throw failure();
    return result;
  }

  #below(prefix: string): StoreEntry[] {
    return [...this.#entries.values()]
      .filter((entry) => entry.key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  #holds(compare: Compare): boolean {
    const entry = this.#entries.get(compare.key);
    switch (compare.target) {
      case "value":
        return entry?.value === compare.is;
      case "create":
        return (entry?.createRevision ?? 0n) === compare.is;
      case "mod":
        return (entry?.modRevision ?? 0n) === compare.is;
      case "lease":
        return (entry?.lease ?? 0n) === compare.is;
    }
  }

  #apply(ops: readonly StoreOp[]): void {
    const effective = ops.filter((op) => op.op === "put" || this.#entries.has(op.key));
    if (effective.length === 0) return;
    for (const op of effective) {
      if (
        op.op === "put" &&
        op.lease !== undefined &&
        op.lease !== 0n &&
        !this.#leases.has(op.lease)
      ) {
        throw new SvcError("not-found", "Cannot put: the lease does not exist");
      }
    }
    this.#revision += 1n;
    for (const op of effective) this.#applyOne(op);
  }

  #applyOne(op: StoreOp): void {
    const modRevision = this.#revision;
    if (op.op === "delete") {
      this.#entries.delete(op.key);
      this.#emit({ type: "delete", key: op.key, modRevision }, op.key);
      return;
    }
    const { key, value, lease = 0n } = op;
    const createRevision = this.#entries.get(key)?.createRevision ?? modRevision;
    const entry = { key, value, createRevision, modRevision, lease };
    this.#entries.set(key, entry);
    this.#emit({ type: "put", entry }, key);
  }

  #emit(event: StoreEvent, key: string): void {
    for (const watcher of this.#watchers) {
      if (!key.startsWith(watcher.prefix)) continue;
      queueMicrotask(() => {
        if (this.#watchers.has(watcher)) watcher.onEvent(event);
      });
    }
  }

  #expire(): void {
    for (const [id, lease] of this.#leases) {
      if (lease.expiresMs <= this.#clock.monotonicMs()) this.#drop(id);
    }
  }

  #drop(id: bigint): void {
    this.#leases.delete(id);
    const bound = [...this.#entries.values()].filter((entry) => entry.lease === id);
    this.#apply(bound.map(({ key }) => ({ op: "delete", key })));
  }
}
