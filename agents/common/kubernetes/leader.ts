/**
 * Leader election on a Lease: of several instances one works.
 *
 * Why: two operators at once would post events twice and race each other's patches.
 * Invariants: a Lease is only written with the resourceVersion that was read (compare and swap), so two instances
 * never both believe; another's lease is taken only when it did not change for its whole duration by our own
 * monotonic clock (clocks of nodes may differ); an instance that could not renew stops leading before another may
 * start (`renewMs` < `durationMs`).
 * Source: Kubernetes documentation, "Leases", coordination.k8s.io/v1.
 */
import { type Static, Type } from "typebox";
import { type Clock, deadlineSignal } from "../clock.ts";
import { errorMessage, isKind } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import { parserOf } from "../rpc/json_api.ts";
import type { KubeClient } from "./client.ts";

/** As client libraries choose them. */
const DURATION_MS = 15_000;
const RENEW_MS = 10_000;
const RETRY_MS = 2_000;
/** A stopping program waits no longer for the lease to be given up. */
const RELEASE_MS = 2_000;
/** One renewal at most is still on its way. */
const RELEASE_ATTEMPTS = 3;

const maybe = <Schema extends ReturnType<typeof Type.String | typeof Type.Integer>>(
  schema: Schema,
) => Type.Optional(Type.Union([schema, Type.Null()]));
const LeaseSchema = Type.Object({
  metadata: Type.Object({ name: Type.String(), resourceVersion: Type.String() }),
  spec: Type.Optional(
    Type.Object({
      holderIdentity: maybe(Type.String()),
      leaseDurationSeconds: maybe(Type.Integer()),
      acquireTime: maybe(Type.String()),
      renewTime: maybe(Type.String()),
      leaseTransitions: maybe(Type.Integer()),
    }),
  ),
});
type Lease = Static<typeof LeaseSchema>;
const parseLease = parserOf(LeaseSchema, "a Lease of the API server", "internal");

export type LeaderOptions = {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Unique to this instance. */
  readonly identity: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly durationMs?: number;
  readonly renewMs?: number;
  readonly retryMs?: number;
};

export class LeaderElection {
  readonly #options: LeaderOptions;
  readonly #path: string;
  readonly #durationMs: number;
  readonly #renewMs: number;
  readonly #retryMs: number;
  /** The foreign lease as first seen in its present form. */
  #observed: { readonly resourceVersion: string; readonly atMs: number } | null = null;
  #lease: Lease | null = null;

  constructor(options: LeaderOptions) {
    const { namespace, durationMs = DURATION_MS, renewMs = RENEW_MS, retryMs = RETRY_MS } = options;
    this.#options = options;
    this.#durationMs = durationMs;
    this.#renewMs = renewMs;
    this.#retryMs = retryMs;
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  }

