/** gRPC v1 StatsRpc: I/O counters of pools, nexuses and replicas. Ticks are nanoseconds. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SvcError } from "#common/errors.ts";
import { type IoStatsSchema, StatsRpc } from "#common/proto/generated/mayastor/v1/stats_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NamedStats, NativeEngine } from "../native.ts";

const TICKS_PER_SEC = 1_000_000_000n;

export function statsToWire({
  name,
  uuid,
  stats,
}: NamedStats): MessageInitShape<typeof IoStatsSchema> {
  return {
    name,
    uuid,
    numReadOps: stats.readOps,
    bytesRead: stats.readBytes,
    numWriteOps: stats.writeOps,
    bytesWritten: stats.writeBytes,
    numUnmapOps: stats.unmapOps,
    bytesUnmapped: stats.unmapBytes,
    readLatencyTicks: stats.readLatencyNs,
    writeLatencyTicks: stats.writeLatencyNs,
    unmapLatencyTicks: stats.unmapLatencyNs,
    maxReadLatencyTicks: stats.readLatencyNsMax,
    minReadLatencyTicks: stats.readLatencyNsMin,
    maxWriteLatencyTicks: stats.writeLatencyNsMax,
    minWriteLatencyTicks: stats.writeLatencyNsMin,
    maxUnmapLatencyTicks: stats.unmapLatencyNsMax,
    minUnmapLatencyTicks: stats.unmapLatencyNsMin,
    tickRate: TICKS_PER_SEC,
  };
}

function select(
  what: string,
  all: readonly NamedStats[],
  name: string | undefined,
): readonly NamedStats[] {
  if (name === undefined) return all;
  const found = all.filter((stats) => stats.name === name || stats.uuid === name);
  if (found.length === 0) {
    throw new SvcError("not-found", `Cannot read statistics of ${what} ${name}: there is none`);
  }
  return found;
}

export function statsService(engine: NativeEngine): GrpcService {
  return makeService(StatsRpc, {
    getPoolIoStats: async ({ name }) => ({
      stats: select("pool", await engine.poolStats(), name).map(statsToWire),
    }),
    getNexusIoStats: async ({ name }) => ({
      stats: select("nexus", await engine.nexusStats(), name).map(statsToWire),
    }),
    getReplicaIoStats: async ({ name }) => ({
      stats: select("replica", await engine.replicaStats(), name).map((stats) => ({
        ...(stats.entityId === null ? {} : { entityId: stats.entityId }),
        stats: statsToWire(stats),
      })),
    }),
    resetIoStats: async () => {
      await engine.resetStats();
      return {};
    },
  });
}
