/**
 * What is read from one io-engine, and how.
 *
 * Invariants: sizes and counters are numbers (a counter above 2^53 loses its last digits, which Prometheus' own
 * 64-bit floats do too); latencies are totals in seconds, whatever the engine's tick; an engine without
 * statistics gives its pools alone.
 */
import { isKind } from "#common/errors.ts";
import { PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { type IoStats, StatsRpc } from "#common/proto/generated/mayastor/v1/stats_pb.ts";
import { callsOn, openChannel } from "#common/rpc/grpc.ts";

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

export type Reading = {
  readonly pools: readonly PoolReading[];
  readonly poolIo: readonly IoReading[];
  readonly volumeIo: readonly OwnedIoReading[];
  readonly replicaIo: readonly OwnedIoReading[];
};

export interface Engine {
  /** Everything. */
  read(signal: AbortSignal): Promise<Reading>;
  /** Only what the nexuses did: cheap enough for a short period. */
  readVolumes(signal: AbortSignal): Promise<readonly OwnedIoReading[]>;
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

/** The volume of a nexus is its name (the uuid alone, or with a prefix in front). */
export function volumeOf(name: string): string {
  const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.exec(name)?.[0];
  return uuid ?? "";
}

export function grpcEngine(address: string): Engine {
  const channel = openChannel(address);
  const settings = { deadlineMs: REQUEST_MS };
  const pools = callsOn(channel, PoolRpc, settings);
  const stats = callsOn(channel, StatsRpc, settings);
  const orNone = async <T>(work: Promise<readonly T[]>): Promise<readonly T[]> => {
    try {
      return await work;
    } catch (error) {
      if (isKind(error, "unimplemented")) return [];
      throw error;
    }
  };
  const volumes = (signal: AbortSignal) =>
    orNone(
      stats
        .getNexusIoStats({}, { signal })
        .then((answer) => answer.stats.map((s) => ({ ...io(s), volume: volumeOf(s.name) }))),
    );
  return {
    readVolumes: volumes,
    read: async (signal) => {
      const [listed, poolIo, volumeIo, replicaIo] = await Promise.all([
        pools.listPools({}, { signal }),
        orNone(stats.getPoolIoStats({}, { signal }).then((answer) => answer.stats.map(io))),
        volumes(signal),
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
      ]);
      return {
        pools: listed.pools.map((pool) => ({
          name: pool.name,
          total: Number(pool.capacity),
          used: Number(pool.used),
          committed: Number(pool.committed),
          status: pool.state,
        })),
        poolIo,
        volumeIo,
        replicaIo,
      };
    },
    close: () => channel.close(),
  };
}
