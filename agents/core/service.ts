/**
 * The internal API of agent-core: each method parses nothing (the schemas did), delegates, and answers with the
 * REST view.
 *
 * Invariant: a method that changes something answers with what is seen after the change.
 */
import { SvcError } from "#common/errors.ts";
import type { Nexus, Node, Replica, Topology, Volume } from "#common/openapi/model.ts";
import type { CoreHandlers } from "#common/rpc/core_api.ts";
import { cordon, drain, type NodeSpec, uncordon } from "#common/types/node.ts";
import type { PoolSpec } from "#common/types/pool.ts";
import { poolOf } from "#common/types/replica.ts";
import type { TopologySpec } from "#common/types/volume.ts";
import { type Core, poolStateOf } from "./context.ts";
import type { ChildState, NexusState, ReplicaState } from "./engine/client.ts";
import {
  addChild,
  createNexus,
  destroyNexus,
  removeChild,
  shareNexus,
  unshareNexus,
} from "./nexus/ops.ts";
import type { NodeService } from "./node/service.ts";
import { createPool, destroyPool } from "./pool/ops.ts";
import { nodePurgeCost, purgeNode } from "./purge/node.ts";
import { poolPurgeCost, purgePool } from "./purge/pool.ts";
import { createReplica, destroyReplica, shareReplica, unshareReplica } from "./replica/ops.ts";
import {
  childView,
  deviceView,
  nexusSpecView,
  nexusView,
  nodeView,
  type PoolSurroundings,
  poolSpecView,
  poolStateView,
  poolView,
  replicaSpecView,
  replicaView,
} from "./view/common.ts";
import { volumeSpecView, volumeView } from "./view/volume.ts";
import {
  createVolume,
  destroyShutdownTargets,
  destroyVolume,
  publishVolume,
  republishVolume,
  setReplicaCount,
  shareVolume,
  unpublishVolume,
  unshareVolume,
} from "./volume/ops.ts";
import type { Recreate } from "./volume/target.ts";
import type { WatchService } from "./volume/watch.ts";

export type CoreParts = {
  readonly core: Core;
  readonly nodes: NodeService;
  readonly watches: Pick<WatchService, "list" | "add" | "remove">;
  readonly recreate: Recreate;
};

export function coreHandlers(parts: CoreParts): CoreHandlers {
  return { ...nodeHandlers(parts), ...resourceHandlers(parts), ...volumeHandlers(parts) };
}

type NodeMethods =
  | "GetNodes"
  | "GetNode"
  | "CordonNode"
  | "UncordonNode"
  | "DrainNode"
  | "GetNodePurge"
  | "PurgeNode"
  | "GetBlockDevices";

function nodeHandlers({ core, nodes, recreate }: CoreParts): Pick<CoreHandlers, NodeMethods> {
  const { specs, registry, guards } = core;
  const view = (id: string): Node =>
    nodeView(id, specs.nodes.find(id), registry.node(id), core.drains.get(id));
  const change = async (id: string, to: (spec: NodeSpec) => NodeSpec): Promise<Node> => {
    await guards.run(`node/${id}`, async () => {
      await specs.nodes.put(to(specs.nodes.get(id)));
    });
    core.trigger("changed");
    return view(id);
  };
  return {
    GetNodes: async () => specs.nodes.all().map((spec) => view(spec.id)),
    GetNode: async ({ node }) => view(specs.nodes.get(node).id),
    CordonNode: ({ node, label }) => change(node, (spec) => cordon(spec, label)),
    UncordonNode: ({ node, label }) => change(node, (spec) => uncordon(spec, label)),
    DrainNode: ({ node, label }) => change(node, (spec) => drain(spec, label)),
    GetNodePurge: ({ node }) => nodePurgeCost(core, node),
    PurgeNode: ({ node, lastCopies }) => purgeNode(core, node, { lastCopies, recreate }),
    GetBlockDevices: async ({ node, all }) => (await nodes.blockDevices(node, all)).map(deviceView),
  };
}

type VolumeMethods = Extract<keyof CoreHandlers, `${string}Volume${string}`>;
type ResourceMethods = Exclude<keyof CoreHandlers, NodeMethods | VolumeMethods>;

