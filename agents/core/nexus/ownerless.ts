/**
 * Targets without a spec: an engine serves them, and nobody here knows of them.
 *
 * Why: a creation that its caller had given up can come true when its spec is gone already; a store that was restored
 * knows less than the engines. Such a target is found by hosts and holds replicas, and nobody would ever end it.
 * Invariants: only what was surely made as a target of a volume of this cluster is one: its engine, or its record in the
 * store, says so. A nexus that a person made at an engine is none, whatever it is called. Callers hold the volume's guard.
 */
import { isKind } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { generationOf, volumeOfName } from "#common/types/publication.ts";
import { type Core, deleteNexusInfo, storedNexusInfoOf } from "../context.ts";
import type { TargetHosts } from "../engine/client.ts";

export type OwnerlessTarget = {
  readonly uuid: string;
  readonly node: string;
  readonly name: string;
  /** Which it was made for, by its name. */
  readonly volume: string;
};

/** Nexuses that look like targets of volumes and have no spec; of one node when given. */
export function ownerlessTargets(core: Core, node?: string): OwnerlessTarget[] {
  const { registry, specs } = core;
  return registry.nexuses(node).flatMap((state) => {
    const { uuid, name } = state;
    const volume = volumeOfName(name);
    if (specs.nexuses.find(uuid) || !isUuid(volume) || volume === uuid) return [];
    if (generationOf(volume, name) === null) return [];
    const target = specs.volumes.find(volume)?.target;
    if (target?.active && target.nexus === uuid) return []; // the present one, whatever became of its spec
    return [{ uuid, node: state.node, name, volume }];
  });
}

/** It was made for the volume, by a control plane of this cluster. */
export async function wasMadeForVolume(
  core: Core,
  { uuid, volume }: OwnerlessTarget,
  told: TargetHosts | undefined,
): Promise<boolean> {
  const infoKey = told?.infoKey ?? null;
  if (infoKey !== null) return infoKey === core.keys.nexusInfo(volume, uuid);
  return (await storedNexusInfoOf(core, { volume, nexus: uuid })) !== null;
}

/** Ends it and cuts off its hosts, if it is surely what it looks like. False: it is not. */
export async function destroyOwnerless(core: Core, target: OwnerlessTarget): Promise<boolean> {
  const { specs, registry, guards, log } = core;
  const { uuid, node, name, volume } = target;
  return await guards.run(`nexus/${uuid}`, async () => {
    if (specs.nexuses.find(uuid)) return false;
    const engine = registry.engine(node);
    const told = (await engine.targetHosts())?.get(uuid);
    if (!(await wasMadeForVolume(core, target, told))) return false;
    await engine.destroyNexus(uuid).catch(unlessGone);
    registry.dropNexus(node, uuid);
    const fields = { "nexus.uuid": uuid, "nexus.name": name, "node.id": node };
    log.warn("target that no spec names was destroyed", { ...fields, "volume.uuid": volume });
    await deleteNexusInfo(core, { volume, nexus: uuid });
    return true;
  });
}

function unlessGone(error: unknown): void {
  if (!isKind(error, "not-found")) throw error;
}
