/**
 * What is read from one io-engine, and how.
 *
 * Invariants: sizes and counters are numbers (a counter above 2^53 loses its last digits, which Prometheus' own
 * 64-bit floats do too); latencies are totals in seconds, whatever the engine's tick; an engine without
 * statistics gives its pools alone, one without latency buckets, or without the health of its disks, everything else.
 * Each part fails alone: one slow call or one histogram that is none takes nothing else away.
 */
import { errorMessage, isKind, SvcError, toSvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
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

export type PartName = keyof Reading;

/** Each part as it is now, or why it cannot be told. */
export type Parts = { readonly [Name in PartName]: Reading[Name] | SvcError };

export interface Engine {
  /** Everything. @throws {SvcError} when the engine answers nothing at all */
  read(signal: AbortSignal): Promise<Parts>;
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

/** The histograms of one object; null when one of them is none, which takes no other object's away. */
function histogramsOf({ name, read, write, unmap }: ObjectLatencies, log: Log) {
  try {
    return {
      read: readHistogram(read, name),
      write: readHistogram(write, name),
      unmap: readHistogram(unmap, name),
    };
  } catch (error) {
    log.debug("latencies cannot be read", { name, error: errorMessage(error) });
    return null;
  }
}

/** Empty for a kind that is not known: an engine may measure more than is shown here. */
export function latencyOf(wire: ObjectLatencies, log: Log): LatencyReading[] {
  const { name } = wire;
  const histograms = histogramsOf(wire, log);
  if (histograms === null) return [];
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

type Settled<T> = readonly T[] | SvcError;

/** An engine that does not know the call has none of it. */
async function settled<T>(work: Promise<readonly T[]>): Promise<Settled<T>> {
  try {
    return await work;
  } catch (error) {
    return isKind(error, "unimplemented") ? [] : toSvcError(error);
  }
}

export function grpcEngine(address: string, log: Log): Engine {
  const channel = openChannel(address);
  const settings = { deadlineMs: REQUEST_MS };
  const pools = callsOn(channel, PoolRpc, settings);
  const stats = callsOn(channel, StatsRpc, settings);
  const latency = callsOn(channel, LatencyRpc, settings);
  const health = callsOn(channel, PoolHealthRpc, settings);

  const listPools = async (signal: AbortSignal): Promise<readonly PoolReading[]> =>
    (await pools.listPools({}, { signal })).pools.map((pool) => ({
      name: pool.name,
      total: Number(pool.capacity),
      used: Number(pool.used),
      committed: Number(pool.committed),
      status: pool.state,
    }));
  const listReplicaIo = async (signal: AbortSignal): Promise<readonly OwnedIoReading[]> =>
    (await stats.getReplicaIoStats({}, { signal })).stats.flatMap((replica) =>
      replica.stats === undefined
        ? []
        : [{ ...io(replica.stats), volume: volumeOf(replica.entityId ?? "") }],
    );
  return {
    read: async (signal) => {
      const options = { signal };
      const [poolsNow, poolIo, volumeIo, replicaIo, latencies, poolHealth] = await Promise.all([
        settled(listPools(signal)),
        settled(stats.getPoolIoStats({}, options).then((answer) => answer.stats.map(io))),
        settled(
          stats
            .getNexusIoStats({}, options)
            .then((answer) => answer.stats.map((s) => ({ ...io(s), volume: volumeOf(s.name) }))),
        ),
        settled(listReplicaIo(signal)),
        settled(
          latency
            .getLatencies({}, options)
            .then((answer) => answer.objects.flatMap((object) => latencyOf(object, log))),
        ),
        settled(health.listPoolHealth({}, options).then((answer) => answer.pools.map(healthOf))),
      ]);
      const parts: Parts = {
        ...{ pools: poolsNow, poolHealth, poolIo, volumeIo, replicaIo, latencies },
      };
      const failures = Object.values(parts).filter((part) => part instanceof SvcError);
      const [first] = failures;
      // A part that is not offered was answered, too: the engine is there.
      if (first !== undefined && failures.length === Object.keys(parts).length) throw first;
      return parts;
    },
    close: () => channel.close(),
  };
}