function resourceHandlers({ core }: CoreParts): Pick<CoreHandlers, ResourceMethods> {
  const { specs, registry } = core;
  const checkNode = (node: string | undefined) => {
    if (node !== undefined) specs.nodes.get(node);
  };
  const findReplica = (
    uuid: string,
    { node, pool }: { node?: string | undefined; pool?: string | undefined },
  ): ReplicaState => {
    const state = registry.replica(uuid);
    const matches =
      state &&
      (node === undefined || state.node === node) &&
      (pool === undefined || state.pool === pool);
    if (!matches) throw new SvcError("not-found", `replica ${uuid} not found`);
    return state;
  };
  /** The spec of a replica that the user may change: one that no volume owns. */
  const ownedByUser = (
    uuid: string,
    where: { node?: string | undefined; pool?: string | undefined },
  ) => {
    const spec = specs.replicas.get(uuid);
    const node = specs.pools.find(poolOf(spec))?.node ?? poolStateOf(core, poolOf(spec))?.node;
    const elsewhere =
      (where.pool !== undefined && where.pool !== poolOf(spec)) ||
      (where.node !== undefined && where.node !== node);
    if (elsewhere) throw new SvcError("not-found", `replica ${uuid} not found`);
    return spec;
  };
  const findNexus = (uuid: string, node: string | undefined): NexusState => {
    const state = registry.nexus(uuid);
    if (!state || (node !== undefined && state.node !== node)) {
      throw new SvcError("not-found", `nexus ${uuid} not found`);
    }
    return state;
  };
  const nexusSpec = (uuid: string, node: string | undefined) => {
    const spec = specs.nexuses.get(uuid);
    if (node !== undefined && spec.node !== node) {
      throw new SvcError("not-found", `nexus ${uuid} not found`);
    }
    return spec;
  };
  const childIn = (state: NexusState, uri: string): ChildState => {
    const child = state.children.find((known) => known.uri === uri);
    if (!child) throw new SvcError("not-found", `child ${uri} not found`);
    return child;
  };
  const poolSurroundings = (spec: PoolSpec | undefined): PoolSurroundings => ({
    node: spec && registry.node(spec.node),
    importFailure: spec && registry.importFailure(spec.node, spec.id),
  });
  const poolsOf = (node: string | undefined) => {
    checkNode(node);
    const ids = new Set([
      ...specs.pools.all().map((spec) => spec.id),
      ...registry.pools().map((state) => state.id),
    ]);
    return [...ids]
      .map((id) => ({ id, spec: specs.pools.find(id), state: poolStateOf(core, id) }))
      .filter(({ spec, state }) => node === undefined || (spec ?? state)?.node === node)
      .map(({ id, spec, state }) => poolView(id, spec, state, poolSurroundings(spec)));
  };
  return {
    GetPools: async ({ node }) => poolsOf(node),
    GetPool: async ({ node, pool }) => {
      const found = poolsOf(node).find((view) => view.id === pool);
      if (!found) throw new SvcError("not-found", `pool ${pool} not found`);
      return found;
    },
    CreatePool: async ({ node, pool, disks, labels }) => {
      await createPool(core, { node, id: pool, disks, labels: labels ?? null });
      const spec = specs.pools.find(pool);
      return poolView(pool, spec, poolStateOf(core, pool), poolSurroundings(spec));
    },
    DestroyPool: async ({ node, pool }) => {
      const spec = specs.pools.get(pool);
      if (node !== undefined && spec.node !== node) {
        throw new SvcError("not-found", `pool ${pool} not found`);
      }
      await destroyPool(core, pool);
      return {};
    },
    GetPoolPurge: ({ pool }) => poolPurgeCost(core, pool),
    PurgePool: ({ pool, lastCopies }) => purgePool(core, pool, { lastCopies }),
    GetReplicas: async ({ node, pool }) => {
      checkNode(node);
      return registry
        .replicas(node)
        .filter((state) => pool === undefined || state.pool === pool)
        .map(replicaView);
    },
    GetReplica: async ({ replica, ...where }) => replicaView(findReplica(replica, where)),
    CreateReplica: async ({ node, pool, replica, size, thin, share, allowedHosts }) => {
      const found = poolStateOf(core, pool);
      const home = specs.pools.find(pool)?.node ?? found?.node;
      if (home === undefined || (node !== undefined && node !== home)) {
        throw new SvcError("not-found", `pool ${pool} not found`);
      }
      const state = await createReplica(core, {
        uuid: replica,
        pool,
        size,
        thin,
        volume: null,
        share: share ?? "none",
        allowedHosts,
      });
      return replicaView(state) satisfies Replica;
    },
    DestroyReplica: async ({ replica, ...where }) => {
      if (ownedByUser(replica, where).owners.volume !== null) {
        throw new SvcError("in-use", `Cannot destroy replica ${replica}: a volume owns it`);
      }
      await destroyReplica(core, replica);
      return {};
    },
    ShareReplica: async ({ replica, allowedHosts, ...where }) => {
      if (ownedByUser(replica, where).share !== "none") {
        throw new SvcError("already-shared", `Replica ${replica} is already shared`);
      }
      return { uri: (await shareReplica(core, replica, allowedHosts)).uri };
    },
    UnshareReplica: async ({ replica, ...where }) => {
      // A share whose answer got lost shows in its state alone.
      const isShared =
        ownedByUser(replica, where).share !== "none" ||
        (registry.replica(replica)?.share ?? "none") !== "none";
      if (!isShared) {
        throw new SvcError("not-shared", `Replica ${replica} is not shared`);
      }
      await unshareReplica(core, replica);
      return {};
    },
    GetNexuses: async ({ node }) => {
      checkNode(node);
      return registry.nexuses(node).map(nexusView);
    },
    GetNexus: async ({ node, nexus }) => nexusView(findNexus(nexus, node)),
    CreateNexus: async ({ node, nexus, children, size }) => {
      specs.nodes.get(node);
      const state = await createNexus(core, {
        uuid: nexus,
        node,
        children: children.map((uri) => ({ Uri: uri })),
        size,
        owner: null,
        config: null,
      });
      return nexusView(state) satisfies Nexus;
    },
    DestroyNexus: async ({ node, nexus }) => {
      const spec = nexusSpec(nexus, node);
      if (spec.owner !== null && specs.volumes.find(spec.owner)?.target?.nexus === nexus) {
        throw new SvcError("in-use", `Cannot destroy nexus ${nexus}: it is a volume's target`);
      }
      await destroyNexus(core, nexus);
      return {};
    },
    ShareNexus: async ({ node, nexus, protocol }) => {
      const spec = nexusSpec(nexus, node);
      if (protocol !== "nvmf") {
        throw new SvcError(
          "invalid-argument",
          `Cannot share over ${protocol}: only nvmf is supported`,
        );
      }
      if (spec.share !== "none") {
        throw new SvcError("already-shared", `Nexus ${nexus} is already shared`);
      }
      return { uri: (await shareNexus(core, nexus, [])).deviceUri };
    },
    UnshareNexus: async ({ node, nexus }) => {
      const isShared =
        nexusSpec(nexus, node).share !== "none" ||
        (registry.nexus(nexus)?.share ?? "none") !== "none";
      if (!isShared) {
        throw new SvcError("not-shared", `Nexus ${nexus} is not shared`);
      }
      await unshareNexus(core, nexus);
      return {};
    },
    AddNexusChild: async ({ node, nexus, uri }) => {
      nexusSpec(nexus, node);
      const present = registry.nexus(nexus)?.children.some((child) => child.uri === uri);
      if (present) throw new SvcError("already-exists", `Child ${uri} is already there`);
      return childView(childIn(await addChild(core, nexus, { Uri: uri }), uri));
    },
    RemoveNexusChild: async ({ node, nexus, uri }) => {
      nexusSpec(nexus, node);
      childIn(findNexus(nexus, node), uri);
      await removeChild(core, nexus, uri);
      return {};
    },
    GetSpecs: async () => ({
      nexuses: specs.nexuses.all().map(nexusSpecView),
      pools: specs.pools.all().map(poolSpecView),
      replicas: specs.replicas.all().map(replicaSpecView),
      volumes: specs.volumes.all().map(volumeSpecView),
    }),
    GetStates: async () => ({
      nexuses: registry.nexuses().map((state) => ({ nexus: nexusView(state) })),
      pools: registry.pools().map((state) => ({ pool: poolStateView(state) })),
      replicas: registry.replicas().map((state) => ({ replica: replicaView(state) })),
    }),
  };
}

