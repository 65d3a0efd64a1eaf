/** Pools: imported again after their engine restarted; destroyed when they are to go. */
import type { PoolSpec } from "#common/types/pool.ts";
import type { Core } from "../context.ts";
import { destroyPoolHeld, importPool } from "../pool/ops.ts";
import { forEach } from "./each.ts";
import type { Outcome } from "./loop.ts";

export async function reconcilePools(core: Core, signal: AbortSignal): Promise<Outcome> {
  const { specs, registry } = core;
  return await forEach(core, specs.pools.all(), {
    name: "pools",
    signal,
    guardOf: (spec) => `pool/${spec.id}`,
    step: async ({ id }) => {
      const spec = specs.pools.find(id);
      if (!spec || spec.operation || !registry.isOnline(spec.node)) return "idle";
      if (core.tombstones.openPool(id)) return "idle"; // it is being given up
      switch (specs.pools.phase(spec)) {
        case "Created":
          if (registry.pool(id, spec.node)) return await keepUuid(core, spec);
          await importPool(core, spec);
          core.trigger("changed"); // its replicas are back: volumes may heal
          return "busy";
        case "Deleting":
          await destroyPoolHeld(core, id);
          return "busy";
        default:
          return "idle";
      }
    },
  });
}

/** Which pool it is, beyond its name; of pools that were made by other control planes it is learnt. */
async function keepUuid({ specs, registry }: Core, { id, node, uuid }: PoolSpec): Promise<Outcome> {
  const seen = registry.pool(id, node)?.uuid ?? "";
  if (uuid !== undefined || seen === "") return "idle";
  await specs.pools.update(id, (old) => ({ ...old, uuid: seen }));
  return "busy";
}
