/** gRPC extension v1 LatencyRpc: latency buckets of pools, nexuses and replicas, as the native engine counts them. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  ObjectLatencies_Kind as Kind,
  type LatencyHistogramSchema,
  LatencyRpc,
  type ObjectLatenciesSchema,
} from "#common/proto/generated/mayastor/extension/v1/latency_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { LatencyHistogram, NamedLatencies, NativeEngine } from "../native.ts";

export function latenciesToWire(
  kind: Kind,
  { name, uuid, entityId, schema, zeroThresholdSec, read, write, unmap }: NamedLatencies,
): MessageInitShape<typeof ObjectLatenciesSchema> {
  const histogram = ({
    zeroCount,
    sumNs,
    indexes,
    counts,
  }: LatencyHistogram): MessageInitShape<typeof LatencyHistogramSchema> => ({
    ...{ schema, zeroThresholdSec, zeroCount, sumNs },
    bucketIndexes: indexes,
    bucketCounts: counts,
  });
  return {
    ...{ kind, name, uuid },
    ...(entityId === null ? {} : { entityId }),
    read: histogram(read),
    write: histogram(write),
    unmap: histogram(unmap),
  };
}

export function latencyService(engine: NativeEngine): GrpcService {
  return makeService(LatencyRpc, {
    getLatencies: async () => {
      const [pools, nexuses, replicas] = await Promise.all([
        engine.poolLatencies(),
        engine.nexusLatencies(),
        engine.replicaLatencies(),
      ]);
      return {
        objects: [
          ...pools.map((pool) => latenciesToWire(Kind.POOL, pool)),
          ...nexuses.map((nexus) => latenciesToWire(Kind.NEXUS, nexus)),
          ...replicas.map((replica) => latenciesToWire(Kind.REPLICA, replica)),
        ],
      };
    },
  });
}
