/**
 * Giving up a node for good: with its pools, and with what was left of its targets.
 *
 * Invariants: as for a pool; a target of the node is moved first where its volume still has a copy, else the volume is
 * unpublished in the end; an engine that comes back under the name is a new node, and nothing that it brings along is used.
 */
import { errorMessage, isKind, SvcError } from "#common/errors.ts";
import type { PurgeCost } from "#common/openapi/model.ts";
import type { PurgedNode } from "#common/types/purged.ts";
import type { Core } from "../context.ts";
import { republishVolume } from "../volume/ops.ts";
import type { Recreate } from "../volume/target.ts";
import { costOf } from "./cost.ts";
import { checkPurge, isNodeDown, type PurgeOptions, purgePoolHeld } from "./pool.ts";

const poolsOn = (core: Core, node: string): string[] =>
  core.specs.pools.all().flatMap((spec) => (spec.node === node ? spec.id : []));

export async function nodePurgeCost(
  core: Core,
  id: string,
  { moving }: { readonly moving: boolean } = { moving: true },
): Promise<PurgeCost> {
  core.specs.nodes.get(id);
  const cost = await costOf(core, { kind: "node", id, pools: poolsOn(core, id), moving });
  if (await isNodeDown(core, id)) return cost;
  return { ...cost, refused: "its engine answers; stop it first, it would only register again" };
}

/** Safe to repeat. @throws {SvcError} `not-found`, `failed-precondition` */
export async function purgeNode(
  core: Core,
  id: string,
  { recreate, ...options }: PurgeOptions & { readonly recreate: Recreate },
): Promise<PurgeCost> {
  const { specs, tombstones, guards } = core;
  const cost = await guards.run(`name/${id}`, async () => {
    const found = await nodePurgeCost(core, id);
    if (tombstones.node(id)?.state === "Purging") return found;
    checkPurge(found, options);
    // The new target fences the one that cannot be seen: only then is it sure which copies are left.
    for (const volume of found.targets) await moveTarget(core, volume, recreate);
    checkPurge(await nodePurgeCost(core, id, { moving: false }), options);
    const { endpoint } = specs.nodes.get(id);
    await tombstones.putNode({ ...namesOf(core, id), endpoint, state: "Purging" });
    core.log.warn("node is being purged", { "node.id": id });
    return found;
  });
  await carryOnNode(core, id, recreate);
  return cost;
}

function namesOf(core: Core, node: string): Omit<PurgedNode, "endpoint" | "state"> {
  const now = core.specs.nexuses.all().flatMap((spec) => (spec.node === node ? spec.uuid : []));
  const nexuses = [...new Set([...(core.tombstones.node(node)?.nexuses ?? []), ...now])];
  return { node, nexuses, at: core.clock.now() };
}

/** From the tombstone to the end; one at a time. @throws {SvcError} whatever is tried again later */
export async function carryOnNode(core: Core, id: string, recreate: Recreate): Promise<void> {
  await core.guards.run(`node/${id}`, async () => {
    const { specs, registry, tombstones, guards, log } = core;
    const open = tombstones.node(id);
    if (open?.state !== "Purging") return;
    for (const pool of poolsOn(core, id)) {
      await guards.run(`pool/${pool}`, () => purgePoolHeld(core, pool));
    }
    for (const { uuid, target } of specs.volumes.all()) {
      if (target?.active && target.node === id) await moveTarget(core, uuid, recreate);
    }
    await tombstones.putNode({ ...open, ...namesOf(core, id) });
    for (const { uuid, node, owner } of specs.nexuses.all()) {
      if (node !== id) continue;
      const forget = () => guards.run(`nexus/${uuid}`, () => specs.nexuses.remove(uuid));
      await (owner === null ? forget() : guards.run(`volume/${owner}`, forget));
    }
    await specs.nodes.remove(id);
    registry.dropNode(id);
    core.drains.delete(id);
    await tombstones.putNode({ ...open, ...namesOf(core, id), state: "Purged" });
    log.warn("node purged", { "node.id": id });
    core.trigger("node-offline");
    core.trigger("changed");
  });
}

/** To another node. Where there is no copy to make a target of, or no node to have it, the volume ends unpublished. */
async function moveTarget(core: Core, uuid: string, recreate: Recreate): Promise<void> {
  const protocol = "nvmf" as const;
  const request = { node: null, protocol, reuseExisting: false, frontendNode: "" };
  try {
    await republishVolume(core, uuid, request, recreate);
  } catch (error) {
    if (!isKind(error, "failed-precondition", "resource-exhausted", "not-published", "not-found")) {
      throw new SvcError("unavailable", `the target of volume ${uuid} is still to be moved`, {
        cause: error,
      });
    }
    const fields = { "volume.uuid": uuid, reason: errorMessage(error) };
    core.log.warn("target of a purged node is given up", fields);
  }
}
