/**
 * The target of a volume: publishing, moving it to another node, unpublishing.
 *
 * Invariants:
 * - A new target gets a new nexus uuid, a reservation key made from it and the next range of controller ids, so
 *   that the storage itself refuses what an older target still sends.
 * - Only replicas that the last target's NexusInfo calls healthy may be its children, also after the new one has
 *   taken them: an earlier target that could not be stopped may have gone on without one until then.
 * - That record is fenced before the new target serves: an earlier one that is still at work cannot record the loss of
 *   a child any more, and so acknowledges nothing that one of them missed.
 * - A target is made on the node that was asked for, or not at all.
 * - Callers hold the volume's guard.
 */
import { check } from "#common/check.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import { nodeHostNqn } from "#common/nqn.ts";
import type { StoredNexusInfo } from "#common/store/nexus_info.ts";
import type { NexusInfo } from "#common/types/cluster.ts";
import {
  CONTROLLER_ID_MAX,
  isShutdown,
  type NexusChild,
  type NexusSpec,
  type NvmfConfig,
} from "#common/types/nexus.ts";
import { nextPublication, type Publication, withOutcome } from "#common/types/publication.ts";
import {
  hostsOfTarget,
  publicationOf,
  type TargetConfig,
  type VolumeSpec,
} from "#common/types/volume.ts";
import { type Core, deleteNexusInfo, fenceNexusInfo, storedNexusInfoOf } from "../context.ts";
import {
  createNexus,
  destroyNexus,
  destroyNexusLazily,
  endPublication,
  shareNexus,
  shutdownNexus,
} from "../nexus/ops.ts";
import { destroyOwnerless, ownerlessTargets } from "../nexus/ownerless.ts";
import { selectNodes } from "../scheduling/node.ts";
import { isHealthy, type ReplicaItem, selectForNexus } from "../scheduling/replica.ts";
import { nexusesOfVolume, nodeItems, replicaItems, suspectNodes } from "../scheduling/snapshot.ts";
import { childFor } from "./replicas.ts";

/**
 * Each host of a target takes one for each path, also one that has vanished and is not noticed yet. So many targets of
 * a volume follow each other until the ids begin anew: 127.
 */
const CONTROLLER_IDS = 512;
/** Each further one follows a change of the record: a child that the earlier target lost or has again. */
const FENCE_ATTEMPTS = 8;

/** The low 64 bits of a uuid. */
export function reservationKeyOf(nexus: string): bigint {
  return BigInt(`0x${nexus.replaceAll("-", "").slice(16)}`);
}

/** The range of controller ids after the last target's; back to the first past the end. */
export function nextControllerIds(last: NvmfConfig | null): { start: number; end: number } {
  const start = last === null ? 1 : last.controllerIdRange.end + 1;
  const end = start + CONTROLLER_IDS - 1;
  return end > CONTROLLER_ID_MAX ? { start: 1, end: CONTROLLER_IDS } : { start, end };
}

export function nextNvmfConfig(nexus: string, last: NvmfConfig | null): NvmfConfig {
  const key = reservationKeyOf(nexus);
  return {
    controllerIdRange: nextControllerIds(last),
    reservationKey: key <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(key) : key,
    reservationType: "ExclusiveAccess",
    preemptPolicy: "Holder",
  };
}

export type PublishRequest = {
  readonly node: string | null;
  readonly protocol: "nvmf" | "iscsi";
  readonly publishContext: Readonly<Record<string, string>>;
  readonly frontendNodes: readonly string[];
};

function checkProtocol(protocol: string): asserts protocol is "nvmf" {
  if (protocol !== "nvmf") {
    throw new SvcError("invalid-argument", `Cannot share over ${protocol}: only nvmf is supported`);
  }
}

/** Hosts that may connect, as the target's access list asks for. */
function allowedHosts(core: Core, target: TargetConfig): string[] {
  if (!core.config.hostsAcl.nexuses) return [];
  return target.frontend.host_acl.map((entry) => entry.node_nqn);
}

/** What the last target's nexus knew of the replicas; null when there never was one, or no trace is left. */
async function lastNexusInfo(core: Core, volume: VolumeSpec): Promise<StoredNexusInfo | null> {
  const nexus = volume.target?.nexus ?? volume.last_nexus_id;
  return nexus === null ? null : await storedNexusInfoOf(core, { volume: volume.uuid, nexus });
}

