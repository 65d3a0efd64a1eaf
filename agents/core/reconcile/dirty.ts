/**
 * Unfinished operations: what a crash or an unreachable store left half done.
 *
 * Rule: a recorded result is written off; without one the engine is asked what came to be. Where the store gave no answer it is
 * told once more what is so.
 * Invariant: an operation in progress is never touched, because its guard is held.
 */
import type { Core } from "../context.ts";
import { resolveNexus } from "../nexus/ops.ts";
import { resolvePool } from "../pool/ops.ts";
import { resolveReplica } from "../replica/ops.ts";
import type { GuardKey } from "../specs/guards.ts";
import { resolveVolume } from "../volume/ops.ts";
import { forEach } from "./each.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";

type Table<Spec> = {
  readonly all: () => Spec[];
  readonly find: (id: string) => Spec | undefined;
  readonly isDirty: (spec: Spec) => boolean;
  readonly flush: (id: string) => Promise<boolean>;
  readonly unsure: string[];
  readonly settle: (id: string) => Promise<boolean>;
};

async function flushTable<Spec>(
  core: Core,
  table: Table<Spec>,
  options: {
    readonly signal: AbortSignal;
    readonly idOf: (spec: Spec) => string;
    readonly guardOf: (id: string) => GuardKey;
    readonly resolve: (spec: Spec) => Promise<void>;
  },
): Promise<Outcome> {
  const dirty = table.all().filter((spec) => table.isDirty(spec));
  const settled = await forEach(core, table.unsure, {
    name: "unsure specs",
    signal: options.signal,
    guardOf: (id) => options.guardOf(id),
    step: async (id) => ((await table.settle(id)) ? "busy" : "idle"),
  });
  const flushed = await forEach(core, dirty, {
    name: "dirty specs",
    signal: options.signal,
    guardOf: (spec) => options.guardOf(options.idOf(spec)),
    step: async (spec) => {
      const id = options.idOf(spec);
      const before = table.find(id);
      if (!before || !table.isDirty(before)) return "idle"; // ended meanwhile
      if (!(await table.flush(id))) await options.resolve(before);
      return table.find(id) === before ? "idle" : "busy"; // idle: nobody can say yet
    },
  });
  return mergeOutcomes([settled, flushed]);
}

export async function resolveDirty(core: Core, signal: AbortSignal): Promise<Outcome> {
  const { pools, replicas, nexuses, volumes } = core.specs;
  const outcomes = [
    await flushTable(core, pools, {
      signal,
      idOf: (spec) => spec.id,
      guardOf: (id) => `pool/${id}`,
      resolve: (spec) => resolvePool(core, spec),
    }),
    await flushTable(core, replicas, {
      signal,
      idOf: (spec) => spec.uuid,
      guardOf: (id) => `replica/${id}`,
      resolve: (spec) => resolveReplica(core, spec),
    }),
    await flushTable(core, nexuses, {
      signal,
      idOf: (spec) => spec.uuid,
      guardOf: (id) => `nexus/${id}`,
      resolve: (spec) => resolveNexus(core, spec),
    }),
    // Last, because a volume's operation is judged by what became of its parts.
    await flushTable(core, volumes, {
      signal,
      idOf: (spec) => spec.uuid,
      guardOf: (id) => `volume/${id}`,
      resolve: (spec) => resolveVolume(core, spec),
    }),
  ];
  return mergeOutcomes(outcomes);
}
