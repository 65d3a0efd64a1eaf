/**
 * Replicas whose disks fail again and again are made anew on other pools.
 *
 * Why: a disk that gives errors does not get well by being rebuilt onto, and meanwhile the volume has a copy less.
 * Invariants: only a replica that holds no current copy is replaced; it goes when the new one, and every other, is in
 * sync, not before; one a volume at a time, on pools that are well.
 */
import { poolOf, type ReplicaSpec } from "#common/types/replica.ts";
import { type Core, hasRebuildSlot } from "../context.ts";
import { childOf, replicasOfVolume } from "../scheduling/snapshot.ts";
import { inheritPauses, isReplicaFailing } from "../volume/fault_memory.ts";
import {
  attachReplica,
  createReplicaOn,
  placesFor,
  planAttach,
  planRemoval,
} from "../volume/replicas.ts";
import type { Seen } from "./hot_spare.ts";
import type { Outcome } from "./loop.ts";

/** Failing, and without a current copy. */
function failingOf(core: Core, { volume, nexus, state }: Seen): ReplicaSpec[] {
  return replicasOfVolume(core, volume.uuid).filter((spec) => {
    if (!isReplicaFailing(core, spec)) return false;
    const child = childOf(spec.uuid, nexus, state);
    return child === null || (child.status !== "Online" && child.rebuildProgress === null);
  });
}

/** The volume has one replica more than it should, to replace one that is failing. */
export function isBeingReplaced(core: Core, seen: Seen): boolean {
  const owned = replicasOfVolume(core, seen.volume.uuid).length;
  return owned > seen.volume.num_replicas && failingOf(core, seen).length > 0;
}

export async function replaceFailing(core: Core, seen: Seen): Promise<Outcome> {
  const { volume, nexus } = seen;
  const [failing] = failingOf(core, seen);
  if (!failing || !core.registry.isOnline(nexus.node)) return "idle";
  if (replicasOfVolume(core, volume.uuid).length > volume.num_replicas) {
    return await attachSuccessor(core, seen);
  }
  const { pools, request } = placesFor(core, volume, failing.uuid);
  const candidates = pools.filter(({ status }) => status === "Online");
  // A replica that may not be rebuilt yet would be of no use yet.
  if (candidates.length === 0 || !hasRebuildSlot(core)) return "idle";
  const successor = await createReplicaOn(core, volume, { pools: candidates, request });
  await inheritPauses(core, { from: failing.uuid, to: successor });
  core.log.warn("replica on a failing disk is made anew elsewhere", {
    ...{ "volume.uuid": volume.uuid, "replica.uuid": failing.uuid },
    ...{ "pool.id": poolOf(failing), successor },
  });
  await attachReplica(core, nexus, successor);
  return "busy";
}

/** One that was made but not attached: a crash, or an engine that did not answer. */
async function attachSuccessor(core: Core, { volume, nexus, state }: Seen): Promise<Outcome> {
  if (state.children.some(({ rebuildProgress }) => rebuildProgress !== null)) return "idle";
  const plan = await planAttach(core, volume, nexus);
  if (!plan || !("attach" in plan)) return "idle";
  await attachReplica(core, nexus, plan.attach.uuid);
  return "busy";
}

/** The replica to take away when there is one too many; null: none, or not yet. */
export async function surplusVictim(core: Core, seen: Seen): Promise<{ uuid: string } | null> {
  const { volume, state } = seen;
  const owned = replicasOfVolume(core, volume.uuid);
  const suspects = owned.filter((spec) => isReplicaFailing(core, spec));
  const [first] = suspects;
  if (!first) return await planRemoval(core, volume, volume.num_replicas);
  const isInSync = ({ uuid }: ReplicaSpec) => childOf(uuid, seen.nexus, state)?.status === "Online";
  const othersInSync = owned.filter((spec) => spec !== first && isInSync(spec)).length;
  if (othersInSync >= volume.num_replicas) return first;
  // The successor fails too: the first has waited long enough, and the second is replaced in its turn.
  const lost = failingOf(core, seen);
  return lost.length > 1 ? (lost[0] ?? null) : null;
}