/** @throws {SvcError} `failed-precondition` (VolumeNoReplicas) */
export async function nexusReplicas(
  core: Core,
  volume: VolumeSpec,
  node: string,
): Promise<ReplicaItem[]> {
  const info = (await lastNexusInfo(core, volume))?.info ?? null;
  const chosen = selectForNexus(replicaItems(core, volume), {
    node,
    size: volume.size,
    replicaCount: volume.num_replicas,
    info,
    suspectNodes: suspectNodes(core, volume),
  });
  if (chosen.length > 0) return chosen;
  const why = info === null ? "no online replica" : "no online replica that is known healthy";
  throw new SvcError(
    "failed-precondition",
    `Cannot make a target of volume ${volume.uuid}: ${why}`,
  );
}

/**
 * A wish is obeyed or refused; without one the best of all nodes is taken, `preferred` before others that are as good.
 * @throws {SvcError} `resource-exhausted`, `failed-precondition`, `not-found`
 */
function chooseNode(
  core: Core,
  volume: VolumeSpec,
  choice: {
    readonly wish: string | null;
    readonly preferred: string | null;
    readonly leaving: string | null;
  },
): string {
  const { wish, preferred, leaving } = choice;
  if (wish !== null) return wishedNode(core, volume, { wish, leaving });
  const items = nodeItems(core, volume);
  const [best] = selectNodes(items, {
    preferred: preferred ?? items.find((item) => item.hasReplica)?.id ?? null,
    leaving,
  });
  if (best) return best.id;
  throw new SvcError(
    "resource-exhausted",
    `Cannot make a target of volume ${volume.uuid}: no suitable node (online, not cordoned, without another target of it)`,
  );
}

function wishedNode(
  core: Core,
  volume: VolumeSpec,
  { wish, leaving }: { readonly wish: string; readonly leaving: string | null },
): string {
  core.specs.nodes.get(wish);
  if (wish === leaving) {
    throw new SvcError(
      "failed-precondition",
      `Cannot move the target of volume ${volume.uuid} to node ${wish}: it is there; ask for another node, or for none`,
      { fields: { "node.id": wish } },
    );
  }
  core.registry.engine(wish); // must be online; an explicit wish overrules a cordon
  return wish;
}

/**
 * What earlier targets of the volume left on the node goes before another is made there: an engine has one of a name.
 * @throws {SvcError} when one cannot be destroyed now
 */
async function clearNode(
  core: Core,
  volume: VolumeSpec,
  { node, present }: { readonly node: string; readonly present: string | null },
): Promise<void> {
  const old = nexusesOfVolume(core, volume.uuid).filter(
    (nexus) => nexus.node === node && nexus.uuid !== present,
  );
  for (const nexus of old) await destroyNexus(core, nexus.uuid);
  for (const nexus of ownerlessTargets(core, node)) {
    if (nexus.volume === volume.uuid) await destroyOwnerless(core, nexus);
  }
}

/** Creates and shares the nexus of a target; on failure nothing of it stays. */
async function buildTarget(
  core: Core,
  volume: VolumeSpec,
  { target, name }: { readonly target: TargetConfig; readonly name: string },
): Promise<void> {
  const replicas = await nexusReplicas(core, volume, target.node);
  const children: NexusChild[] = [];
  for (const replica of replicas) {
    try {
      children.push(await childFor(core, replica.uuid, target.node));
    } catch (error) {
      const fields = { "volume.uuid": volume.uuid, "replica.uuid": replica.uuid };
      core.log.warn("replica cannot be used", { ...fields, reason: errorMessage(error) });
      if (children.length === 0 && replica === replicas.at(-1)) throw error;
    }
  }
  const { uuid, size } = volume;
  const { node, nexus, config } = target;
  await createNexus(core, { uuid: nexus, name, node, children, size, owner: uuid, config });
  try {
    await fenceEarlier(core, volume, { by: nexus, children });
    if (target.protocol !== null) await shareNexus(core, nexus, allowedHosts(core, target));
  } catch (error) {
    await destroyNexusLazily(core, nexus);
    throw error;
  }
}

/**
 * From the moment the new nexus holds its children the earlier one cannot write to them any more; what it did before
 * that moment, it has recorded; and what it would do without them now, it cannot record once its record is fenced.
 * Without a record there is none to fence: no target served before, or its engine keeps none. One that is made late, by
 * a creation that nobody waits for any more, is that of a nexus that is never shared.
 * When the new target fails after this, the earlier one remains the volume's: it ends itself at its next fault, and is
 * made again, with a new record, like any that ended by itself.
 * @throws {SvcError} `unavailable`: asking again chooses others
 */
