/** gRPC extension v1 PoolHealthRpc: why a pool is not Online, with what its disk did. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  PoolHealthRpc,
  type PoolHealthSchema,
} from "#common/proto/generated/mayastor/ext/v1/pool_health_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NativeEngine, PoolInfo } from "../native.ts";
import { poolHealth } from "../pool_health.ts";

export function healthToWire(pool: PoolInfo): MessageInitShape<typeof PoolHealthSchema> {
  const { code, reason, nextStep } = poolHealth(pool);
  const { sinceLastErrorMs } = pool;
  return {
    ...{ name: pool.name, uuid: pool.uuid, reasonCode: code ?? "", reason, nextStep },
    ...{ readErrors: pool.readErrors, writeErrors: pool.writeErrors },
    ...{ slowRequests: pool.slowRequests, waitingMs: pool.waitingMs },
    blockSize: pool.blockSize,
    ...(sinceLastErrorMs === null
      ? {}
      : {
          lastError: {
            sinceMs: sinceLastErrorMs,
            offset: pool.lastErrorOffset,
            length: pool.lastErrorLength,
            number: pool.lastErrorNumber,
            wasRead: pool.lastErrorWasRead,
          },
        }),
  };
}

export function poolHealthService(engine: Pick<NativeEngine, "poolList">): GrpcService {
  return makeService(PoolHealthRpc, {
    listPoolHealth: async () => ({ pools: (await engine.poolList()).map(healthToWire) }),
  });
}
