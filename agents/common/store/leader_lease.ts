/**
 * Leadership: one agent-core at a time writes to the store.
 *
 * Why: two writers with different memories of the cluster would undo each other. The lock is a key bound to a
 * lease; every write is a transaction that compares the lease of that key and who is written down as owner, so a
 * former leader's late write fails in the store itself, whatever the former leader believes.
 *
 * Invariants: a write goes through only while the lock key carries our lease and we are the owner; a lease that
 * expired is granted again under the same id as long as nobody else became owner or stands before us in the queue;
 * a write that failed without an answer takes no effect any more once a later one did; somebody else being owner is
 * final (`replaced` is aborted and the process must end). `leads` is false before another one can lead, by our own
 * clock and without asking anybody; what the store cannot fence asks it, through surelyLeads().
 */
import type { Clock } from "../clock.ts";
import { errorMessage, isKind, SvcError } from "../errors.ts";
import type { Log } from "../log.ts";
import { type LeaseOwner, LeaseOwnerSchema } from "../types/cluster.ts";
import { decodeStored } from "../types/stored.ts";
import { encodeJson } from "./json.ts";
import type { StoreKeys } from "./keys.ts";
import type { Compare, ObjectStore, StoreEntry, StoreOp } from "./mod.ts";

const OWNER = "CoreAgent";
const LOCK_POLL_MS = 250;
const RECONNECT_MS_FIRST = 1000;
const RECONNECT_MS_MIN = 5000;
const RECONNECT_STEP_MS = 1000;
const RELEASE_MS_MAX = 1000;
/** Of the TTL: how much earlier than the store we take our lease to have run out; clocks run unevenly. */
const MARGIN_PART = 0.1;
/** A write is refused by a fence of our own at most once per fence; more than these at a time are not to be expected. */
const WRITE_ATTEMPTS = 4;

export type LeaderLeaseOptions = {
  readonly store: ObjectStore;
  readonly keys: StoreKeys;
  readonly clock: Clock;
  readonly log: Log;
  readonly ttlMs: number;
  /** MY_POD_NAME, or empty. */
  readonly instanceName: string;
};

export class LeaderLease {
  readonly #options: LeaderLeaseOptions;
  readonly #leaseId: bigint;
  readonly #lockKey: string;
  readonly #ownerKey: string;
  readonly #ownerText: string;
  readonly #replaced = new AbortController();
  readonly #closing = new AbortController();
  /** Of the owner's key, as we wrote it last: every write compares it. */
  #ownerRevision = 0n;
  /** The one that the last write without an answer compared: it may still take effect while that is the present one. */
  #unsureRevision = -1n;
  #fencing: Promise<void> | null = null;
  #renewing: Promise<void> | null = null;
  #ttlSec: number;
  #held = true;
  /**
   * When the lease runs out unless it is kept again, counted from before the store was asked. By both clocks: the
   * monotonic one stands still while a machine is suspended, the wall clock may be set back.
   */
  #expiresMs: Clocks = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  #keeper: Promise<void> = Promise.resolve();

  private constructor(options: LeaderLeaseOptions, leaseId: bigint, ttlSec: number) {
    this.#options = options;
    this.#leaseId = leaseId;
    this.#ttlSec = ttlSec;
    this.#lockKey = options.keys.leaseLock(OWNER, leaseId);
    this.#ownerKey = options.keys.leaseOwner(OWNER);
    const owner: LeaseOwner = {
      kind: OWNER,
      lease_id: leaseId.toString(16),
      instance_name: options.instanceName,
    };
    this.#ownerText = encodeJson(owner);
  }

