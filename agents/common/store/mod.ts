/**
 * ObjectStore: the one door to the cluster's memory (etcd).
 *
 * Why: etcd's client library hardly changes any more and has traps; behind this interface it is one
 * file to swap, and tests and the simulation use an in-memory twin that passes the same contract tests.
 *
 * Invariants:
 * - Revisions grow by one per committed change of the store; an entry carries the one that wrote it.
 * - txn() is atomic: all operations of one branch or none.
 * - A watcher sees every change after it is ready, in order, or a "reset" with the whole content
 *   when history was compacted meanwhile; never a silent gap.
 * - A failure to reach the store is `unavailable` or `deadline-exceeded`: the outcome is unknown.
 */

export type StoreEntry = {
  readonly key: string;
  readonly value: string;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  /** 0n: none. */
  readonly lease: bigint;
};

export type StoreOp =
  | { readonly op: "put"; readonly key: string; readonly value: string; readonly lease?: bigint }
  | { readonly op: "delete"; readonly key: string };

/** A key that does not exist has revision 0, lease 0 and equals no value. */
export type Compare =
  | { readonly target: "value"; readonly key: string; readonly is: string }
  | { readonly target: "create" | "mod" | "lease"; readonly key: string; readonly is: bigint };

export type Txn = {
  readonly when: readonly Compare[];
  readonly apply: readonly StoreOp[];
  readonly otherwise?: readonly StoreOp[];
};

export type StoreEvent =
  | { readonly type: "put"; readonly entry: StoreEntry }
  | { readonly type: "delete"; readonly key: string; readonly modRevision: bigint }
  | { readonly type: "reset"; readonly entries: readonly StoreEntry[] };

export interface StoreWatch {
  close(): Promise<void>;
}

export interface ObjectStore {
  get(key: string): Promise<StoreEntry | null>;
  put(key: string, value: string, options?: { readonly lease?: bigint }): Promise<void>;
  /** True when the key existed. */
  delete(key: string): Promise<boolean>;
  /** Returns how many keys there were. */
  deletePrefix(prefix: string): Promise<number>;
  /** Everything below a prefix in key order, read in pages at one revision. */
  list(prefix: string, options?: { readonly pageSize?: number }): Promise<StoreEntry[]>;
  /**
   * When `when` held and `apply` was applied: the store's revision since, which is that of every entry that `apply` put.
   * Else null.
   */
  txn(txn: Txn): Promise<bigint | null>;
  /** Resolves when the watch is established; events come until close(). */
  watchPrefix(prefix: string, onEvent: (event: StoreEvent) => void): Promise<StoreWatch>;
  /** Grants a lease, with the id asked for when given. */
  leaseGrant(options: { readonly ttlSec: number; readonly id?: bigint }): Promise<{
    readonly id: bigint;
    readonly ttlSec: number;
  }>;
  /** Remaining seconds; 0 when the lease is gone. */
  leaseKeepAlive(id: bigint): Promise<number>;
  /** Deletes the keys bound to the lease; a lease that is gone is fine. */
  leaseRevoke(id: bigint): Promise<void>;
  close(): Promise<void>;
}

/** Documented page size of prefix reads. */
export const STORE_PAGE_SIZE = 500;
