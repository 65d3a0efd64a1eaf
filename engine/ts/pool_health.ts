/**
 * How well a pool is, from what its disk did: pure judgement, and the watch that logs each change of it.
 *
 * Why: a disk fails before it dies. Whoever places replicas must know, and an operator must be able to read why.
 * Invariants: a disk that does not answer makes its pool Unknown (what is on it cannot be told); one that gave errors
 * makes it Degraded for an hour after the last one, whether they were repaired or not; errors are logged at most once
 * a period, with how many there were.
 */
import { getSystemErrorName } from "node:util";
import type { Clock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { PoolState } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import type { NativeEngine, PoolInfo } from "./native.ts";

/** A read, write or flush that has not ended after so long: longer than a nexus waits for a child. */
export const SILENT_MS = 10_000n;
/** How long an error counts. */
export const ERRORS_COUNT_MS = 60n * 60_000n;
/** How long a request that took more than four seconds counts. */
export const SLOW_COUNTS_MS = 10n * 60_000n;
const WATCH_PERIOD_MS = 2000;

export type HealthCode = "disk-silent" | "disk-errors" | "disk-slow" | "disk-lost";

export type PoolHealth = {
  readonly state: PoolState;
  /** null: it is well. */
  readonly code: HealthCode | null;
  readonly reason: string;
  readonly nextStep: string;
};

type Judged = Pick<
  PoolInfo,
  | "faulted"
  | "readErrors"
  | "writeErrors"
  | "slowRequests"
  | "waitingMs"
  | "sinceLastErrorMs"
  | "sinceLastSlowMs"
  | "lastErrorOffset"
  | "lastErrorLength"
  | "lastErrorNumber"
  | "lastErrorWasRead"
>;

const errnoName = (number: number) => (number > 0 ? getSystemErrorName(-number) : "no errno");

function countsOf({ readErrors, writeErrors }: Judged): string {
  const parts = [];
  if (readErrors > 0n) parts.push(`${readErrors} reads`);
  if (writeErrors > 0n) parts.push(`${writeErrors} writes or flushes`);
  return parts.join(" and ");
}

export function poolHealth(pool: Judged): PoolHealth {
  if (pool.faulted) {
    return {
      state: PoolState.POOL_FAULTED,
      code: "disk-lost",
      reason: "The disk is gone, or did not take the pool's metadata.",
      nextStep: "Bring the disk back, then restart the engine or export and import the pool.",
    };
  }
  if (pool.waitingMs >= SILENT_MS) {
    const seconds = pool.waitingMs / 1000n;
    return {
      state: PoolState.POOL_UNKNOWN,
      code: "disk-silent",
      reason: `The disk does not answer: a request has been waiting for ${seconds} s.`,
      nextStep: "Its replicas are waited for, then made anew on other pools; check the disk.",
    };
  }
  const { sinceLastErrorMs, sinceLastSlowMs } = pool;
  if (sinceLastErrorMs !== null && sinceLastErrorMs < ERRORS_COUNT_MS) {
    const what = pool.lastErrorWasRead ? "a read" : "a write or flush";
    const where = `${pool.lastErrorLength} bytes at offset ${pool.lastErrorOffset}`;
    return {
      state: PoolState.POOL_DEGRADED,
      code: "disk-errors",
      reason: `The disk failed ${countsOf(pool)}, last ${what} of ${where} (${errnoName(pool.lastErrorNumber)}).`,
      nextStep: "New replicas go to other pools; replace the disk if the errors go on.",
    };
  }
  if (sinceLastSlowMs !== null && sinceLastSlowMs < SLOW_COUNTS_MS) {
    return {
      state: PoolState.POOL_DEGRADED,
      code: "disk-slow",
      reason: `The disk took more than 4 s for ${pool.slowRequests} requests.`,
      nextStep: "New replicas go to other pools; check the disk.",
    };
  }
  return { state: PoolState.POOL_ONLINE, code: null, reason: "", nextStep: "" };
}

/** @throws {SvcError} as the engine does. Also tells whoever asks (`changed`) when a pool's health changes. */
export class PoolWatch {
  readonly #engine: Pick<NativeEngine, "poolList">;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #changed: () => void;
  readonly #last = new Map<string, { code: HealthCode | null; errors: bigint }>();

  constructor(options: {
    readonly engine: Pick<NativeEngine, "poolList">;
    readonly clock: Clock;
    readonly log: Log;
    readonly changed: () => void;
  }) {
    this.#engine = options.engine;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#changed = options.changed;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#clock.sleep(WATCH_PERIOD_MS, signal);
      } catch {
        return; // asked to stop
      }
      try {
        this.look(await this.#engine.poolList());
      } catch (error) {
        this.#log.warn("pools cannot be listed", { reason: errorMessage(error) });
      }
    }
  }

  /** Exposed for tests. */
  look(pools: readonly PoolInfo[]): void {
    const names = new Set(pools.map(({ name }) => name));
    for (const name of this.#last.keys()) if (!names.has(name)) this.#last.delete(name);
    for (const pool of pools) this.#lookAt(pool);
  }

  #lookAt(pool: PoolInfo): void {
    const { code, reason } = poolHealth(pool);
    const errors = pool.readErrors + pool.writeErrors;
    const before = this.#last.get(pool.name) ?? { code: null, errors: 0n };
    this.#last.set(pool.name, { code, errors });
    const fields = { "pool.id": pool.name, disk: pool.disks[0] ?? "" };
    if (errors > before.errors) {
      this.#log.error("disk gives I/O errors", {
        ...{ ...fields, "errors.new": Number(errors - before.errors) },
        ...{ "read.errors": Number(pool.readErrors), "write.errors": Number(pool.writeErrors) },
        ...{
          "last.offset": Number(pool.lastErrorOffset),
          "last.length": Number(pool.lastErrorLength),
        },
        ...{
          "last.errno": errnoName(pool.lastErrorNumber),
          "last.was_read": pool.lastErrorWasRead,
        },
      });
    }
    if (code === before.code) return;
    if (code === null) this.#log.info("pool is well again", fields);
    else this.#log.warn("pool is unwell", { ...fields, code, reason });
    this.#changed();
  }
}
