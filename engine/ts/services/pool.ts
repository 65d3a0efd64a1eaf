/** gRPC v1 PoolRpc: parse, call the engine, encode. One call a pool at a time: another's disk may take for ever. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SvcError } from "#common/errors.ts";
import {
  type CreatePoolRequest,
  type ImportPoolRequest,
  PoolRpc,
  type PoolSchema,
  PoolType,
} from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { Locks } from "../locks.ts";
import type { NativeEngine, PoolInfo, PoolRequest } from "../native.ts";
import { poolHealth } from "../pool_health.ts";

export function poolToWire(pool: PoolInfo): MessageInitShape<typeof PoolSchema> {
  return {
    uuid: pool.uuid,
    name: pool.name,
    disks: [...pool.disks],
    state: poolHealth(pool).state,
    capacity: pool.capacity,
    used: pool.used,
    pooltype: PoolType.Lvs,
    committed: pool.committed,
    clusterSize: pool.clusterSize,
    pageSize: pool.pageSize,
    diskCapacity: pool.diskCapacity,
  };
}

/** @throws {SvcError} `invalid-argument` */
export function poolRequest(
  request: CreatePoolRequest | ImportPoolRequest,
  clusterSize: number | null,
): PoolRequest {
  if (request.pooltype !== PoolType.Lvs) {
    throw new SvcError(
      "invalid-argument",
      `Cannot load pool ${request.name}: pool type ${request.pooltype} is not served, only Lvs (0)`,
    );
  }
  const { name, disks } = request;
  return { name, uuid: request.uuid?.toLowerCase() ?? null, disks, clusterSize };
}

export function poolService(engine: NativeEngine): GrpcService {
  const locks = new Locks();
  const serial = <T>(pool: string, signal: AbortSignal, work: () => Promise<T>) =>
    locks.run(`pool ${pool}`, signal, work);
  return makeService(PoolRpc, {
    createPool: (request, { signal }) =>
      serial(request.name, signal, async () =>
        poolToWire(await engine.poolCreate(poolRequest(request, request.clusterSize ?? null))),
      ),
    importPool: (request, { signal }) =>
      serial(request.name, signal, async () =>
        poolToWire(await engine.poolImport(poolRequest(request, null))),
      ),
    destroyPool: (request, { signal }) =>
      serial(request.name, signal, async () => {
        await engine.poolDestroy(request.name, request.uuid ?? null);
        return {};
      }),
    exportPool: (request, { signal }) =>
      serial(request.name, signal, async () => {
        await engine.poolExport(request.name, request.uuid ?? null);
        return {};
      }),
    listPools: async ({ name, uuid, pooltype }) => {
      const wanted = (pool: PoolInfo) =>
        (name === undefined || pool.name === name) &&
        (uuid === undefined || pool.uuid === uuid.toLowerCase()) &&
        (pooltype === undefined || pooltype.value === PoolType.Lvs);
      return { pools: (await engine.poolList()).filter(wanted).map(poolToWire) };
    },
    growPool: async ({ name }) => {
      throw new SvcError(
        "unimplemented",
        `Cannot grow pool ${name}: a larger disk is used only after the pool is made anew`,
      );
    },
  });
}