  /**
   * Grants a lease and waits for the lock, at most one TTL.
   * @throws {SvcError} `failed-precondition` when another instance keeps the lock
   */
  static async acquire(options: LeaderLeaseOptions, signal: AbortSignal): Promise<LeaderLease> {
    const { store, clock, ttlMs } = options;
    const wantedTtlSec = Math.max(1, Math.ceil(ttlMs / 1000));
    const started = readClocks(clock);
    const { id, ttlSec } = await store.leaseGrant({ ttlSec: wantedTtlSec });
    const lease = new LeaderLease(options, id, ttlSec);
    try {
      await store.put(lease.#lockKey, "", { lease: id });
      // One poll more than a TTL: a dead holder's lease has surely run out by then.
      const deadlineMs = clock.monotonicMs() + ttlSec * 1000 + 2 * LOCK_POLL_MS;
      lease.#kept(started, ttlSec);
      let keepAtMs = clock.monotonicMs() + (ttlSec * 1000) / 2;
      for (;;) {
        const place = await lease.#place();
        if (place === "first") break;
        if (place === "none") {
          throw new SvcError("unavailable", "Cannot become leader: the lease ran out; start again");
        }
        if (clock.monotonicMs() > deadlineMs) {
          throw new SvcError(
            "failed-precondition",
            "Cannot become leader: another agent-core holds the store's lock; stop it first",
          );
        }
        if (clock.monotonicMs() > keepAtMs) {
          const asked = readClocks(clock);
          lease.#kept(asked, await store.leaseKeepAlive(id));
          keepAtMs += (ttlSec * 1000) / 2;
        }
        await clock.sleep(LOCK_POLL_MS, signal);
      }
      await lease.#writeOwner([]);
    } catch (error) {
      await store.leaseRevoke(id).catch(() => {}); // it expires by itself; the first error matters
      throw error;
    }
    lease.#keeper = lease.#keepAlive();
    return lease;
  }

  get id(): bigint {
    return this.#leaseId;
  }

  get held(): boolean {
    return this.#held;
  }

  /** Surely nobody else leads: what is begun now is begun by the leader. */
  get leads(): boolean {
    const { clock } = this.#options;
    const marginMs = this.#ttlSec * 1000 * MARGIN_PART;
    const { monotonic, wall } = this.#expiresMs;
    const runs = clock.monotonicMs() < monotonic - marginMs && clock.now() < wall - marginMs;
    const isOver = this.#replaced.signal.aborted || this.#closing.signal.aborted;
    return runs && this.#held && !isOver;
  }

  /**
   * `leads`, after asking the store where our own clock cannot tell: after an outage the keeper may pause for seconds
   * before it asks again.
   */
  async surelyLeads(): Promise<boolean> {
    if (!this.leads && !this.#replaced.signal.aborted && !this.#closing.signal.aborted) {
      // A failure leaves it open; the keeper logs its own.
      await this.#renewOnce().catch(() => {});
    }
    return this.leads;
  }

  /** Aborted when another instance took over: end the process. */
  get replaced(): AbortSignal {
    return this.#replaced.signal;
  }

  /**
   * Applies the operations if we still hold the lock.
   * @throws {SvcError} `unavailable` when we do not, or the store cannot be reached
   */
  async write(ops: readonly StoreOp[]): Promise<void> {
    await this.writeIf([], ops);
  }

  /**
   * The same, but only while `when` holds. False: nothing was written, read again.
   * @throws {SvcError} as write()
   */
  async writeIf(when: readonly Compare[], ops: readonly StoreOp[]): Promise<boolean> {
    for (let attempt = 1; attempt <= WRITE_ATTEMPTS; attempt++) {
      if (!this.#held) await this.#regain();
      if (!(await this.#isFenced())) continue;
      const revision = this.#ownerRevision;
      const owner: Compare = { target: "mod", key: this.#ownerKey, is: revision };
      try {
        if (await this.#writeWhen([owner, ...when], ops)) return true;
      } catch (error) {
        if (revision > this.#unsureRevision) this.#unsureRevision = revision;
        throw error;
      }
      if (!(await this.#isStillOwner(revision))) {
        this.#held = false;
        continue;
      }
      if (when.length > 0 && this.#ownerRevision === revision) return false;
    }
    this.#held = false;
    throw new SvcError(
      "unavailable",
      "Cannot write to the store: the leader lease is lost again and again; is another agent-core starting?",
    );
  }

  /**
   * Takes the lease again now: its keeper may pause for seconds after an outage, in which it ran out and nobody else came.
   * @throws {SvcError} `unavailable`, saying what keeps it from being ours
   */
  async #regain(): Promise<void> {
    const refused = (why: string, cause?: unknown) =>
      new SvcError("unavailable", `Cannot write to the store: ${why}`, { cause });
    const tookOver = "another agent-core took over; ask again, which reaches that one";
    if (this.#replaced.signal.aborted) throw refused(tookOver);
    if (this.#closing.signal.aborted) throw refused("this agent-core is stopping; ask again");
    try {
      await this.#renewOnce();
    } catch (error) {
      const why = "it does not answer; the leader lease is taken again once it does";
      throw refused(why, error);
    }
    if (this.#replaced.signal.aborted) throw refused(tookOver);
    if (this.#held) return;
    throw refused("the leader lease ran out, and another agent-core is about to take over");
  }

  /** Nothing of an earlier write without an answer can take effect any more. False: the lease ran out. */
  async #isFenced(): Promise<boolean> {
    if (this.#unsureRevision < this.#ownerRevision) return true;
    try {
      await this.#fence();
      return true;
    } catch (error) {
      if (this.#held) throw error;
      return false;
    }
  }

  /** False: nothing was written. After a failure it may have been, or may be by and by. */
  async #writeWhen(more: readonly Compare[], ops: readonly StoreOp[]): Promise<boolean> {
    if (!this.#held) {
      throw new SvcError("unavailable", "Cannot write to the store: the leader lease is lost");
    }
    const lock: Compare = { target: "lease", key: this.#lockKey, is: this.#leaseId };
    return (await this.#options.store.txn({ when: [lock, ...more], apply: ops })) !== null;
  }

  /** A write was refused: true when only the owner's revision had moved, by a fence of our own. */
  async #isStillOwner(revision: bigint): Promise<boolean> {
    if (this.#ownerRevision !== revision) return true;
    const lock = await this.#options.store.get(this.#lockKey);
    return lock?.lease === this.#leaseId && (await this.#readOwner());
  }

  /**
   * Makes sure that no earlier write takes effect from here on: each compares the revision of the owner's key, which
   * this moves. Those who wait for it wait for the same one.
   */
  #fence(): Promise<void> {
    this.#fencing ??= this.#writeOwner([
      { target: "value", key: this.#ownerKey, is: this.#ownerText },
    ]).finally(() => {
      this.#fencing = null;
    });
    return this.#fencing;
  }

  /** Takes over the revision of the owner's key; false when it is not ours. */
  async #readOwner(): Promise<boolean> {
    const entry = await this.#options.store.get(this.#ownerKey);
    if (entry?.value !== this.#ownerText) return false;
    if (entry.modRevision > this.#ownerRevision) this.#ownerRevision = entry.modRevision;
    return true;
  }

  async close(): Promise<void> {
    const { store, clock } = this.#options;
    this.#closing.abort(new Error("closing"));
    await this.#keeper;
    await this.#renewing?.catch(() => {}); // else it could take the lease again behind us
    if (this.#replaced.signal.aborted) return;
    const timer = new AbortController();
    await Promise.race([
      store.leaseRevoke(this.#leaseId).catch(() => {}), // it expires by itself
      clock.sleep(RELEASE_MS_MAX, timer.signal).catch(() => {}), // revoked in time
    ]);
    timer.abort();
  }

  /** Where our key stands below the lock: the oldest one holds it. */
  async #place(): Promise<"first" | "waiting" | "none"> {
    const { store, keys } = this.#options;
    const entries = await store.list(keys.leaseLockPrefix(OWNER));
    const own = entries.find((entry) => entry.key === this.#lockKey);
    if (own?.lease !== this.#leaseId) return "none";
    return entries.every((entry) => own.createRevision <= entry.createRevision)
      ? "first"
      : "waiting";
  }

  /** `when`: who may be the owner before. */
  async #writeOwner(when: readonly Compare[]): Promise<void> {
    const op: StoreOp = { op: "put", key: this.#ownerKey, value: this.#ownerText };
    if ((await this.#writeWhen(when, [op])) && (await this.#readOwner())) return;
    this.#held = false;
    throw new SvcError("unavailable", "Cannot write to the store: the leader lock is lost");
  }

  async #keepAlive(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#closing;
    let failures = 0;
    while (!signal.aborted && !this.#replaced.signal.aborted) {
      const pauseMs =
        failures === 0
          ? (this.#ttlSec * 1000) / 2
          : failures === 1
            ? RECONNECT_MS_FIRST
            : RECONNECT_MS_MIN + (failures - 2) * RECONNECT_STEP_MS;
      try {
        await clock.sleep(pauseMs, signal);
      } catch {
        return; // closing
      }
      try {
        await this.#renewOnce();
        if (failures > 0) log.info("leader lease is kept again");
        failures = 0;
      } catch (error) {
        failures += 1;
        log.warn("leader lease cannot be kept", { failures, error: errorMessage(error) });
      }
    }
  }

  /** Those who ask at the same time ask once. */
  #renewOnce(): Promise<void> {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  async #renew(): Promise<void> {
    const { store, clock, log } = this.#options;
    const asked = readClocks(clock);
    const remainingSec = await store.leaseKeepAlive(this.#leaseId);
    // Holding the lock is not enough: while it was lost another one may have become owner.
    const [place, owns] =
      remainingSec > 0 ? await Promise.all([this.#place(), this.#readOwner()]) : ["none", false];
    if (place === "first" && owns) {
      this.#held = true;
      this.#kept(asked, remainingSec);
      return;
    }
    this.#held = false;
    log.warn("leader lease ran out: taking it again");
    await this.#retake();
  }

  /** The lease is gone: if nobody else became owner, the same lease is ours again. */
  async #retake(): Promise<void> {
    const { store, clock, log } = this.#options;
    const entry = await store.get(this.#ownerKey);
    const owner = entry && decodeStored(LeaseOwnerSchema, entry.value, entry.key);
    if (owner && owner.lease_id !== this.#leaseId.toString(16)) {
      log.error("another agent-core took over", { instance: owner.instance_name });
      this.#replaced.abort(new SvcError("aborted", "Replaced by another agent-core"));
      return;
    }
    try {
      await store.leaseGrant({ ttlSec: this.#ttlSec, id: this.#leaseId });
    } catch (error) {
      if (!isKind(error, "already-exists", "failed-precondition")) throw error;
    }
    await store.put(this.#lockKey, "", { lease: this.#leaseId });
    if ((await this.#place()) !== "first") {
      // Somebody stands before us and is about to become owner. We leave the queue: else our own key, bound to
      // a lease that lives, would look like the lock we once held.
      await store.leaseRevoke(this.#leaseId);
      return; // the next round sees the new owner, or takes the place of one that gave up
    }
    this.#held = true;
    await this.#writeOwner([unchanged(this.#ownerKey, entry)]);
    const asked = readClocks(clock);
    this.#kept(asked, await store.leaseKeepAlive(this.#leaseId));
  }

  /** `asked`: before the store was asked; what it answers counts from some time after. */
  #kept(asked: Clocks, remainingSec: number): void {
    if (remainingSec <= 0) return;
    const ms = remainingSec * 1000;
    this.#expiresMs = { monotonic: asked.monotonic + ms, wall: asked.wall + ms };
  }
}

/** ms */
type Clocks = { readonly monotonic: number; readonly wall: number };

function readClocks(clock: Clock): Clocks {
  return { monotonic: clock.monotonicMs(), wall: clock.now() };
}

/** Holds while the key is as it was read. */
function unchanged(key: string, entry: StoreEntry | null): Compare {
  return { target: "mod", key, is: entry?.modRevision ?? 0n };
}
