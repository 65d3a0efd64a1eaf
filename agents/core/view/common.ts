/** REST views of nodes, pools, replicas and nexuses: from specs and states to the published models. */
import type {
  Child,
  CordonDrainState,
  Nexus,
  Node,
  Pool,
  Replica,
  BlockDevice as RestDevice,
  NexusSpec as RestNexusSpec,
  PoolSpec as RestPoolSpec,
  PoolState as RestPoolState,
  ReplicaSpec as RestReplicaSpec,
} from "#common/openapi/model.ts";
import { childUri, type NexusSpec } from "#common/types/nexus.ts";
import { type CordonDrain, isDraining, type NodeSpec } from "#common/types/node.ts";
import type { PoolSpec } from "#common/types/pool.ts";
import { poolOf, poolUuidOf, type ReplicaSpec } from "#common/types/replica.ts";
import { phaseOf } from "#common/types/stored.ts";
import type { DrainProgress } from "../context.ts";
import type {
  BlockDevice,
  ChildState,
  NexusState,
  PoolState,
  ReplicaState,
} from "../engine/client.ts";
import {
  childReason,
  contenderReason,
  drainReason,
  nexusReason,
  nodeReason,
  poolReason,
  replicaReason,
} from "../reasons/reasons.ts";
import type { ImportFailure, NodeView } from "../registry/registry.ts";

function cordonView(state: CordonDrain): CordonDrainState {
  if ("Cordoned" in state) {
    return { cordonedstate: { cordonlabels: [...state.Cordoned.cordonlabels] } };
  }
  const lists = "Draining" in state ? state.Draining : state.Drained;
  const copy = {
    cordonlabels: [...lists.cordonlabels],
    drainlabels: [...lists.drainlabels],
  };
  return "Draining" in state ? { drainingstate: copy } : { drainedstate: copy };
}

/** `state` only once the node was seen since we started. */
export function nodeView(
  id: string,
  spec: NodeSpec | undefined,
  seen: NodeView | undefined,
  drain?: DrainProgress,
): Node {
  const view: Node = { id };
  if (spec) {
    view.spec = { grpcEndpoint: spec.endpoint, id };
    if (spec.cordon_drain_state) view.spec.cordondrainstate = cordonView(spec.cordon_drain_state);
    if (spec.node_nqn !== undefined) view.spec.node_nqn = spec.node_nqn;
  }
  if (seen?.seen) {
    view.state = { grpcEndpoint: seen.endpoint, id, status: seen.status };
    if (seen.hostNqn !== null) view.state.node_nqn = seen.hostNqn;
  }
  const isLeaving = spec !== undefined && isDraining(spec);
  const reason =
    nodeReason(id, seen) ??
    (seen && contenderReason(seen)) ??
    (isLeaving ? drainReason(id, drain) : null);
  if (reason) (view.state ?? view).status_reason = reason;
  return view;
}

export function poolSpecView(spec: PoolSpec): RestPoolSpec {
  const { id, node, disks, labels } = spec;
  const view: RestPoolSpec = { id, node, disks: [...disks], status: phaseOf(spec.status) };
  if (labels) view.labels = { ...labels };
  return view;
}

export function poolStateView(state: PoolState): RestPoolState {
  const { id, node, disks, status, capacity, used, committed } = state;
  const view: RestPoolState = { id, node, disks: [...disks], status, capacity, used, committed };
  const reason = poolReason({ id, state, node: undefined, importFailure: undefined });
  if (reason) view.status_reason = reason;
  return view;
}

/** What is known of a pool's surroundings. */
export type PoolSurroundings = {
  readonly node: NodeView | undefined;
  readonly importFailure: ImportFailure | undefined;
};

export function poolView(
  id: string,
  spec: PoolSpec | undefined,
  state: PoolState | undefined,
  around: PoolSurroundings,
): Pool {
  const view: Pool = { id };
  if (spec) view.spec = poolSpecView(spec);
  if (state) view.state = poolStateView(state);
  else {
    const reason = poolReason({ id, phase: spec && phaseOf(spec.status), state, ...around });
    if (reason) view.status_reason = reason;
  }
  return view;
}

export function replicaView(state: ReplicaState): Replica {
  const { node, pool, poolUuid, share, size, space, thin, uri, uuid, allowedHosts } = state;
  const view: Replica = { node, pool, share, size, state: state.status, thin, uri, uuid };
  if (poolUuid !== "") view.poolUuid = poolUuid;
  if (space) {
    view.space = {
      capacity_bytes: space.capacity,
      allocated_bytes: space.allocated,
      cluster_size: space.clusterSize,
      clusters: space.clusters,
      allocated_clusters: space.allocatedClusters,
    };
  }
  if (allowedHosts.length > 0) view["allowed-hosts"] = [...allowedHosts];
  const reason = replicaReason({ uuid, pool, state });
  if (reason) view.status_reason = reason;
  return view;
}

export function replicaSpecView(spec: ReplicaSpec): RestReplicaSpec {
  const { managed, size, thin, uuid, share, owners } = spec;
  const view: RestReplicaSpec = {
    managed,
    owners: owners.volume === null ? { nexuses: [] } : { nexuses: [], volume: owners.volume },
    pool: poolOf(spec),
    share,
    size,
    status: phaseOf(spec.status),
    thin,
    uuid,
  };
  const poolUuid = poolUuidOf(spec);
  if (poolUuid !== null) view.poolUuid = poolUuid;
  return view;
}

export function childView(child: ChildState): Child {
  const view: Child = { state: child.status, uri: child.uri };
  if (child.rebuildProgress !== null) view.rebuildProgress = child.rebuildProgress;
  if (child.reason === "NoSpace") view.state_reason = "OutOfSpace";
  const reason = childReason(child);
  if (reason) view.status_reason = reason;
  return view;
}

export function nexusView(state: NexusState): Nexus {
  const reason = nexusReason(state);
  return {
    ...(reason ? { status_reason: reason } : {}),
    children: state.children.map(childView),
    deviceUri: state.deviceUri,
    node: state.node,
    rebuilds: state.rebuilds,
    protocol: state.share,
    size: state.size,
    state: state.status === "ShuttingDown" ? "Shutdown" : state.status,
    uuid: state.uuid,
  };
}

export function nexusSpecView(spec: NexusSpec): RestNexusSpec {
  const { managed, node, share, size, uuid } = spec;
  return {
    children: spec.children.map(childUri),
    managed,
    node,
    share,
    size,
    status: phaseOf(spec.spec_status),
    uuid,
  };
}

export function deviceView(device: BlockDevice): RestDevice {
  const { sectors, devlinks, filesystem, partition, ...rest } = device;
  return {
    ...rest,
    devlinks: [...devlinks],
    filesystem: { ...filesystem },
    partition: { ...partition },
    size: sectors,
  };
}
