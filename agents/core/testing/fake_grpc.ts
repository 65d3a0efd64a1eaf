/**
 * Engines in memory behind the real gRPC services, for tests of the whole process.
 *
 * Invariant: only translates; what an engine does is fake_engine.ts's business.
 */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { SvcError } from "#common/errors.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { HostRpc } from "#common/proto/generated/mayastor/v1/host_pb.ts";
import {
  ChildState,
  ChildStateReason,
  NexusRpc,
  NexusState,
} from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { PoolRpc, PoolState } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { Registration } from "#common/proto/generated/mayastor/v1/registration_pb.ts";
import { ReplicaRpc } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import {
  type GrpcServer,
  type Handlers,
  makeClient,
  makeService,
  startServer,
} from "#common/rpc/grpc.ts";
import type {
  EngineClient,
  NexusState as Nexus,
  PoolState as Pool,
  ReplicaState as Replica,
} from "../engine/client.ts";
import type { FakeCluster, FakeEngine } from "./fake_engine.ts";

function wirePool(pool: Pool) {
  return {
    uuid: pool.uuid,
    name: pool.id,
    disks: [...pool.disks],
    state: PoolState.POOL_ONLINE,
    capacity: BigInt(pool.capacity),
    used: BigInt(pool.used),
    committed: BigInt(pool.committed),
  };
}

function wireReplica(replica: Replica) {
  const { space } = replica;
  const usage = space && {
    capacityBytes: BigInt(space.capacity),
    allocatedBytes: BigInt(space.allocated),
    clusterSize: BigInt(space.clusterSize),
    numClusters: BigInt(space.clusters),
    numAllocatedClusters: BigInt(space.allocatedClusters),
  };
  return {
    name: replica.name,
    uuid: replica.uuid,
    pooluuid: replica.poolUuid,
    poolname: replica.pool,
    size: BigInt(replica.size),
    thin: replica.thin,
    share: replica.share === "nvmf" ? ShareProtocol.NVMF : ShareProtocol.NONE,
    uri: replica.uri,
    allowedHosts: [...replica.allowedHosts],
    ...(usage ? { usage } : {}),
  };
}

const CHILD_STATE = {
  Unknown: ChildState.UNKNOWN,
  Online: ChildState.ONLINE,
  Degraded: ChildState.DEGRADED,
  Faulted: ChildState.FAULTED,
} as const;

const NEXUS_STATE = {
  Unknown: NexusState.NEXUS_UNKNOWN,
  Online: NexusState.NEXUS_ONLINE,
  Degraded: NexusState.NEXUS_DEGRADED,
  Faulted: NexusState.NEXUS_FAULTED,
  ShuttingDown: NexusState.NEXUS_SHUTTING_DOWN,
  Shutdown: NexusState.NEXUS_SHUTDOWN,
} as const;

function wireNexus(nexus: Nexus) {
  return {
    name: nexus.name,
    uuid: nexus.uuid,
    size: BigInt(nexus.size),
    state: NEXUS_STATE[nexus.status],
    children: nexus.children.map((child) => ({
      uri: child.uri,
      state: CHILD_STATE[child.status],
      stateReason:
        child.reason === "OutOfSync" ? ChildStateReason.OUT_OF_SYNC : ChildStateReason.NONE,
      rebuildProgress: child.rebuildProgress ?? -1,
      hasIoLog: child.hasIoLog,
      ...(child.faultedAtMs === null ? {} : { faultTimestamp: timestampFromMs(child.faultedAtMs) }),
    })),
    deviceUri: nexus.deviceUri,
    rebuilds: nexus.rebuilds,
    allowedHosts: [...nexus.allowedHosts],
  };
}

/** Answers unimplemented for whatever the control plane never calls. */
function partial<H extends object>(handlers: Partial<H>): H {
  const unimplemented = async () => {
    throw new SvcError("unimplemented", "Not part of this engine");
  };
  // The proxy has a handler for every name, which is all that a table of handlers is asked for.
  return new Proxy(handlers, {
    get: (target, name) => Reflect.get(target, name) ?? unimplemented,
  }) as H;
}

