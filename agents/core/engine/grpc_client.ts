/**
 * EngineClient over gRPC v1: the only place that calls io-engine.
 *
 * Invariants: one connection per engine, made anew for each of its lives; every call has the deadline of its kind
 * (timeouts.ts); an answer that makes no sense is a failure of that engine, never of ours.
 */
import type { Clock } from "#common/clock.ts";
import { isKind, SvcError } from "#common/errors.ts";
import { PoolHealthRpc } from "#common/proto/generated/mayastor/ext/v1/pool_health_pb.ts";
import { PublicationRpc } from "#common/proto/generated/mayastor/extension/v1/publication_pb.ts";
import { TargetHostsRpc } from "#common/proto/generated/mayastor/extension/v1/target_hosts_pb.ts";
import { BdevRpc } from "#common/proto/generated/mayastor/v1/bdev_pb.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { HostRpc } from "#common/proto/generated/mayastor/v1/host_pb.ts";
import {
  ChildAction,
  type Nexus,
  NexusNvmePreemption,
  NexusRpc,
  NvmeReservation,
} from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { type Pool, PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { ReplicaRpc } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { callsOn, grpcTarget, openChannel } from "#common/rpc/grpc.ts";
import { bareEndpoint } from "#common/rpc/registration.ts";
import type { NvmfConfig } from "#common/types/nexus.ts";
import type { EngineClient, EngineConnector } from "./client.ts";
import {
  bdevBlockSizes,
  type PoolExtras,
  toDevice,
  toNexus,
  toPool,
  toPoolExtras,
  toReplica,
} from "./convert.ts";
import { type TimeoutConfig, timeoutMs } from "./timeouts.ts";

const ENGINE_PORT = 10124;
/** What the engine is told when a nexus is to hold no reservations: all ids, no key. */
const NO_CONFIG = { minCntlId: 1, maxCntlId: 65519, resvKey: 0n, preemptKey: 0n } as const;

function reservationOf(config: NvmfConfig | null) {
  if (!config) {
    return { ...NO_CONFIG, preemptPolicy: NexusNvmePreemption.ArgKey };
  }
  const { controllerIdRange, preemptPolicy } = config;
  const preemptKey = preemptPolicy === "Holder" ? 0n : BigInt(preemptPolicy.ArgKey ?? 0);
  return {
    minCntlId: controllerIdRange.start,
    maxCntlId: controllerIdRange.end,
    resvKey: BigInt(config.reservationKey),
    preemptKey,
    resvType: NvmeReservation[config.reservationType],
    preemptPolicy:
      preemptPolicy === "Holder" ? NexusNvmePreemption.Holder : NexusNvmePreemption.ArgKey,
  };
}

export function grpcConnector(options: {
  readonly timeouts: TimeoutConfig;
  readonly clock: Clock;
}): EngineConnector {
  return ({ node, endpoint }) => connect({ ...options, node, endpoint });
}

function connect(options: {
  readonly node: string;
  readonly endpoint: string;
  readonly timeouts: TimeoutConfig;
  readonly clock: Clock;
}): EngineClient {
  const { node, endpoint, timeouts, clock } = options;
  const channel = openChannel(grpcTarget(endpoint, ENGINE_PORT), { own: true });
  const settings = { deadlineMs: timeoutMs("other", timeouts), clock };
  const host = callsOn(channel, HostRpc, settings);
  const pools = callsOn(channel, PoolRpc, settings);
  const health = callsOn(channel, PoolHealthRpc, settings);
  const bdevs = callsOn(channel, BdevRpc, settings);
  const hosts = callsOn(channel, TargetHostsRpc, settings);
  const replicas = callsOn(channel, ReplicaRpc, settings);
  const nexuses = callsOn(channel, NexusRpc, settings);
  const publications = callsOn(channel, PublicationRpc, settings);
  const within = (kind: Parameters<typeof timeoutMs>[0]) => ({
    deadlineMs: timeoutMs(kind, timeouts),
  });
  const nexusOf = ({ nexus }: { nexus?: Nexus | undefined }) => {
    if (!nexus) throw new SvcError("internal", `Cannot read the answer of ${node}: no nexus in it`);
    return toNexus(node, nexus);
  };

  /** What the published message of a pool does not say. Without it everything works all the same. */
  const poolExtras = async (): Promise<PoolExtras> => {
    try {
      return toPoolExtras((await health.listPoolHealth({})).pools);
    } catch {
      return async (pools) => {
        try {
          return bdevBlockSizes(pools, (await bdevs.list({})).bdevs);
        } catch {
          return new Map();
        }
      };
    }
  };
  const poolOf = async (pool: Pool) =>
    toPool(node, pool, (await (await poolExtras())([pool])).get(pool.name));

  return {
    probe: async () => {
      const info = await host.getMayastorInfo({}, within("probe"));
      const { id, grpcEndpoint, instanceUuid } = info.registrationInfo ?? {};
      return {
        node: id || null,
        endpoint: grpcEndpoint ? bareEndpoint(grpcEndpoint) : null,
        instanceUuid: instanceUuid || null,
      };
    },
    load: async () => {
      const extras = poolExtras();
      const [replica, nexus] = await Promise.all([
        replicas.listReplicas({}),
        nexuses.listNexus({}),
      ]);
      // After the replicas: the figures of the pools include at least those that were listed.
      const pool = await pools.listPools({});
      const extra = await (await extras)(pool.pools);
      const loaded = pool.pools.map((state) => toPool(node, state, extra.get(state.name)));
      const statusOf = new Map(loaded.map((state) => [state.id, state.status]));
      return {
        pools: loaded,
        replicas: replica.replicas
          .filter((state) => !state.isSnapshot)
          .map((state) => toReplica(node, state, { pool: statusOf.get(state.poolname) })),
        nexuses: nexus.nexusList.map((state) => toNexus(node, state)),
      };
    },
    targetHosts: async () => {
      try {
        const { targets } = await hosts.listTargetHosts({});
        return new Map(
          targets.map(({ nexusUuid, connected, infoKey }) => [
            nexusUuid,
            { connected, infoKey: infoKey ?? null },
          ]),
        );
      } catch (error) {
        if (isKind(error, "unimplemented")) return null;
        throw error;
      }
    },
    blockDevices: async ({ all }) => {
      const { devices } = await host.listBlockDevices({ all });
      return devices.map(toDevice);
    },
    createPool: async ({ id, disks }) =>
      await poolOf(await pools.createPool({ name: id, disks: [...disks] }, within("pool"))),
    importPool: async ({ id, disks }) =>
      await poolOf(await pools.importPool({ name: id, disks: [...disks] }, within("pool"))),
    destroyPool: async (id) => {
      await pools.destroyPool({ name: id }, within("pool"));
    },
    exportPool: async (id) => {
      await pools.exportPool({ name: id }, within("pool"));
    },
    createReplica: async ({ uuid, name, pool, size, thin, share, allowedHosts, entityId }) => {
      const request = {
        uuid,
        name,
        pooluuid: pool, // an engine takes the name as well
        size: BigInt(size),
        thin,
        share: share === "nvmf" ? ShareProtocol.NVMF : ShareProtocol.NONE,
        allowedHosts: [...allowedHosts],
        ...(entityId === null ? {} : { entityId }),
      };
      return toReplica(node, await replicas.createReplica(request, within("replica")));
    },
    destroyReplica: async ({ uuid, pool }) => {
      const request = { uuid, pool: { case: "poolName", value: pool } } as const;
      await replicas.destroyReplica(request, within("replica"));
    },
    shareReplica: async ({ uuid, allowedHosts }) => {
      const request = { uuid, share: ShareProtocol.NVMF, allowedHosts: [...allowedHosts] };
      return toReplica(node, await replicas.shareReplica(request, within("replica")));
    },
    unshareReplica: async (uuid) =>
      toReplica(node, await replicas.unshareReplica({ uuid }, within("replica"))),
    createNexus: async ({ uuid, name, size, children, config, infoKey }) => {
      const request = {
        uuid,
        name,
        size: BigInt(size),
        children: [...children],
        nexusInfoKey: infoKey,
        ...reservationOf(config),
      };
      return nexusOf(await nexuses.createNexus(request, within("nexus")));
    },
    destroyNexus: async (uuid) => {
      await nexuses.destroyNexus({ uuid }, within("nexus"));
    },
    shutdownNexus: async (uuid) =>
      nexusOf(await nexuses.shutdownNexus({ uuid }, within("nexusShutdown"))),
    shareNexus: async ({ uuid, allowedHosts }) => {
      const request = { uuid, key: "", share: ShareProtocol.NVMF, allowedHosts: [...allowedHosts] };
      return nexusOf(await nexuses.publishNexus(request, within("nexus")));
    },
    unshareNexus: async (uuid) => nexusOf(await nexuses.unpublishNexus({ uuid }, within("nexus"))),
    endPublication: async (nexusUuid) => {
      try {
        const end = await publications.endPublication({ nexusUuid }, within("nexus"));
        const hosts = end.hosts.map(({ nqn, leftOpen }) => ({ nqn, leftOpen }));
        return { hosts, complete: end.complete };
      } catch (error) {
        if (isKind(error, "unimplemented")) return null; // another implementation, or an earlier release
        throw error;
      }
    },
    addChild: async ({ nexus, uri }) =>
      nexusOf(await nexuses.addChildNexus({ uuid: nexus, uri, norebuild: false }, within("nexus"))),
    removeChild: async ({ nexus, uri }) =>
      nexusOf(await nexuses.removeChildNexus({ uuid: nexus, uri }, within("nexus"))),
    onlineChild: async ({ nexus, uri }) => {
      const request = { nexusUuid: nexus, uri, action: ChildAction.Online };
      return nexusOf(await nexuses.childOperation(request, within("nexus")));
    },
    close: () => channel.close(),
  };
}
