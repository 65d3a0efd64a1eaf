/** gRPC v1 ReplicaRpc: parse, call the engine, encode. One call a replica at a time. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { isKind, SvcError } from "#common/errors.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { PoolType } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import {
  type ListReplicaOptions,
  ReplicaRpc,
  type ReplicaSchema,
} from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { Locks } from "../locks.ts";
import type { NativeEngine, ReplicaInfo } from "../native.ts";
import { allowedHosts } from "./shared.ts";

/** Tells a caller that knows it that the replica really is gone, not merely unreachable. */
const GONE_TRAILER = "gtm-602";

export function replicaToWire(replica: ReplicaInfo): MessageInitShape<typeof ReplicaSchema> {
  const { usage, snapshotUuid, entityId } = replica;
  return {
    name: replica.name,
    uuid: replica.uuid,
    pooluuid: replica.poolUuid,
    poolname: replica.poolName,
    size: replica.size,
    thin: replica.thin,
    share: replica.shared ? ShareProtocol.NVMF : ShareProtocol.NONE,
    uri: replica.uri,
    usage: {
      capacityBytes: usage.capacity,
      allocatedBytes: usage.allocated,
      clusterSize: usage.clusterSize,
      numClusters: usage.clusters,
      numAllocatedClusters: usage.allocatedClusters,
    },
    allowedHosts: [...replica.allowedHosts],
    isSnapshot: replica.isSnapshot,
    isClone: replica.isClone,
    ...(snapshotUuid === null ? {} : { snapshotUuid }),
    ...(entityId === null ? {} : { entityId }),
    pooltype: PoolType.Lvs,
  };
}

/** The documented filters: by pool, then by replica, then by what kind of lvol it is. */
export function selectReplicas(
  replicas: readonly ReplicaInfo[],
  { name, uuid, poolname, pooluuid, query, pooltypes }: ListReplicaOptions,
): ReplicaInfo[] {
  const kind = (replica: ReplicaInfo) => {
    if (!query) return !replica.isSnapshot;
    if (replica.isSnapshot) return query.snapshot;
    return replica.isClone ? query.clone : query.replica;
  };
  return replicas.filter(
    (replica) =>
      (poolname === undefined || replica.poolName === poolname) &&
      (pooluuid === undefined || replica.poolUuid === pooluuid.toLowerCase()) &&
      (name === undefined || replica.name === name) &&
      (uuid === undefined || replica.uuid === uuid.toLowerCase()) &&
      (pooltypes.length === 0 || pooltypes.includes(PoolType.Lvs)) &&
      kind(replica),
  );
}

export function replicaService(engine: NativeEngine): GrpcService {
  const locks = new Locks();
  const serial = <T>(uuid: string, signal: AbortSignal, work: () => Promise<T>) =>
    locks.run(`replica ${uuid}`, signal, work);
  return makeService(ReplicaRpc, {
    createReplica: (request, { signal }) =>
      serial(request.uuid, signal, async () => {
        if (request.share !== ShareProtocol.NONE && request.share !== ShareProtocol.NVMF) {
          throw new SvcError(
            "invalid-argument",
            `Cannot create replica ${request.uuid}: share protocol ${request.share} is not served`,
          );
        }
        const replica = await engine.replicaCreate({
          name: request.name,
          uuid: request.uuid,
          pool: request.pooluuid,
          size: request.size,
          thin: request.thin,
          share: request.share === ShareProtocol.NVMF,
          allowedHosts: allowedHosts(request.allowedHosts),
          entityId: request.entityId ?? null,
        });
        return replicaToWire(replica);
      }),
    destroyReplica: ({ uuid, pool }, { signal, trailers }) =>
      serial(uuid, signal, async () => {
        try {
          await engine.replicaDestroy(uuid, pool.value ?? null);
        } catch (error) {
          if (isKind(error, "not-found")) trailers.set(GONE_TRAILER, "0");
          throw error;
        }
        return {};
      }),
    listReplicas: async (options) => ({
      replicas: selectReplicas(await engine.replicaList(), options).map(replicaToWire),
    }),
    shareReplica: (request, { signal }) =>
      serial(request.uuid, signal, async () => {
        if (request.share !== ShareProtocol.NVMF) {
          throw new SvcError(
            "invalid-argument",
            `Cannot share replica ${request.uuid}: share protocol ${request.share} is not NVMF (1)`,
          );
        }
        const hosts = allowedHosts(request.allowedHosts);
        return replicaToWire(await engine.replicaShare(request.uuid, hosts));
      }),
    unshareReplica: ({ uuid }, { signal }) =>
      serial(uuid, signal, async () => replicaToWire(await engine.replicaUnshare(uuid))),
    resizeReplica: ({ uuid, requestedSize }, { signal }) =>
      serial(uuid, signal, async () =>
        replicaToWire(await engine.replicaResize(uuid, requestedSize)),
      ),
    setReplicaEntityId: ({ uuid, entityId }, { signal }) =>
      serial(uuid, signal, async () =>
        replicaToWire(await engine.replicaSetEntityId(uuid, entityId)),
      ),
  });
}
