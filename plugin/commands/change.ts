/** Commands that change something: scale a volume; cordon, uncordon and drain a node. */
import type { Node } from "#common/openapi/model.ts";
import { cordonDrainOf } from "../output/tables.ts";
import { attempt, type CommandContext, CommandError } from "./context.ts";

/** How often a drain is looked at, as published. */
const DRAIN_POLL_MS = 2_000;

export async function scaleVolume(
  { rest, printer }: CommandContext,
  { id, replicas }: { id: string; replicas: number },
): Promise<void> {
  const volume = await attempt(`scale volume ${id}`, () => rest.scaleVolume(id, replicas));
  await printer.result(volume, () => `Volume ${id} scaled successfully 🚀`);
}

type NodeLabel = { readonly id: string; readonly label: string };

/** The wanted state of a node; one that is only observed cannot be cordoned or drained. */
function specOf(node: Node): NonNullable<Node["spec"]> {
  if (!node.spec) throw new CommandError(`Node ${node.id} is not registered`);
  return node.spec;
}

/** Adds the label unless it is there: repeating the command is no error. */
export async function cordonNode(
  { rest, printer }: CommandContext,
  { id, label }: NodeLabel,
): Promise<void> {
  const before = await attempt(`get node ${id}`, () => rest.node(id));
  const { cordon } = cordonDrainOf(specOf(before).cordondrainstate);
  const node = cordon.includes(label)
    ? before
    : await attempt(`cordon node ${id}`, () => rest.cordon(id, label));
  await printer.result(node, () => `Node ${id} cordoned successfully`);
}

export async function uncordonNode(
  { rest, printer }: CommandContext,
  { id, label }: NodeLabel,
): Promise<void> {
  const node = await attempt(`uncordon node ${id}`, () => rest.uncordon(id, label));
  const { cordon, drain } = cordonDrainOf(specOf(node).cordondrainstate);
  const left = [...cordon, ...drain].map((text) => JSON.stringify(text));
  await printer.result(node, () =>
    left.length > 0
      ? `Cordon label successfully removed. Remaining cordon labels [${left.join(", ")}]`
      : `Node ${id} successfully uncordoned`,
  );
}

/** Starts a drain, or joins one that runs, and waits for its end (for ever without `timeoutMs`). */
export async function drainNode(
  { rest, printer, terminal, clock, signal }: CommandContext,
  { id, label, timeoutMs }: NodeLabel & { timeoutMs: number | null },
): Promise<void> {
  const startMs = clock.monotonicMs();
  let node = await attempt(`get node ${id}`, () => rest.node(id));
  const { drain } = cordonDrainOf(specOf(node).cordondrainstate);
  if (!drain.includes(label)) {
    node = await attempt(`put node drain ${id}`, () => rest.drain(id, label));
  }
  for (;;) {
    const state = cordonDrainOf(specOf(node).cordondrainstate);
    if (state.drainState === "Drained") {
      await printer.result(node, () => `Node ${id} successfully drained`);
      return;
    }
    if (!state.drain.includes(label)) {
      throw new CommandError(`Node ${id} drain has been cancelled`);
    }
    if (timeoutMs !== null && clock.monotonicMs() - startMs >= timeoutMs) {
      throw new CommandError(`Node ${id} drain command timed out`);
    }
    try {
      await clock.sleep(DRAIN_POLL_MS, signal);
      node = await attempt(`get node ${id}`, () => rest.node(id));
    } catch (error) {
      if (!signal.aborted) throw error;
      terminal.err(`The drain of node ${id} goes on; uncordon the node to cancel it\n`);
      throw new CommandError("Interrupted");
    }
  }
}
