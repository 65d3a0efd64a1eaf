/**
 * From the two memories (specs and registry) to the items that scheduling judges.
 *
 * Invariant: read in one turn of the event loop, so the items of one decision belong together.
 */

import { childUri, isShutdown, type NexusSpec } from "#common/types/nexus.ts";
import { isCordoned } from "#common/types/node.ts";
import { poolOf, type ReplicaSpec } from "#common/types/replica.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import { replicaSizeFor } from "#common/volume_size.ts";
import { type Core, poolStateOf } from "../context.ts";
import type { ChildState, NexusState } from "../engine/client.ts";
import type { NodeItem } from "./node.ts";
import type { PoolItem, ReplicaRequest } from "./pool.ts";
import type { ReplicaItem } from "./replica.ts";
import { blockSizeOfPool, poolSpaces } from "./space.ts";

/** Replicas the volume counts on: those on their way out are garbage collection's. */
export function replicasOfVolume(core: Core, volume: string): ReplicaSpec[] {
  const { replicas } = core.specs;
  return replicas.ownedBy(volume).filter((spec) => replicas.phase(spec) !== "Deleting");
}

export function nexusesOfVolume(core: Core, volume: string): NexusSpec[] {
  return core.specs.nexuses.ownedBy(volume);
}

/**
 * Nodes where an earlier nexus of the volume may still be at work: its shutdown failed, or it is to be destroyed and
 * was not so far. Reservations keep it from replicas on other nodes but not from the one on its own.
 */
export function suspectNodes(core: Core, volume: VolumeSpec): string[] {
  const present = volume.target?.active ? volume.target.nexus : null;
  return nexusesOfVolume(core, volume.uuid)
    .filter(
      (nexus) =>
        nexus.status_info.shutdown_failed || (nexus.uuid !== present && !isShutdown(nexus)),
    )
    .map((nexus) => nexus.node);
}

/**
 * The size of a further replica of a volume: as its others. A volume that was made when replicas had no room beside the data
 * keeps its device as it is: with larger replicas alone the device would grow, and the older ones would fit no more. There a
 * replica's real size counts, in whole clusters of its pool: beside it a smaller one, of another pool, would not fit.
 */
function replicaSizeOf(core: Core, volume: VolumeSpec): number {
  const owned = replicasOfVolume(core, volume.uuid);
  if (owned.length === 0) return replicaSizeFor(volume.size);
  const asked = Math.max(...owned.map(({ size }) => size));
  if (asked >= replicaSizeFor(volume.size)) return asked;
  return Math.max(asked, ...owned.map(({ uuid }) => core.registry.replica(uuid)?.size ?? 0));
}

/** The block size of a replica: of its pool's disk; null: not known. */
function blockSizeOfReplica(core: Core, spec: ReplicaSpec): number | null {
  const pool = core.specs.pools.find(poolOf(spec));
  return blockSizeOfPool(poolStateOf(core, poolOf(spec)), pool?.disks);
}

/** Of the replicas that the volume's target has, or, without one, of most; null: nobody knows. */
export function blockSizeOfVolume(core: Core, volume: VolumeSpec): number | null {
  const owned = replicasOfVolume(core, volume.uuid);
  const nexus = volume.target ? core.specs.nexuses.find(volume.target.nexus) : undefined;
  const used = new Set(
    nexus?.children.map((child) => ("Replica" in child ? child.Replica.uuid : "")) ?? [],
  );
  const inUse = owned.filter(({ uuid }) => used.has(uuid));
  return (
    mostCommon(inUse.map((spec) => blockSizeOfReplica(core, spec))) ??
    mostCommon(owned.map((spec) => blockSizeOfReplica(core, spec)))
  );
}

/** Of equally many the smaller. */
function mostCommon(sizes: readonly (number | null)[]): number | null {
  const counts = new Map<number, number>();
  for (const size of sizes) if (size !== null) counts.set(size, (counts.get(size) ?? 0) + 1);
  const [best] = [...counts].sort(([a, many], [b, more]) => more - many || a - b);
  return best?.[0] ?? null;
}

export function nodeOfReplica(core: Core, spec: ReplicaSpec): string | null {
  return (
    core.specs.pools.find(poolOf(spec))?.node ?? core.registry.replica(spec.uuid)?.node ?? null
  );
}

/** Volumes of the same affinity group, without the one asked for. */
function groupPeers(core: Core, spec: VolumeSpec): ReadonlySet<string> {
  const group = spec.affinity_group?.id;
  if (group === undefined) return new Set();
  return new Set(
    core.specs.volumes
      .all()
      .filter((other) => other.affinity_group?.id === group && other.uuid !== spec.uuid)
      .map((other) => other.uuid),
  );
}