async function fenceEarlier(
  core: Core,
  volume: VolumeSpec,
  { by, children }: { readonly by: string; readonly children: readonly NexusChild[] },
): Promise<void> {
  for (let attempt = 1; attempt <= FENCE_ATTEMPTS; attempt++) {
    const last = await lastNexusInfo(core, volume);
    if (last === null) return;
    checkStillHealthy(volume, last.info, children); // else it goes on as it is
    if (await fenceNexusInfo(core, last, by)) return;
  }
  throw new SvcError(
    "unavailable",
    `Cannot make a target of volume ${volume.uuid}: the earlier one's record keeps changing; ask again`,
  );
}

function checkStillHealthy(
  volume: VolumeSpec,
  info: NexusInfo,
  children: readonly NexusChild[],
): void {
  const used = children.flatMap((child) => ("Replica" in child ? child.Replica.uuid : []));
  const lost = used.find((replica) => !isHealthy(replica, info));
  const tooMany = !info.clean_shutdown && used.length > 1;
  if (lost === undefined && !tooMany) return;
  const why = lost === undefined ? "was not shut down cleanly" : `went on without replica ${lost}`;
  throw new SvcError(
    "unavailable",
    `Cannot make a target of volume ${volume.uuid}: meanwhile the earlier one ${why}; ask again`,
  );
}

export async function publish(
  core: Core,
  volume: VolumeSpec,
  request: PublishRequest,
): Promise<void> {
  const { specs, random, log } = core;
  const { uuid } = volume;
  if (volume.target?.active) {
    throw new SvcError("already-published", `Volume ${uuid} is already published`, {
      fields: { "node.id": volume.target.node },
    });
  }
  checkProtocol(request.protocol);
  const node = chooseNode(core, volume, {
    wish: request.node,
    // Inside a group the targets are spread first; outside, whoever wants it there says so.
    preferred: volume.affinity_group === null ? null : (request.frontendNodes[0] ?? null),
    leaving: null,
  });
  await clearNode(core, volume, { node, present: null });
  await nexusReplicas(core, volume, node); // fails before anything is written down
  const nexus = random.uuid();
  const config: TargetConfig = {
    node,
    nexus,
    protocol: request.protocol,
    active: true,
    config: nextNvmfConfig(nexus, volume.target?.config ?? null),
    frontend: {
      host_acl: request.frontendNodes.map((name) => ({
        node_name: name,
        node_nqn: core.specs.nodes.find(name)?.node_nqn ?? nodeHostNqn(name),
      })),
    },
  };
  const context =
    Object.keys(request.publishContext).length > 0 ? { ...request.publishContext } : null;
  const last = volume.target?.nexus ?? volume.last_nexus_id;
  // Its name is known before anybody can connect by it.
  const publication = nextPublication(uuid, publicationOf(volume));
  const { name } = publication;
  const named = await specs.volumes.update(uuid, (old) => ({ ...old, publication }));
  await specs.volumes.carryOut(uuid, { Publish2: { config, publish_context: context } }, () =>
    buildTarget(core, named, { target: config, name }),
  );
  const fields = { "volume.uuid": uuid, "nexus.uuid": nexus, "node.id": node };
  log.info("volume published", { ...fields, "nexus.name": name });
  if (last !== null) await forgetInfo(core, uuid, last);
}

/** The new nexus has its own NexusInfo: the old one is of no use any more. */
async function forgetInfo(core: Core, volume: string, nexus: string): Promise<void> {
  try {
    await deleteNexusInfo(core, { volume, nexus });
  } catch (error) {
    core.log.warn("old NexusInfo stays", { "nexus.uuid": nexus, error }); // harmless: nobody reads it
  }
}

export type RepublishRequest = {
  readonly node: string | null;
  readonly protocol: "nvmf" | "iscsi";
  readonly reuseExisting: boolean;
  /** The node that asks; "" is nobody. */
  readonly frontendNode: string;
};

export type Recreate = (volume: VolumeSpec, nexus: NexusSpec) => Promise<boolean>;

/**
 * Moves the target to another node, or keeps the present one when it works (or can be made to) and may be reused.
 * `recreate` makes a lost nexus again on its own node and says whether it now serves.
 */