function poolHandlers(engine: EngineClient): Handlers<typeof PoolRpc.method> {
  return partial<Handlers<typeof PoolRpc.method>>({
    createPool: async ({ name, disks }) => wirePool(await engine.createPool({ id: name, disks })),
    importPool: async ({ name, disks }) => wirePool(await engine.importPool({ id: name, disks })),
    destroyPool: async ({ name }) => {
      await engine.destroyPool(name);
      return {};
    },
    exportPool: async ({ name }) => {
      await engine.exportPool(name);
      return {};
    },
    listPools: async () => ({ pools: (await engine.load()).pools.map(wirePool) }),
  });
}

function replicaHandlers(engine: EngineClient): Handlers<typeof ReplicaRpc.method> {
  return partial<Handlers<typeof ReplicaRpc.method>>({
    createReplica: async ({ uuid, name, pooluuid, size, thin, entityId }) => {
      const of = {
        uuid,
        name,
        pool: pooluuid,
        size: Number(size),
        thin,
        entityId: entityId ?? null,
      };
      const state = await engine.createReplica({ ...of, share: "none", allowedHosts: [] });
      return wireReplica(state);
    },
    destroyReplica: async ({ uuid, pool }) => {
      await engine.destroyReplica({ uuid, pool: pool.value ?? "" });
      return {};
    },
    shareReplica: async ({ uuid, allowedHosts }) =>
      wireReplica(await engine.shareReplica({ uuid, allowedHosts })),
    unshareReplica: async ({ uuid }) => wireReplica(await engine.unshareReplica(uuid)),
    listReplicas: async () => ({ replicas: (await engine.load()).replicas.map(wireReplica) }),
  });
}

function nexusHandlers(engine: EngineClient): Handlers<typeof NexusRpc.method> {
  const answer = (nexus: Nexus) => ({ nexus: wireNexus(nexus) });
  return partial<Handlers<typeof NexusRpc.method>>({
    createNexus: async ({ uuid, name, size, children, nexusInfoKey }) => {
      const of = { uuid, name, size: Number(size), children, config: null, infoKey: nexusInfoKey };
      return answer(await engine.createNexus(of));
    },
    destroyNexus: async ({ uuid }) => {
      await engine.destroyNexus(uuid);
      return {};
    },
    shutdownNexus: async ({ uuid }) => answer(await engine.shutdownNexus(uuid)),
    listNexus: async () => ({ nexusList: (await engine.load()).nexuses.map(wireNexus) }),
    publishNexus: async ({ uuid, allowedHosts }) =>
      answer(await engine.shareNexus({ uuid, allowedHosts })),
    unpublishNexus: async ({ uuid }) => answer(await engine.unshareNexus(uuid)),
    addChildNexus: async ({ uuid, uri }) => answer(await engine.addChild({ nexus: uuid, uri })),
    removeChildNexus: async ({ uuid, uri }) =>
      answer(await engine.removeChild({ nexus: uuid, uri })),
    childOperation: async ({ nexusUuid, uri }) =>
      answer(await engine.onlineChild({ nexus: nexusUuid, uri })),
  });
}

/** One engine on a loopback port. */
export async function serveEngine(cluster: FakeCluster, engine: FakeEngine): Promise<GrpcServer> {
  const client = cluster.connect({ node: engine.node, endpoint: engine.endpoint });
  const host = partial<Handlers<typeof HostRpc.method>>({
    getMayastorInfo: async () => {
      const { instanceUuid } = await client.probe();
      const registrationInfo = instanceUuid === null ? {} : { instanceUuid };
      return { version: "test", registrationInfo };
    },
  });
  return await startServer("127.0.0.1:0", [
    makeService(HostRpc, host),
    makeService(PoolRpc, poolHandlers(client)),
    makeService(ReplicaRpc, replicaHandlers(client)),
    makeService(NexusRpc, nexusHandlers(client)),
  ]);
}

/** Registers an engine with agent-core, once. */
export async function registerEngine(options: {
  readonly core: string;
  readonly engine: FakeEngine;
  readonly port: number;
}): Promise<void> {
  const client = makeClient(Registration, options.core, { deadlineMs: 2000 });
  try {
    await client.rpc.register({
      id: options.engine.node,
      grpcEndpoint: `127.0.0.1:${options.port}`,
      instanceUuid: options.engine.instanceUuid,
      hostnqn: `nqn.2019-05.io.openebs:node-name:${options.engine.node}`,
    });
  } finally {
    client.close();
  }
}
