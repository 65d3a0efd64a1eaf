/** Pools: imported again after their engine restarted; destroyed when they are to go. */
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
      switch (specs.pools.phase(spec)) {
        case "Created":
          if (registry.pool(id, spec.node)) return "idle";
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