export function poolItems(core: Core, volume: VolumeSpec): PoolItem[] {
  const { registry, specs } = core;
  const peers = groupPeers(core, volume);
  const replicas = specs.replicas.all();
  const ofGroup = replicas.filter(
    ({ owners }) => owners.volume !== null && peers.has(owners.volume),
  );
  const replicasOn = new Map<string, number>();
  for (const replica of replicas) {
    const pool = poolOf(replica);
    replicasOn.set(pool, (replicasOn.get(pool) ?? 0) + 1);
  }
  return [...poolSpaces(core)].map(([state, { free, committed }]) => {
    const found = specs.pools.find(state.id);
    const spec = found?.node === state.node ? found : undefined; // else it has only the name in common
    const onPool = replicasOn.get(state.id) ?? 0;
    return {
      id: state.id,
      node: state.node,
      nodeOnline: registry.isOnline(state.node),
      nodeCordoned: isCordoned(specs.nodes.find(state.node)),
      status: state.status,
      hasSpec: spec !== undefined && specs.pools.phase(spec) === "Created",
      labels: spec?.labels ?? {},
      capacity: state.capacity,
      free,
      committed,
      blockSize: blockSizeOfPool(state, found?.disks),
      replicaCount: onPool,
      groupOnPool: ofGroup.filter((replica) => poolOf(replica) === state.id).length,
      groupOnNode: ofGroup.filter((replica) => nodeOfReplica(core, replica) === state.node).length,
    };
  });
}

/** What a further replica of the volume asks of a pool. */
export function replicaRequest(
  core: Core,
  volume: VolumeSpec,
  wantedCount: number,
): ReplicaRequest {
  const owned = replicasOfVolume(core, volume.uuid);
  const node = volume.topology?.node ?? null;
  const peers = groupPeers(core, volume);
  const groupNodes = core.specs.replicas
    .all()
    .filter(({ owners }) => owners.volume !== null && peers.has(owners.volume))
    .map((spec) => nodeOfReplica(core, spec));
  const allocations = owned.map((spec) => core.registry.replica(spec.uuid)?.space?.allocated);
  const known = allocations.filter((bytes) => bytes !== undefined);
  const allocated = owned.length === 0 ? 0 : known.length === 0 ? null : Math.max(...known);
  return {
    size: replicaSizeOf(core, volume),
    blockSize: blockSizeOfVolume(core, volume),
    thin: volume.thin,
    published: volume.target?.active ?? false,
    allowedNodes: node && "Explicit" in node ? node.Explicit.allowed_nodes : null,
    poolLabels: volume.topology?.pool?.Labelled.inclusion ?? {},
    usedNodes: owned.map((spec) => nodeOfReplica(core, spec)).filter((id) => id !== null),
    allocated,
    inGroup: volume.affinity_group !== null,
    replicaCount: wantedCount,
    groupNodes: groupNodes.filter((id) => id !== null),
  };
}

export function nodeItems(core: Core, volume: VolumeSpec): NodeItem[] {
  const { registry, specs } = core;
  const peers = groupPeers(core, volume);
  const nexuses = specs.nexuses.all().filter((spec) => !isShutdown(spec));
  const own = nexusesOfVolume(core, volume.uuid);
  const replicas = replicasOfVolume(core, volume.uuid);
  return specs.nodes.all().map((spec) => ({
    id: spec.id,
    online: registry.isOnline(spec.id),
    cordoned: isCordoned(spec),
    hasNexusOfVolume: own.some((nexus) => nexus.node === spec.id),
    nexusCount: nexuses.filter((nexus) => nexus.node === spec.id).length,
    groupNexusCount: nexuses.filter(
      (nexus) => nexus.node === spec.id && nexus.owner !== null && peers.has(nexus.owner),
    ).length,
    hasReplica: replicas.some((replica) => registry.replica(replica.uuid)?.node === spec.id),
  }));
}

/** The child of a live nexus over a replica: by spec, or by the uuid in its URI. */
export function childOf(
  replica: string,
  nexus: NexusSpec | undefined,
  state: NexusState | undefined,
): ChildState | null {
  const wanted = nexus?.children.find(
    (child) => "Replica" in child && child.Replica.uuid === replica,
  );
  const uri = wanted && childUri(wanted);
  return (
    state?.children.find((child) => child.uri === uri || replicaOfUri(child.uri) === replica) ??
    null
  );
}

/** The replica uuid in `?uuid=` of a child URI. */
export function replicaOfUri(uri: string): string | null {
  return /[?&]uuid=([0-9a-fA-F-]{36})/.exec(uri)?.[1]?.toLowerCase() ?? null;
}

export function replicaItems(core: Core, volume: VolumeSpec): ReplicaItem[] {
  const { registry, specs } = core;
  const nexusId = volume.target?.active ? volume.target.nexus : null;
  const nexus = nexusId === null ? undefined : specs.nexuses.find(nexusId);
  const nexusState = nexusId === null ? undefined : registry.nexus(nexusId);
  const peers = groupPeers(core, volume);
  const ofGroup = specs.replicas
    .all()
    .filter(({ owners }) => owners.volume !== null && peers.has(owners.volume));
  return replicasOfVolume(core, volume.uuid).map((spec) => {
    const state = registry.replica(spec.uuid);
    const pool = poolStateOf(core, poolOf(spec));
    return {
      uuid: spec.uuid,
      node: nodeOfReplica(core, spec) ?? "",
      pool: poolOf(spec),
      size: state?.size ?? spec.size,
      blockSize: blockSizeOfReplica(core, spec),
      online: state?.status === "Online" && specs.replicas.phase(spec) === "Created",
      poolFree: pool ? Math.max(0, pool.capacity - pool.used) : 0,
      allocated: state?.space?.allocated ?? null,
      child: childOf(spec.uuid, nexus, nexusState),
      groupOnPool: ofGroup.filter((other) => poolOf(other) === poolOf(spec)).length,
    };
  });
}
