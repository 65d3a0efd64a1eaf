/**
 * What giving up pools costs: which volumes lose a replica, and for which it is the last copy that can be seen.
 *
 * Invariants: a copy counts only if it is there now, complete, and on no pool that goes: what cannot be seen saves nobody; while
 * a target cannot be seen none counts, since it may go on without any of them until another target has fenced it.
 */
import type { PurgeCost, PurgeVolume } from "#common/openapi/model.ts";
import { poolOf, type ReplicaSpec } from "#common/types/replica.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import { type Core, nexusInfoOf } from "../context.ts";
import { isHealthy } from "../scheduling/replica.ts";
import { childOf, replicasOfVolume } from "../scheduling/snapshot.ts";

/** Replicas whose going costs somebody something: those of volumes, and those that a person made. */
export function costlyReplicas(core: Core, pools: ReadonlySet<string>): ReplicaSpec[] {
  const { specs } = core;
  return specs.replicas.all().filter((spec) => {
    if (!pools.has(poolOf(spec)) || specs.replicas.phase(spec) === "Deleting") return false;
    const { volume } = spec.owners;
    if (volume === null) return !spec.managed;
    const owner = specs.volumes.find(volume);
    return owner !== undefined && specs.volumes.phase(owner) !== "Deleting";
  });
}

export async function costOf(
  core: Core,
  {
    kind,
    id,
    pools,
    moving = false,
  }: {
    readonly kind: "pool" | "node";
    readonly id: string;
    readonly pools: string[];
    /** Targets of the node are moved, and so fenced, before anything is given up. */
    readonly moving?: boolean;
  },
): Promise<PurgeCost> {
  const { specs } = core;
  const going = new Set(pools);
  const replicas = costlyReplicas(core, going);
  const volumes: PurgeVolume[] = [];
  for (const volume of new Set(replicas.flatMap(({ owners }) => owners.volume ?? []))) {
    const spec = specs.volumes.find(volume);
    if (!spec) continue;
    const isMoved = moving && spec.target?.node === id;
    volumes.push(await costOfVolume(core, spec, { going, isMoved }));
  }
  const targets =
    kind === "node"
      ? specs.volumes.all().filter(({ target }) => target?.active && target.node === id)
      : [];
  return {
    kind,
    id,
    pools,
    replicas: replicas.length,
    unowned: replicas.filter(({ owners }) => owners.volume === null).length,
    volumes,
    targets: targets.map(({ uuid }) => uuid),
    last_copies: volumes.filter(({ last_copy }) => last_copy).length,
  };
}

async function costOfVolume(
  core: Core,
  volume: VolumeSpec,
  { going, isMoved }: { readonly going: ReadonlySet<string>; readonly isMoved: boolean },
): Promise<PurgeVolume> {
  const { specs, registry } = core;
  const { uuid, target } = volume;
  const last = target?.nexus ?? volume.last_nexus_id;
  const info = last === null ? null : await nexusInfoOf(core, { volume: uuid, nexus: last });
  const nexus = target?.active ? specs.nexuses.find(target.nexus) : undefined;
  const state = nexus && registry.nexus(nexus.uuid);
  const owned = replicasOfVolume(core, uuid);
  const isCopy = (spec: ReplicaSpec) => {
    if (specs.replicas.phase(spec) !== "Created" || !isHealthy(spec.uuid, info)) return false;
    const child = childOf(spec.uuid, nexus, state);
    // One that its target lacks, or is still writing to, has not all the data.
    return !state || (child?.status === "Online" && child.rebuildProgress === null);
  };
  const isThere = (spec: ReplicaSpec) => registry.replica(spec.uuid)?.status === "Online";
  const lost = owned.filter((spec) => going.has(poolOf(spec)));
  const kept = owned.filter((spec) => !going.has(poolOf(spec)));
  const left = kept.filter((spec) => isCopy(spec) && isThere(spec)).length;
  const unseen = target?.active === true && !state && !isMoved;
  const mayBeCopy = lost.some((spec) => isHealthy(spec.uuid, info));
  return {
    volume: uuid,
    replicas: lost.map((spec) => spec.uuid),
    wanted: volume.num_replicas,
    left,
    last_copy: (left === 0 || unseen) && mayBeCopy,
    ...(unseen ? { target_unseen: true } : {}),
  };
}
