/**
 * Volumes: each in turn gets its target, its replicas and its garbage looked after, under its guard.
 */

import { poolOf } from "#common/types/replica.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import { type Core, nexusInfoOf } from "../context.ts";
import { destroyOrDisown } from "../replica/ops.ts";
import { childOf, replicasOfVolume } from "../scheduling/snapshot.ts";
import { destroyVolumeHeld } from "../volume/ops.ts";
import { volumeStatus } from "../volume/status.ts";
import { forEach } from "./each.ts";
import { AWAY_MS_MIN, type AwayReplicas, isUseless, reconcileReplicas } from "./hot_spare.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";
import { reconcileNexus } from "./volume_nexus.ts";

function eachVolume(
  core: Core,
  { name, signal }: { readonly name: string; readonly signal: AbortSignal },
  step: (spec: VolumeSpec) => Promise<Outcome>,
): Promise<Outcome> {
  const { volumes } = core.specs;
  return forEach(core, volumes.all(), {
    name,
    signal,
    guardOf: (spec) => `volume/${spec.uuid}`,
    step: async ({ uuid }) => {
      const spec = volumes.find(uuid); // as it is now that we hold the guard
      return spec ? await step(spec) : "idle";
    },
  });
}

export function reconcileVolumes(core: Core, signal: AbortSignal): Promise<Outcome> {
  return eachVolume(core, { name: "volumes", signal }, async (spec) => {
    if (core.specs.volumes.phase(spec) !== "Created") return "idle";
    const nexus = await reconcileNexus(core, spec);
    const replicas = await reconcileReplicas(core, spec);
    return mergeOutcomes([nexus, replicas]);
  });
}

export function collectVolumes(
  core: Core,
  away: AwayReplicas,
  signal: AbortSignal,
): Promise<Outcome> {
  const { specs } = core;
  away.forget(new Set(specs.replicas.all().map((spec) => spec.uuid)));
  return eachVolume(core, { name: "volume garbage", signal }, async (spec) => {
    if (spec.operation) return "idle";
    switch (specs.volumes.phase(spec)) {
      case "Deleting":
        await destroyVolumeHeld(core, spec.uuid);
        return "busy";
      case "Created":
        return await dropUseless(core, spec, away);
      default:
        return "idle";
    }
  });
}

/** Replicas that are away and hold nothing the volume needs give way to new ones. */
async function dropUseless(core: Core, volume: VolumeSpec, away: AwayReplicas): Promise<Outcome> {
  const { specs, registry, clock } = core;
  const replicas = replicasOfVolume(core, volume.uuid);
  const nowMs = clock.monotonicMs();
  const ages = new Map(
    replicas.map(({ uuid }) => {
      const online = registry.replica(uuid)?.status === "Online";
      return [uuid, away.awayMs(uuid, { online, nowMs })];
    }),
  );
  if (!volume.target?.active || !volume.policy.self_heal) return "idle";
  const nexus = specs.nexuses.find(volume.target.nexus);
  const state = registry.nexus(volume.target.nexus);
  const status = volumeStatus(volume, { nexus: state, ownedReplicas: replicas.length });
  if (!nexus || nexus.operation || status === "Faulted" || status === "Unknown") return "idle";
  if (replicas.every(({ uuid }) => registry.replica(uuid)?.status === "Online")) return "idle";
  const info = await nexusInfoOf(core, { volume: volume.uuid, nexus: nexus.uuid });
  for (const { uuid, ...spec } of replicas) {
    const pool = specs.pools.find(poolOf({ uuid, ...spec }));
    const awayMs = ages.get(uuid) ?? 0;
    const of = {
      online: registry.replica(uuid)?.status === "Online",
      isChild: childOf(uuid, nexus, state) !== null,
      healthy: info === null || info.children.some((child) => child.uuid === uuid && child.healthy),
      nodeKnown: pool === undefined || registry.isOnline(pool.node) || registry.isDown(pool.node),
    };
    if (!isUseless({ ...of, awayMs })) {
      // Not yet, and then at once, not at the next slow sweep.
      if (isUseless({ ...of, awayMs: AWAY_MS_MIN })) core.wakeIn(AWAY_MS_MIN - awayMs);
      continue;
    }
    await destroyOrDisown(core, uuid);
    return "busy";
  }
  return "idle";
}
