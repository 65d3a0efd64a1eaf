/**
 * What is read from one io-engine, and how.
 *
 * Invariants: sizes and counters are numbers (a counter above 2^53 loses its last digits, which Prometheus' own
 * 64-bit floats do too); latencies are totals in seconds, whatever the engine's tick; an engine without
 * statistics gives its pools alone, one without latency buckets, or without the health of its disks, everything else.
 */
import { isKind } from "#common/errors.ts";
import {
  type PoolHealth,
  PoolHealthRpc,
} from "#common/proto/generated/mayastor/ext/v1/pool_health_pb.ts";
import {
  ObjectLatencies_Kind as Kind,
  LatencyRpc,
  type ObjectLatencies,
} from "#common/proto/generated/mayastor/extension/v1/latency_pb.ts";
import { PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { type IoStats, StatsRpc } from "#common/proto/generated/mayastor/v1/stats_pb.ts";
import { callsOn, openChannel } from "#common/rpc/grpc.ts";
import { type Histogram, readHistogram } from "./histogram.ts";

/** As published. */
const REQUEST_MS = 5_000;

export type PoolReading = {
  readonly name: string;
  readonly total: number;
  readonly used: number;
  readonly committed: number;
  /** 0 Unknown, 1 Online, 2 Degraded, 3 Faulted. */
  readonly status: number;
};

/** What a pool's disk did wrong since the pool was loaded. */
export type HealthReading = {
  readonly name: string;
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly slowRequests: number;
  /** How long the oldest request that has not ended has been waiting. */
  readonly waitingSec: number;
};

/** Running totals of one object. */
export type IoReading = {
  readonly name: string;
  readonly readOps: number;
  readonly readBytes: number;
  readonly readSec: number;
  readonly writeOps: number;
  readonly writeBytes: number;
  readonly writeSec: number;
};

/** `volume` is the uuid of the volume; empty when the object belongs to none. */
export type OwnedIoReading = IoReading & { readonly volume: string };

/** How long the I/O of one object took. */
export type LatencyReading = {
  readonly kind: "pool" | "nexus" | "replica";
  readonly name: string;
  /** As in OwnedIoReading. */
  readonly volume: string;
  readonly read: Histogram;
  readonly write: Histogram;
  readonly unmap: Histogram;
};

export type Reading = {
  readonly pools: readonly PoolReading[];
  readonly poolHealth: readonly HealthReading[];
  readonly poolIo: readonly IoReading[];
  readonly volumeIo: readonly OwnedIoReading[];
  readonly replicaIo: readonly OwnedIoReading[];
  readonly latencies: readonly LatencyReading[];
};

export interface Engine {
  /** Everything. */
  read(signal: AbortSignal): Promise<Reading>;
  close(): void;
}

function io(stats: IoStats): IoReading {
  const perSecond = Number(stats.tickRate) || 1;
  return {
    name: stats.name,
    readOps: Number(stats.numReadOps),
    readBytes: Number(stats.bytesRead),
    readSec: Number(stats.readLatencyTicks) / perSecond,
    writeOps: Number(stats.numWriteOps),
    writeBytes: Number(stats.bytesWritten),
    writeSec: Number(stats.writeLatencyTicks) / perSecond,
  };
}

function healthOf(wire: PoolHealth): HealthReading {
  return {
    name: wire.name,
    readErrors: Number(wire.readErrors),
    writeErrors: Number(wire.writeErrors),
    slowRequests: Number(wire.slowRequests),
    waitingSec: Number(wire.waitingMs) / 1000,
  };
}

/** The volume of a nexus is in its name: the uuid alone, with a prefix in front, or with a publication's number behind. */
export function volumeOf(name: string): string {
  const uuid = /([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?::[0-9]+)?$/.exec(name)?.[1];
  return uuid ?? "";
}

/** Empty for a kind that is not known: an engine may measure more than is shown here. */
function latencyOf(wire: ObjectLatencies): LatencyReading[] {
  const { name, read, write, unmap } = wire;
  const histograms = {
    read: readHistogram(read, name),
    write: readHistogram(write, name),
    unmap: readHistogram(unmap, name),
  };
  switch (wire.kind) {
    case Kind.POOL:
      return [{ kind: "pool", name, volume: "", ...histograms }];
    case Kind.NEXUS:
      return [{ kind: "nexus", name, volume: volumeOf(name), ...histograms }];
    case Kind.REPLICA:
      return [{ kind: "replica", name, volume: volumeOf(wire.entityId ?? ""), ...histograms }];
    default:
      return [];
  }
}

export function grpcEngine(address: string): Engine {
  const channel = openChannel(address);
  const settings = { deadlineMs: REQUEST_MS };
  const pools = callsOn(channel, PoolRpc, settings);
  const stats = callsOn(channel, StatsRpc, settings);
  const latency = callsOn(channel, LatencyRpc, settings);
  const health = callsOn(channel, PoolHealthRpc, settings);
  const orNone = async <T>(work: Promise<readonly T[]>): Promise<readonly T[]> => {
    try {
      return await work;
    } catch (error) {
      if (isKind(error, "unimplemented")) return [];
      throw error;
    }
  };
  return {
    read: async (signal) => {
      const [listed, poolIo, volumeIo, replicaIo, latencies, poolHealth] = await Promise.all([
        pools.listPools({}, { signal }),
        orNone(stats.getPoolIoStats({}, { signal }).then((answer) => answer.stats.map(io))),
        orNone(
          stats
            .getNexusIoStats({}, { signal })
            .then((answer) => answer.stats.map((s) => ({ ...io(s), volume: volumeOf(s.name) }))),
        ),
        orNone(
          stats
            .getReplicaIoStats({}, { signal })
            .then((answer) =>
              answer.stats.flatMap((replica) =>
                replica.stats === undefined
                  ? []
                  : [{ ...io(replica.stats), volume: volumeOf(replica.entityId ?? "") }],
              ),
            ),
        ),
        orNone(
          latency.getLatencies({}, { signal }).then((answer) => answer.objects.flatMap(latencyOf)),
        ),
        orNone(health.listPoolHealth({}, { signal }).then((answer) => answer.pools.map(healthOf))),
      ]);
      return {
        pools: listed.pools.map((pool) => ({
          name: pool.name,
          total: Number(pool.capacity),
          used: Number(pool.used),
          committed: Number(pool.committed),
          status: pool.state,
        })),
        poolHealth,
        poolIo,
        volumeIo,
        replicaIo,
        latencies,
      };
    },
    close: () => channel.close(),
  };
}
