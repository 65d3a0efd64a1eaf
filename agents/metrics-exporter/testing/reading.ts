/** A reading of an engine with one of everything, for tests. */
import type { Histogram } from "../histogram.ts";
import type { OwnedIoReading, Reading } from "../reading.ts";

export const VOLUME = "bf207797-b23d-447a-8d3f-98d378acfa8a";

/** 2 of no measurable time, 3 up to 1 ms (2^(-80/8) s), 4 up to 1.065 ms, 1 of more than 500 s. */
export const HISTOGRAM: Histogram = {
  schema: 3,
  zeroThreshold: 2 ** -23,
  zeroCount: 2,
  buckets: [
    { index: -80, count: 3 },
    { index: -79, count: 4 },
    { index: 72, count: 1 },
  ],
  sumSec: 501.5,
  count: 10,
};

export const EMPTY: Histogram = {
  ...{ schema: 3, zeroThreshold: 2 ** -23, zeroCount: 0, buckets: [], sumSec: 0, count: 0 },
};

const io = (readOps: number, readSec: number): OwnedIoReading => ({
  ...{ name: VOLUME, volume: VOLUME, readBytes: 4096, writeBytes: 8192 },
  ...{ readOps, readSec, writeOps: 2, writeSec: 0.004 },
});

const latency = { read: HISTOGRAM, write: EMPTY, unmap: EMPTY };

export const READING: Reading = {
  pools: [
    {
      name: "mayastor-disk-pool",
      total: 5_360_320_512,
      used: 2_147_483_648,
      committed: 9_663_676_416,
      status: 1,
    },
  ],
  poolHealth: [
    {
      ...{ name: "mayastor-disk-pool", readErrors: 3, writeErrors: 1 },
      ...{ slowRequests: 2, waitingSec: 1.5 },
    },
  ],
  poolIo: [{ ...io(1, 0.001), name: "mayastor-disk-pool" }],
  volumeIo: [io(10, 0.01)],
  replicaIo: [{ ...io(3, 0.002), name: "r1" }],
  latencies: [
    { kind: "pool", name: "mayastor-disk-pool", volume: "", ...latency },
    { kind: "nexus", name: VOLUME, volume: VOLUME, ...latency },
    { kind: "nexus", name: "nexus0", volume: "", ...latency },
    { kind: "replica", name: "r1", volume: VOLUME, ...latency },
  ],
};
