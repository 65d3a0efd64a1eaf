/**
 * The target of a volume: made again when its engine lost it, and shared as it should be.
 *
 * Invariants: made again on the same node only (another node is switch-over's business), from replicas that
 * its own NexusInfo calls healthy; callers hold the volume's guard.
 */
import { isKind, toSvcError } from "#common/errors.ts";
import { isShutdown, type NexusChild, type NexusSpec } from "#common/types/nexus.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import type { Core } from "../context.ts";
import type { NexusState } from "../engine/client.ts";
import { recreateNexus, shareNexus, unshareNexus } from "../nexus/ops.ts";
import { childFor } from "../volume/replicas.ts";
import { interruptPublication, nexusReplicas } from "../volume/target.ts";
import { hasRoom } from "./hot_spare.ts";
import type { Outcome } from "./loop.ts";

export type NexusStep =
  | { readonly do: "nothing"; readonly why: string }
  | { readonly do: "recreate" }
  | { readonly do: "destroy-and-recreate" }
  | { readonly do: "share" }
  | { readonly do: "unshare" };

/** Pure decision. */
export function nextNexusStep(input: {
  readonly wantedShare: boolean;
  readonly shutdown: boolean;
  readonly nodeOnline: boolean;
  /** Every child stopped for want of space, and none that could be used again has room. */
  readonly full: boolean;
  readonly state: Pick<NexusState, "status" | "share"> | undefined;
}): NexusStep {
  const { wantedShare, shutdown, nodeOnline, full, state } = input;
  if (!nodeOnline) return { do: "nothing", why: "its node is not online" };
  // A move that stopped halfway shut it down and put no other in its place: it is still the volume's target.
  if (shutdown) return { do: "destroy-and-recreate" };
  if (!state) return { do: "recreate" };
  switch (state.status) {
    case "Faulted":
      // Made again, it would fault at the next write, again and again.
      if (full) return { do: "nothing", why: "no space yet" };
      return { do: "destroy-and-recreate" };
    case "Shutdown":
    case "ShuttingDown":
      // The engine gave up its nexus by itself (it lost its reservations or the store).
      return { do: "destroy-and-recreate" };
    case "Unknown":
      return { do: "nothing", why: "its state is not known" };
    default:
      if (wantedShare && state.share === "none") return { do: "share" };
      if (!wantedShare && state.share !== "none") return { do: "unshare" };
      return { do: "nothing", why: "as wanted" };
  }
}

/** No child that the nexus may be made of again has room. @throws {SvcError} `failed-precondition`: there is none */
async function isFull(
  core: Core,
  { volume, nexus, state }: { volume: VolumeSpec; nexus: NexusSpec; state: NexusState | undefined },
): Promise<boolean> {
  if (state?.status !== "Faulted") return false;
  if (state.children.some(({ reason }) => reason !== "NoSpace")) return false;
  const replicas = await nexusReplicas(core, volume, nexus.node);
  return !replicas.some(({ uuid }) => hasRoom(core, volume, uuid));
}

export async function reconcileNexus(core: Core, volume: VolumeSpec): Promise<Outcome> {
  const { specs, registry } = core;
  if (!volume.target?.active || volume.operation) return "idle";
  const nexus = specs.nexuses.find(volume.target.nexus);
  if (!nexus) {
    // Only unpublishing destroys a target's nexus: one that could not reach the engine then is finished now.
    await specs.volumes.carryOut(volume.uuid, "Unpublish", async () => {});
    core.log.info("volume unpublished: its target is gone", { "volume.uuid": volume.uuid });
    return "busy";
  }
  if (nexus.operation || specs.nexuses.phase(nexus) !== "Created") return "idle";
  const state = registry.nexus(nexus.uuid);
  const step = nextNexusStep({
    wantedShare: volume.target.protocol !== null,
    shutdown: isShutdown(nexus),
    nodeOnline: registry.isOnline(nexus.node),
    full: await isFull(core, { volume, nexus, state }),
    state,
  });
  switch (step.do) {
    case "nothing":
      return "idle";
    case "recreate":
      await rebuildNexus(core, volume, nexus);
      return "busy";
    case "destroy-and-recreate":
      await replaceNexus(core, volume, nexus);
      return "busy";
    case "share":
      await shareNexus(core, nexus.uuid, nexus.allowed_hosts);
      return "busy";
    case "unshare":
      await unshareNexus(core, nexus.uuid);
      return "busy";
  }
}

/** The children a nexus would be made of now. @throws {SvcError} `failed-precondition` when there are none */
async function childrenNow(
  core: Core,
  volume: VolumeSpec,
  nexus: NexusSpec,
): Promise<NexusChild[]> {
  const replicas = await nexusReplicas(core, volume, nexus.node);
  const children: NexusChild[] = [];
  for (const replica of replicas) children.push(await childFor(core, replica.uuid, nexus.node));
  return children;
}

async function rebuildNexus(core: Core, volume: VolumeSpec, nexus: NexusSpec): Promise<void> {
  await interruptPublication(core, volume);
  await recreateNexus(core, nexus.uuid, await childrenNow(core, volume, nexus));
}

/** The broken nexus goes only when a better one can be made; until it is gone it may lose further children. */
async function replaceNexus(core: Core, volume: VolumeSpec, nexus: NexusSpec): Promise<void> {
  await childrenNow(core, volume, nexus);
  await interruptPublication(core, volume);
  try {
    await core.registry.engine(nexus.node).destroyNexus(nexus.uuid);
  } catch (error) {
    if (!isKind(error, "not-found")) throw error;
  }
  core.registry.dropNexus(nexus.node, nexus.uuid);
  await recreateNexus(core, nexus.uuid, await childrenNow(core, volume, nexus));
}

/** For republish: true when the present target serves (again). Callers hold the volume's guard. */
export async function reviveTarget(
  core: Core,
  volume: VolumeSpec,
  nexus: NexusSpec,
): Promise<boolean> {
  const serves = () => {
    const state = core.registry.nexus(nexus.uuid);
    return state?.status === "Online" || state?.status === "Degraded";
  };
  if (!core.registry.isOnline(nexus.node)) return false;
  try {
    await reconcileNexus(core, volume);
  } catch (error) {
    const fields = { "volume.uuid": volume.uuid, "nexus.uuid": nexus.uuid };
    core.log.warn("target cannot be revived", { ...fields, error: toSvcError(error) });
    return false;
  }
  return serves();
}
