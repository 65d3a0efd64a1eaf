/** What a pool's disk did, and what is said of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { type Log, silentLog } from "#common/log.ts";
import { PoolState } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import type { PoolInfo } from "./native.ts";
import {
  ERRORS_COUNT_MS,
  PoolWatch,
  poolHealth,
  SILENT_MS,
  SLOW_COUNTS_MS,
} from "./pool_health.ts";
import { healthToWire } from "./services/pool_health.ts";

const WELL: PoolInfo = {
  ...{ name: "p1", uuid: "22222222-2222-4222-8222-222222222222", disks: ["aio:///dev/sdb"] },
  ...{
    capacity: 1n,
    used: 0n,
    committed: 0n,
    diskCapacity: 2n,
    clusterSize: 1,
    pageSize: 4096,
    blockSize: 512,
  },
  ...{ faulted: false, readErrors: 0n, writeErrors: 0n, slowRequests: 0n, waitingMs: 0n },
  ...{ sinceLastErrorMs: null, sinceLastSlowMs: null },
  ...{ lastErrorOffset: 0n, lastErrorLength: 0n, lastErrorNumber: 0, lastErrorWasRead: false },
};
const FAILED: PoolInfo = {
  ...{ ...WELL, readErrors: 3n, sinceLastErrorMs: 1000n, lastErrorOffset: 52_428_800n },
  ...{ lastErrorLength: 4096n, lastErrorNumber: 5, lastErrorWasRead: true },
};

test("poolHealth() says nothing of a disk that is well", () => {
  assert.deepEqual(poolHealth(WELL), {
    ...{ state: PoolState.POOL_ONLINE, code: null, reason: "", nextStep: "" },
  });
  assert.equal(poolHealth({ ...WELL, waitingMs: SILENT_MS - 1n }).code, null);
});

test("poolHealth() names a disk that gave errors, until they are an hour old", () => {
  const health = poolHealth(FAILED);
  assert.equal(health.state, PoolState.POOL_DEGRADED);
  assert.equal(health.code, "disk-errors");
  assert.match(health.reason, /3 reads, last a read of 4096 bytes at offset 52428800 \(EIO\)/);
  const old = { ...FAILED, sinceLastErrorMs: ERRORS_COUNT_MS };
  assert.equal(poolHealth(old).state, PoolState.POOL_ONLINE);
});

test("poolHealth() tells a silent disk from a slow one and from one that is gone", () => {
  const silent = { ...FAILED, waitingMs: SILENT_MS };
  assert.equal(poolHealth(silent).state, PoolState.POOL_UNKNOWN);
  assert.equal(poolHealth(silent).code, "disk-silent");
  const slow = { ...WELL, slowRequests: 2n, sinceLastSlowMs: 0n };
  assert.equal(poolHealth(slow).state, PoolState.POOL_DEGRADED);
  assert.equal(poolHealth(slow).code, "disk-slow");
  assert.equal(poolHealth({ ...slow, sinceLastSlowMs: SLOW_COUNTS_MS }).code, null);
  assert.equal(poolHealth({ ...silent, faulted: true }).code, "disk-lost");
});

test("healthToWire() carries the last error, when there was one", () => {
  assert.equal("lastError" in healthToWire(WELL), false);
  assert.equal(healthToWire(FAILED).lastError?.number, 5);
});

test("PoolWatch logs new errors once a look, and each change, and tells of it", async () => {
  const lines: string[] = [];
  const note =
    (level: string): Log["info"] =>
    (message, fields) => {
      lines.push(`${level} ${message} ${fields?.["code"] ?? fields?.["errors.new"] ?? ""}`.trim());
    };
  const log: Log = {
    ...silentLog,
    ...{ info: note("info"), warn: note("warn"), error: note("error") },
  };
  let told = 0;
  let pools: PoolInfo[] = [WELL];
  const clock = new ManualClock();
  const watch = new PoolWatch({
    ...{ engine: { poolList: async () => pools }, clock, log },
    changed: () => {
      told += 1;
    },
  });
  const stop = new AbortController();
  const end = watch.run(stop.signal);
  await clock.advance(10_000);
  assert.deepEqual(lines, []);
  pools = [FAILED];
  await clock.advance(10_000);
  pools = [{ ...FAILED, readErrors: 500n }];
  await clock.advance(2000);
  pools = [{ ...FAILED, waitingMs: 60_000n, readErrors: 500n }];
  await clock.advance(2000);
  pools = [{ ...WELL, readErrors: 500n }];
  await clock.advance(2000);
  assert.deepEqual(lines, [
    "error disk gives I/O errors 3",
    "warn pool is unwell disk-errors",
    "error disk gives I/O errors 497",
    "warn pool is unwell disk-silent",
    "info pool is well again",
  ]);
  assert.equal(told, 3);
  stop.abort();
  await end;
});
