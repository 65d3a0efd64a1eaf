/**
 * The node's label in Kubernetes, which io-engine's DaemonSet selects by.
 *
 * Why here and not on the node: a node has no right to label itself; the operator's kubectl has.
 */

import { $ } from "zx";
import { SvcError } from "#common/errors.ts";
import type { Check } from "./checks.ts";
import { ENGINE_LABEL, ENGINE_LABEL_VALUE } from "./talos.ts";

/** kubectl with its own options, or none. */
export type Kubectl = { program: string; args: readonly string[] } | undefined;

const PAIR = `${ENGINE_LABEL}=${ENGINE_LABEL_VALUE}`;
const TIMEOUT = "30s";

/** Whether the node has the label. @throws {SvcError} `not-found`, `unavailable` */
export async function checkLabel(kubectl: Kubectl, node: string): Promise<Check> {
  const name = "label";
  if (!kubectl) {
    return { name, status: "manual", text: `kubectl label node ${node} ${PAIR}` };
  }
  const field = `jsonpath={.metadata.labels.${ENGINE_LABEL.replaceAll(".", "\\.")}}`;
  const value = await kubectlRun(kubectl, ["get", "node", node, "-o", field]);
  if (value === ENGINE_LABEL_VALUE) return { name, status: "ok", text: PAIR };
  if (value !== "") {
    const text = `node ${node} has ${ENGINE_LABEL}=${value}: change it there`;
    return { name, status: "fail", text };
  }
  return { name, status: "change", text: `label node ${node} ${PAIR}` };
}

export async function addLabel(kubectl: Kubectl, node: string): Promise<void> {
  if (kubectl) await kubectlRun(kubectl, ["label", "node", node, PAIR]);
}

/** Takes the label away. Returns what a person must do instead, when there is no kubectl. */
export async function removeLabel(kubectl: Kubectl, node: string): Promise<string | undefined> {
  if (!kubectl) return `kubectl label node ${node} ${ENGINE_LABEL}-`;
  try {
    await kubectlRun(kubectl, ["label", "node", node, `${ENGINE_LABEL}-`]);
  } catch (error) {
    // A node that left the cluster took its label along.
    if (!(error instanceof SvcError && error.kind === "not-found")) throw error;
  }
  return undefined;
}

/** Runs kubectl; its output without the last line feed. @throws {SvcError} `not-found`, `unavailable` */
export async function kubectlRun(
  { program, args }: NonNullable<Kubectl>,
  words: string[],
): Promise<string> {
  const done = await $({
    nothrow: true,
    quiet: true,
    timeout: TIMEOUT,
  })`${program} ${args} ${words}`;
  if (done.exitCode !== 0) {
    const why = done.stderr.trim().split("\n").at(-1) ?? "";
    const kind = done.stderr.includes("(NotFound)") ? "not-found" : "unavailable";
    throw new SvcError(kind, `Cannot run kubectl ${words.join(" ")}: ${why}`);
  }
  return done.stdout.trim();
}
