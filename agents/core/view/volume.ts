/**
 * The REST view of a volume: what is wanted, and what is seen of it.
 *
 * Invariant: derived only from the two memories, so an answer costs no call to an engine.
 */
import type {
  ReplicaTopology,
  VolumeSpec as RestVolumeSpec,
  VolumeState as RestVolumeState,
  Topology,
  Volume,
} from "#common/openapi/model.ts";
import { poolOf, type ReplicaSpec } from "#common/types/replica.ts";
import { phaseOf } from "#common/types/stored.ts";
import { type TopologySpec, type VolumeSpec, volumeOperationName } from "#common/types/volume.ts";
import { type Core, poolStateOf } from "../context.ts";
import type { NexusState } from "../engine/client.ts";
import { poolReason, replicaReason, volumeReason } from "../reasons/reasons.ts";
import { childOf, replicasOfVolume } from "../scheduling/snapshot.ts";
import { volumeStatus } from "../volume/status.ts";
import { nexusView } from "./common.ts";

function topologyView(topology: TopologySpec): Topology {
  const view: Topology = {};
  const { node, pool } = topology;
  if (node && "Explicit" in node) view.node_topology = { explicit: { ...node.Explicit } };
  if (node && "Labelled" in node) view.node_topology = { labelled: { ...node.Labelled } };
  if (pool) view.pool_topology = { labelled: { ...pool.Labelled } };
  return view;
}

export function volumeSpecView(spec: VolumeSpec): RestVolumeSpec {
  const { uuid, size, num_replicas, policy, thin, labels, operation, target, topology } = spec;
  const view: RestVolumeSpec = {
    num_replicas,
    size,
    status: phaseOf(spec.status),
    uuid,
    policy: { ...policy },
    thin,
  };
  if (labels) view.labels = { ...labels };
  if (operation) {
    view.operation = { operation: volumeOperationName(operation.operation) };
    if (operation.result !== null) view.operation.result = operation.result;
  }
  if (target?.active) {
    view.target = { node: target.node };
    if (target.protocol !== null) view.target.protocol = target.protocol;
    const nodes = target.frontend.host_acl;
    if (nodes.length > 0) {
      view.target.frontend_nodes = nodes.map(({ node_name, node_nqn }) => ({
        name: node_name,
        nqn: node_nqn,
      }));
    }
  }
  if (topology) view.topology = topologyView(topology);
  if (spec.affinity_group) view.affinity_group = { ...spec.affinity_group };
  return view;
}

/** The device URI with the hosts that may connect, as a client needs it. */
export function withHosts(uri: string, hosts: readonly string[]): string {
  return hosts.reduce(
    (text, host) => `${text}${text.includes("?") ? "&" : "?"}hostnqn=${host}`,
    uri,
  );
}

function replicaTopology(
  core: Core,
  spec: ReplicaSpec,
  nexusId: string | null,
  nexus: NexusState | undefined,
): ReplicaTopology {
  const state = core.registry.replica(spec.uuid);
  const nexusSpec = nexusId === null ? undefined : core.specs.nexuses.find(nexusId);
  const child = childOf(spec.uuid, nexusSpec, nexus);
  const view: ReplicaTopology = { state: state?.status ?? "Unknown" };
  if (state) {
    view.node = state.node;
    view.pool = state.pool;
    const { capacity, allocated } = state.space ?? { capacity: state.size, allocated: state.size };
    view.usage = { capacity, allocated };
  } else if (child) {
    view.pool = poolOf(spec);
  }
  const pool = poolOf(spec);
  const home = core.specs.pools.find(pool);
  const reason = replicaReason({
    uuid: spec.uuid,
    pool,
    state,
    child,
    poolReason: poolReason({
      id: pool,
      phase: home && phaseOf(home.status),
      state: poolStateOf(core, pool),
      node: home && core.registry.node(home.node),
      importFailure: home && core.registry.importFailure(home.node, pool),
    }),
  });
  if (reason) view.status_reason = reason;
  if (child) {
    view["child-status"] = child.status;
    if (child.reason === "NoSpace") view["child-status-reason"] = "OutOfSpace";
    if (child.rebuildProgress !== null) view["rebuild-progress"] = child.rebuildProgress;
  }
  return view;
}

export function volumeStateView(core: Core, spec: VolumeSpec): RestVolumeState {
  const { registry, specs } = core;
  const nexusId = spec.target?.active ? spec.target.nexus : null;
  const nexus = nexusId === null ? undefined : registry.nexus(nexusId);
  const replicas = replicasOfVolume(core, spec.uuid);
  const allocations = replicas.map((replica) => {
    const state = registry.replica(replica.uuid);
    return state ? (state.space?.allocated ?? state.size) : 0;
  });
  const view: RestVolumeState = {
    size: nexus?.size ?? spec.size,
    status: volumeStatus(spec, { nexus, ownedReplicas: replicas.length }),
    uuid: spec.uuid,
    replica_topology: Object.fromEntries(
      replicas.map((replica) => [replica.uuid, replicaTopology(core, replica, nexusId, nexus)]),
    ),
    usage: {
      capacity: spec.size,
      allocated: Math.max(0, ...allocations),
      total_allocated: allocations.reduce((sum, bytes) => sum + bytes, 0),
    },
  };
  if (nexus) {
    const hosts = specs.nexuses.find(nexus.uuid)?.allowed_hosts ?? [];
    const target = nexusView(nexus);
    view.target = { ...target, deviceUri: target.deviceUri && withHosts(target.deviceUri, hosts) };
  }
  const reason = volumeReason({
    spec,
    status: view.status,
    nexus,
    node: spec.target?.active ? registry.node(spec.target.node) : undefined,
    replicas: replicas.map(({ uuid }) => [uuid, view.replica_topology[uuid]?.status_reason]),
  });
  if (reason) view.status_reason = reason;
  return view;
}

export function volumeView(core: Core, spec: VolumeSpec): Volume {
  return { spec: volumeSpecView(spec), state: volumeStateView(core, spec) };
}