export async function republish(
  core: Core,
  volume: VolumeSpec,
  request: RepublishRequest,
  recreate: Recreate,
): Promise<void> {
  const { specs, random, log } = core;
  const { uuid, target } = volume;
  checkProtocol(request.protocol);
  if (!target?.active) throw new SvcError("not-published", `Volume ${uuid} is not published`);
  checkFrontend(volume, target, request.frontendNode);
  const old = specs.nexuses.find(target.nexus);
  const reusable = old && !isShutdown(old) && (request.node ?? target.node) === target.node;
  if (request.reuseExisting && reusable) {
    if (await recreate(volume, old)) return;
    log.info("present target cannot be reused", { "volume.uuid": uuid, "node.id": target.node });
  }
  const node = chooseNode(core, volume, {
    wish: request.node,
    preferred: null,
    leaving: target.node,
  });
  await clearNode(core, volume, { node, present: target.nexus });
  if (old) await shutdownNexus(core, old.uuid);
  const nexus = random.uuid();
  const config: TargetConfig = {
    ...target,
    node,
    nexus,
    protocol: request.protocol,
    active: true,
    config: nextNvmfConfig(nexus, target.config),
  };
  const { name } = await interruptPublication(core, volume);
  await specs.volumes.carryOut(uuid, { Republish: { config } }, () =>
    buildTarget(core, volume, { target: config, name }),
  );
  log.info("volume republished", { "volume.uuid": uuid, "nexus.uuid": nexus, "node.id": node });
  await forgetInfo(core, uuid, target.nexus);
}

/**
 * The target is about to be another, for the same hosts: it keeps its name, and does not know whom the earlier one let in.
 * Before that is so, it is written down.
 */
export async function interruptPublication(core: Core, volume: VolumeSpec): Promise<Publication> {
  const present = publicationOf(volume);
  check(present !== null, "a volume with a target was published");
  const publication = { ...present, interrupted: true };
  if (volume.publication?.interrupted !== true) {
    await core.specs.volumes.update(volume.uuid, (old) => ({ ...old, publication }));
  }
  return publication;
}

function checkFrontend(volume: VolumeSpec, target: TargetConfig, frontendNode: string): void {
  const acl = target.frontend.host_acl;
  if (acl.length === 0 || frontendNode === "") return;
  if (acl.some((entry) => entry.node_name === frontendNode)) return;
  throw new SvcError(
    "permission-denied",
    `Volume ${volume.uuid} is not published to node ${frontendNode}`,
  );
}

/**
 * Takes the target away. Without `force` its node must answer; with it a node that a probe
 * finds dead is left to garbage collection.
 */
export async function unpublish(
  core: Core,
  volume: VolumeSpec,
  options: { readonly force: boolean; readonly isDown: (node: string) => Promise<boolean> },
): Promise<void> {
  const { specs, log } = core;
  const { uuid, target } = volume;
  if (!target?.active) throw new SvcError("not-published", `Volume ${uuid} is not published`);
  const { nexus, node } = target;
  const lazy = options.force && (await options.isDown(node));
  await specs.volumes.carryOut(uuid, "Unpublish", async () => {
    // Nobody can tell how its hosts left: none of them is taken for gone.
    if (lazy) return await destroyNexusLazily(core, nexus);
    const end = await endPublication(core, nexus);
    await destroyNexus(core, nexus);
    const present = publicationOf(volume);
    if (end === null || present === null) return;
    const publication = withOutcome(present, end, hostsOfTarget(target));
    await specs.volumes.update(uuid, (old) => ({ ...old, publication }));
  });
  log.info("volume unpublished", { "volume.uuid": uuid, "nexus.uuid": nexus, lazy });
}

/** Shares the target again under the present access list. Returns the device URI. */
export async function shareTarget(
  core: Core,
  volume: VolumeSpec,
  {
    protocol,
    frontendHosts,
  }: { readonly protocol: string; readonly frontendHosts: readonly string[] },
): Promise<string> {
  checkProtocol(protocol);
  const { uuid, target } = volume;
  if (!target?.active) throw new SvcError("not-published", `Volume ${uuid} is not published`);
  if (target.protocol !== null) {
    throw new SvcError(
      "already-shared",
      `Volume ${uuid} is already shared over ${target.protocol}`,
    );
  }
  const hosts =
    frontendHosts.length > 0 ? frontendHosts.map(nodeHostNqn) : allowedHosts(core, target);
  const state = await core.specs.volumes.carryOut(uuid, { Share: "nvmf" }, () =>
    shareNexus(core, target.nexus, core.config.hostsAcl.nexuses ? hosts : []),
  );
  return state.deviceUri;
}