function toTopologySpec(topology: Topology): TopologySpec {
  const { node_topology, pool_topology } = topology;
  const node = node_topology
    ? "explicit" in node_topology
      ? { Explicit: node_topology.explicit }
      : { Labelled: node_topology.labelled }
    : null;
  return { node, pool: pool_topology ? { Labelled: pool_topology.labelled } : null };
}

function volumeHandlers({
  core,
  nodes,
  watches,
  recreate,
}: CoreParts): Pick<CoreHandlers, VolumeMethods> {
  const { specs } = core;
  const view = (uuid: string): Volume => volumeView(core, specs.volumes.get(uuid));
  const changed = (uuid: string): Volume => {
    core.trigger("changed");
    return view(uuid);
  };
  return {
    GetVolumes: async ({ volume, maxEntries, startingToken }) => {
      if (volume !== undefined) {
        const spec = specs.volumes.find(volume);
        return { entries: spec ? [volumeView(core, spec)] : [] };
      }
      const all = specs.volumes.all();
      if (maxEntries === 0) return { entries: all.map((spec) => volumeView(core, spec)) };
      const end = startingToken + maxEntries;
      const entries = all.slice(startingToken, end).map((spec) => volumeView(core, spec));
      return end < all.length ? { entries, next_token: end } : { entries };
    },
    GetVolume: async ({ volume }) => view(volume),
    CreateVolume: async ({ volume, body }) => {
      await createVolume(core, {
        uuid: volume,
        size: body.size,
        replicas: body.replicas,
        thin: body.thin,
        selfHeal: body.policy.self_heal,
        topology: body.topology ? toTopologySpec(body.topology) : null,
        labels: body.labels ?? null,
        affinityGroup: body.affinity_group?.id ?? null,
      });
      return view(volume);
    },
    DestroyVolume: async ({ volume }) => {
      await destroyVolume(core, volume);
      core.trigger("creating-to-deleting");
      return {};
    },
    SetVolumeReplicaCount: async ({ volume, replicas }) => {
      await setReplicaCount(core, volume, replicas);
      return changed(volume);
    },
    PublishVolume: async ({ volume, node, protocol, publishContext, frontendNodes }) => {
      const request = { node: node ?? null, protocol, publishContext, frontendNodes };
      await publishVolume(core, volume, request);
      return changed(volume);
    },
    RepublishVolume: async ({ volume, node, protocol, reuseExisting, frontendNode }) => {
      const request = { node: node ?? null, protocol, reuseExisting, frontendNode };
      await republishVolume(core, volume, request, recreate);
      return changed(volume);
    },
    UnpublishVolume: async ({ volume, force }) => {
      await unpublishVolume(core, volume, { force, isDown: (node) => nodes.isDown(node) });
      return changed(volume);
    },
    ShutdownVolumeTargets: async ({ volume }) => {
      await destroyShutdownTargets(core, volume);
      return {};
    },
    ShareVolume: async ({ volume, protocol, frontendHosts }) => ({
      uri: await shareVolume(core, volume, { protocol, frontendHosts }),
    }),
    UnshareVolume: async ({ volume }) => {
      await unshareVolume(core, volume);
      return {};
    },
    GetVolumeWatches: async ({ volume }) => watches.list(specs.volumes.get(volume).uuid),
    CreateVolumeWatch: async ({ volume, callback }) => {
      await watches.add(specs.volumes.get(volume).uuid, callback);
      return {};
    },
    DeleteVolumeWatch: async ({ volume, callback }) => {
      await watches.remove(volume, callback);
      return {};
    },
  };
}
