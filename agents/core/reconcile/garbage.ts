/**
 * Garbage: replicas and nexuses that nobody owns or that are to go.
 *
 * Invariants: only what is managed is destroyed on its own account; what a user made without an owner stays; the present
 * target of a volume stays, and one that may still be at work is shut down before it counts as old.
 */
import { isShutdown } from "#common/types/nexus.ts";
import { poolOf } from "#common/types/replica.ts";
import type { Core } from "../context.ts";
import { destroyNexusHeld } from "../nexus/ops.ts";
import { destroyReplicaHeld } from "../replica/ops.ts";
import { forEach } from "./each.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";
import type { OldTargets } from "./old_targets.ts";

export async function collectReplicas(core: Core, signal: AbortSignal): Promise<Outcome> {
  const { specs, registry } = core;
  return await forEach(core, specs.replicas.all(), {
    name: "replica garbage",
    signal,
    guardOf: (spec) => `replica/${spec.uuid}`,
    step: async ({ uuid }) => {
      const spec = specs.replicas.find(uuid);
      if (!spec || spec.operation) return "idle";
      const owner = spec.owners.volume;
      if (owner !== null && !specs.volumes.find(owner)) {
        const owners = { volume: null, disown_all: false };
        await specs.replicas.update(uuid, (old) => ({ ...old, owners }));
        return "busy";
      }
      const phase = specs.replicas.phase(spec);
      const garbage = phase === "Deleting" || (spec.managed && owner === null);
      if (!garbage) return "idle";
      const pool = specs.pools.find(poolOf(spec));
      if (!pool) {
        await specs.replicas.remove(uuid); // its pool is gone, and it with it
        return "busy";
      }
      if (!registry.isOnline(pool.node) || !registry.pool(pool.id, pool.node)) return "idle"; // when it returns
      await destroyReplicaHeld(core, uuid);
      return "busy";
    },
  });
}

export async function collectNexuses(
  core: Core,
  old: OldTargets,
  signal: AbortSignal,
): Promise<Outcome> {
  const ownerless = await old.collectOwnerless(signal);
  return mergeOutcomes([ownerless, await collectSpecs(core, old, signal)]);
}

async function collectSpecs(core: Core, old: OldTargets, signal: AbortSignal): Promise<Outcome> {
  const { specs, registry } = core;
  const stayMs = old.look();
  return await forEach(core, specs.nexuses.all(), {
    name: "nexus garbage",
    signal,
    guardOf: (spec) => `nexus/${spec.uuid}`,
    step: async ({ uuid }) => {
      const spec = specs.nexuses.find(uuid);
      if (!spec || spec.operation) return "idle";
      const { owner, node } = spec;
      const online = registry.isOnline(node);
      const phase = specs.nexuses.phase(spec);
      const volume = owner === null ? undefined : specs.volumes.find(owner);
      const orphan = spec.managed && (owner === null || !volume);
      const present = volume?.target?.nexus === uuid && volume.target.active;
      // Of a volume that has another target or none.
      const isOld = volume && !volume.operation && !present;
      const stray = isOld && (!isShutdown(spec) || volume.target?.nexus === uuid);
      // Strays belong to a volume whose operation may be about to name them: its guard tells.
      const settled = owner === null || !core.guards.busy(`volume/${owner}`);
      const garbage = phase === "Deleting" || orphan || (stray && settled);
      if (garbage) {
        if (!online) return "idle"; // when its node returns
        await destroyNexusHeld(core, uuid);
        return "busy";
      }
      if (!isShutdown(spec) || !online) return "idle";
      if (spec.status_info.shutdown_failed) return await settleShutdown(core, uuid, node);
      if (!isOld || !settled || old.waitsForDrain(spec) || (await stayMs(spec)) > 0) return "idle";
      const now = specs.volumes.find(volume.uuid);
      if (now?.operation || now?.target?.nexus === uuid) return "idle"; // it changed while the engine was asked
      await destroyNexusHeld(core, uuid);
      return "busy";
    },
  });
}

/** The node of a nexus that could not be shut down is back: its engine either lost the nexus or can be asked. */
async function settleShutdown(core: Core, uuid: string, node: string): Promise<Outcome> {
  const { specs, registry } = core;
  const state = registry.nexus(uuid);
  if (state && state.status !== "Shutdown") {
    registry.putNexus(await registry.engine(node).shutdownNexus(uuid));
  }
  const status_info = { shutdown_failed: false };
  await specs.nexuses.update(uuid, (old) => ({ ...old, status_info }));
  return "busy";
}
