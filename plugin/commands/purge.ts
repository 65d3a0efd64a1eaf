/**
 * `delete pool|node ID --purge`: gives up for good what is lost.
 *
 * Invariant: what it costs is shown before anything is asked for, and a last copy goes only if that was typed.
 */
import type { PurgeCost } from "#common/openapi/model.ts";
import { attempt, type CommandContext, CommandError } from "./context.ts";

export type PurgeRequest = {
  readonly kind: "pool" | "node";
  readonly id: string;
  readonly purge: boolean;
  readonly lastCopies: boolean;
  readonly dryRun: boolean;
};

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** What people read. */
export function costText({
  kind,
  id,
  pools,
  replicas,
  unowned,
  volumes,
  targets,
}: PurgeCost): string {
  const lines = [
    kind === "node"
      ? `Purging node ${id} gives up ${plural(pools.length, "pool")} with ${plural(replicas, "replica")} for good:`
      : `Purging pool ${id} gives up ${plural(replicas, "replica")} for good:`,
  ];
  for (const { volume, left, wanted, last_copy, target_unseen } of volumes) {
    const kept = last_copy
      ? "its LAST COPY that can be seen goes: its data is lost"
      : `${plural(left, "complete copy").replace("copys", "copies")} of ${wanted} left; healed elsewhere if its policy allows`;
    const unseen = target_unseen ? " (its target cannot be seen: move or unpublish it first)" : "";
    lines.push(`  volume ${volume}: ${kept}${unseen}`);
  }
  if (unowned > 0) lines.push(`  ${plural(unowned, "replica")} that no volume owns: data is lost`);
  for (const volume of targets) {
    lines.push(
      `  target of volume ${volume}: moved to another node, or unpublished without a copy`,
    );
  }
  if (lines.length === 1) lines.push("  no volume loses anything");
  return `${lines.join("\n")}\n`;
}

export async function purge(
  { rest, printer, terminal, form }: CommandContext,
  { kind, id, purge: wanted, lastCopies, dryRun }: PurgeRequest,
): Promise<void> {
  if (!wanted) {
    const usual =
      kind === "pool"
        ? "delete its DiskPool (kubectl delete diskpool)"
        : "drain it, and delete its pools";
    throw new CommandError(
      `Failed to delete ${kind} ${id}: ${usual}; with --purge it is given up for good although it is lost`,
    );
  }
  const cost = await attempt(`get what purging ${kind} ${id} costs`, () =>
    rest.purgeCost(kind, id),
  );
  if (dryRun) return await printer.result(cost, () => costText(cost) + refusal(cost));
  const text = costText(cost);
  if (form === "none") terminal.out(text);
  else terminal.err(text);
  if (cost.refused === undefined && !lastCopies && cost.last_copies + cost.unowned > 0) {
    throw new CommandError(
      `Failed to purge ${kind} ${id}: nobody has another copy of what goes; repeat with --last-copies if it is to go all the same`,
    );
  }
  const done = await attempt(`purge ${kind} ${id}`, () => rest.purge(kind, id, lastCopies));
  await printer.result(done, () => `${kind === "pool" ? "Pool" : "Node"} ${id} purged`);
}

function refusal({ refused }: PurgeCost): string {
  return refused === undefined ? "" : `It cannot be purged now: ${refused}`;
}