  /** Leads whenever it can, until `signal` is aborted; `lead`'s signal is aborted when leadership is lost. */
  async run(lead: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { log, identity } = this.#options;
    let waiting = false;
    while (!signal.aborted) {
      if (await this.#try(signal)) {
        waiting = false;
        log.info("leading", { identity });
        await this.#lead(lead, signal);
        if (!signal.aborted) log.warn("leadership lost", { identity });
      } else if (!waiting) {
        waiting = true;
        log.info("another instance leads: waiting", { holder: this.#lease?.spec?.holderIdentity });
      }
      await this.#pause(signal);
    }
  }

  async #lead(lead: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const leading = AbortSignal.any([signal, ended.signal]);
    const renewing = this.#keep(leading).finally(() => ended.abort(new Error("leadership lost")));
    try {
      await lead(leading);
    } finally {
      ended.abort(new Error("leadership given up"));
      await renewing;
      if (signal.aborted) await this.#release();
    }
  }

  /** Renews until it failed for `renewMs` or the signal is aborted. */
  async #keep(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    let renewedMs = clock.monotonicMs();
    while (!signal.aborted) {
      await this.#pause(signal);
      if (signal.aborted) return;
      const leftMs = renewedMs + this.#renewMs - clock.monotonicMs();
      if (leftMs <= 0) return;
      const limit = deadlineSignal(clock, leftMs, signal);
      const startedMs = clock.monotonicMs();
      const renewed = await this.#try(limit.signal).finally(limit.clear);
      if (renewed) renewedMs = startedMs;
      else if (this.#observed !== null) return; // another one took it
    }
  }

  /** Takes or renews the lease; false when it is another's or the API server did not do it. */
  async #try(signal: AbortSignal): Promise<boolean> {
    const { client, identity, clock, log } = this.#options;
    try {
      const found = await this.#read(signal);
      if (found === null) {
        this.#lease = parseLease(await client.create(this.#path, this.#wanted(null), { signal }));
        this.#observed = null;
        return true;
      }
      const { holderIdentity: holder } = found.spec ?? {};
      this.#lease = found;
      if (holder && holder !== identity && !this.#isStale(found, clock.monotonicMs())) return false;
      const path = `${this.#path}/${this.#options.name}`;
      this.#lease = parseLease(await client.replace(path, this.#wanted(found), { signal }));
      this.#observed = null;
      return true;
    } catch (error) {
      if (!signal.aborted && !isKind(error, "conflict", "already-exists")) {
        log.warn("lease cannot be written", { error: errorMessage(error) });
      }
      return false;
    }
  }

  async #read(signal: AbortSignal): Promise<Lease | null> {
    const { client, name } = this.#options;
    try {
      return parseLease(await client.get(`${this.#path}/${name}`, { signal }));
    } catch (error) {
      if (isKind(error, "not-found")) return null;
      throw error;
    }
  }

  #isStale(lease: Lease, nowMs: number): boolean {
    const { resourceVersion } = lease.metadata;
    if (this.#observed?.resourceVersion !== resourceVersion) {
      this.#observed = { resourceVersion, atMs: nowMs };
    }
    const ownMs = (lease.spec?.leaseDurationSeconds ?? 0) * 1000;
    return nowMs - this.#observed.atMs > Math.max(ownMs, this.#durationMs);
  }

  #wanted(found: Lease | null): unknown {
    const { clock, identity, name, namespace } = this.#options;
    const now = new Date(clock.now()).toISOString().replace("Z", "000Z"); // MicroTime
    const mine = found?.spec?.holderIdentity === identity;
    const transitions = found?.spec?.leaseTransitions ?? 0;
    return {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: {
        name,
        namespace,
        ...(found === null ? {} : { resourceVersion: found.metadata.resourceVersion }),
      },
      spec: {
        holderIdentity: identity,
        leaseDurationSeconds: Math.max(1, Math.ceil(this.#durationMs / 1000)),
        acquireTime: (mine ? found?.spec?.acquireTime : null) ?? now,
        renewTime: now,
        leaseTransitions: found === null || mine ? transitions : transitions + 1,
      },
    };
  }

  /** Lets the next instance start at once; best effort, the lease runs out by itself. */
  async #release(): Promise<void> {
    const { client, clock, name, namespace, identity } = this.#options;
    if (this.#lease?.spec?.holderIdentity !== identity) return;
    const limit = deadlineSignal(clock, RELEASE_MS);
    try {
      for (let attempt = 0; attempt < RELEASE_ATTEMPTS; attempt++) {
        // As it is now: a renewal that the stop cut short may have been carried out all the same.
        const found = await this.#read(limit.signal);
        if (found?.spec?.holderIdentity !== identity) return;
        const body = {
          apiVersion: "coordination.k8s.io/v1",
          kind: "Lease",
          metadata: { name, namespace, resourceVersion: found.metadata.resourceVersion },
          spec: { ...found.spec, holderIdentity: "", leaseDurationSeconds: 1 },
        };
        try {
          await client.replace(`${this.#path}/${name}`, body, { signal: limit.signal });
          return;
        } catch (error) {
          if (!isKind(error, "conflict")) throw error;
        }
      }
    } catch {
      // it runs out by itself
    } finally {
      limit.clear();
    }
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const jitter = 0.8 + (random.uint32() / 2 ** 32) * 0.4;
    await clock.sleep(this.#retryMs * jitter, signal).catch(() => {}); // aborted: the loops look
  }
}
