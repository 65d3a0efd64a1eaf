/**
 * One node from its first probe to its verdict: check, apply, verify; or undo.
 *
 * Invariants: a node with a failed check isn't changed; after an apply the node is probed again and the
 * same plan decides whether it is as wanted; an error on one node never stops another.
 */
import { errorMessage, SvcError } from "#common/errors.ts";
import type { RemoteResult, RunScript } from "../lib/ssh.ts";
import { SSH_FAILED } from "../lib/ssh.ts";
import { type Action, applyScript, JOURNAL, probeScript, undoScript } from "./actions.ts";
import { GRUB_FILE } from "./boot.ts";
import type { Check, Plan } from "./checks.ts";
import { type Facts, parseFacts } from "./facts.ts";
import { inUse } from "./in_use.ts";
import { addLabel, checkLabel, type Kubectl, removeLabel } from "./label.ts";
import type { Wanted } from "./options.ts";
import { HUGEPAGES_FILE, MODPROBE_FILE, MODULES_FILE, planNode } from "./plan.ts";

export type HostStatus = "ready" | "would-change" | "reboot" | "undone" | "failed";

export interface HostResult {
  readonly name: string;
  readonly status: HostStatus;
  readonly checks: readonly Check[];
  /** What was done, or would be. */
  readonly changes: readonly string[];
  readonly error: string | undefined;
}

export interface HostTask {
  readonly name: string;
  readonly node: string | undefined;
  readonly mode: "check" | "apply" | "show-undo" | "undo";
  readonly wanted: Wanted;
  readonly kubectl: Kubectl;
  readonly run: RunScript;
  readonly signal: AbortSignal;
  readonly progress: (text: string) => void;
}

const FILES = [HUGEPAGES_FILE, MODULES_FILE, MODPROBE_FILE, GRUB_FILE];

/** Does the task; never throws: what went wrong is in the result. */
export async function prepareHost(task: HostTask): Promise<HostResult> {
  let result: HostResult;
  try {
    result = await (task.mode === "undo" || task.mode === "show-undo" ? undo(task) : prepare(task));
  } catch (error) {
    const because = task.signal.aborted
      ? "interrupted: run again to finish it"
      : errorMessage(error);
    result = { name: task.name, status: "failed", checks: [], changes: [], error: because };
  }
  task.progress(summary(result));
  return result;
}

async function prepare(task: HostTask): Promise<HostResult> {
  const { name, progress } = task;
  progress("looking");
  const before = await look(task);
  const changes = before.actions.map(({ what }) => what);
  if (before.checks.some(({ status }) => status === "fail")) {
    const error = "a check failed: nothing was changed";
    return { name, status: "failed", checks: before.checks, changes: [], error };
  }
  const leftovers = [...before.facts.journal.values()].includes("leftover");
  if (task.mode === "check" || (before.actions.length === 0 && !leftovers)) {
    return verdict(name, before.checks, changes, task.mode === "check" ? "would-change" : "failed");
  }
  progress(`applying ${before.actions.length} changes`);
  const applied = await runChecked(task, applyScript(before.actions), "apply");
  for (const action of before.actions) {
    if (action.kind === "label") await addLabel(task.kubectl, action.node);
  }
  progress("verifying");
  const after = await look(task);
  const result = verdict(name, after.checks, changes, "failed");
  const left = said(applied).filter((line) => line.startsWith("left "));
  return result.error === undefined
    ? result
    : { ...result, error: [result.error, ...left].join("\n") };
}

const PREFIX = "node-prep: ";
const said = ({ lines }: RemoteResult): string[] =>
  lines.filter((line) => line.startsWith(PREFIX)).map((line) => line.slice(PREFIX.length));

/** `ifChange`: what a check that still wants a change makes of the node. */
function verdict(
  name: string,
  checks: readonly Check[],
  changes: readonly string[],
  ifChange: "would-change" | "failed",
): HostResult {
  const bad = checks.filter(({ status }) => status === "fail" || status === "change");
  const status: HostStatus = bad.some((one) => one.status === "fail")
    ? "failed"
    : bad.length > 0
      ? ifChange
      : checks.some((one) => one.status === "reboot")
        ? "reboot"
        : "ready";
  const error =
    status === "failed"
      ? `not as wanted afterwards: ${bad.map((one) => one.name).join(", ")}`
      : undefined;
  return { name, status, checks, changes, error };
}

async function look(task: HostTask): Promise<Plan & { facts: Facts }> {
  const facts = await probe(task);
  const plan = planNode(facts, task.wanted);
  const node = task.node ?? facts.hostname;
  const label = await checkLabel(task.kubectl, node);
  const actions: readonly Action[] =
    label.status === "change"
      ? [...plan.actions, { kind: "label", name: "60-label", what: label.text, node }]
      : plan.actions;
  return { facts, checks: [...plan.checks, label], actions };
}

async function probe(task: HostTask): Promise<Facts> {
  return parseFacts((await runChecked(task, probeScript(FILES), "look")).lines);
}

async function undo(task: HostTask): Promise<HostResult> {
  const { name, progress } = task;
  progress("looking");
  const facts = await probe(task);
  const entries = [...facts.journal.keys()];
  if (task.mode === "show-undo") {
    const status = entries.length > 0 ? "would-change" : "undone";
    const changes = entries.map((entry) => `undo ${entry}`);
    return { name, status, checks: [], changes, error: undefined };
  }
  const checks: Check[] = [];
  const labelled = facts.labelledNode ?? task.node ?? facts.hostname;
  const uses = entries.length > 0 ? await inUse(task.kubectl, labelled, facts) : [];
  if (uses.length > 0) {
    const found = uses.map((text) => ({ name: "in use", status: "fail" as const, text }));
    const error =
      "Mayastor still needs this node: nothing was changed; move its volumes and delete its pools first";
    return { name, status: "failed", checks: found, changes: [], error };
  }
  progress(`undoing ${entries.length} changes`);
  const keepLabel = facts.labelledNode !== undefined;
  const lines = said(await runChecked(task, undoScript({ keepLabel }), "undo"));
  // Last: a run that is cut off before it leaves a node that is still marked as one of Mayastor's, and its journal knows.
  if (facts.labelledNode !== undefined) {
    const text = await removeLabel(task.kubectl, facts.labelledNode);
    if (text !== undefined) checks.push({ name: "label", status: "manual", text });
    lines.push(...said(await runChecked(task, undoScript({ keepLabel: false }), "undo")));
  }
  for (const line of lines.filter((text) => text.startsWith("kept "))) {
    checks.push({ name: "undo", status: "manual", text: line });
  }
  const after = await probe(task);
  const status = after.journal.size === 0 ? "undone" : "failed";
  const changes = lines.filter((line) => line.startsWith("undone ") && line !== "undone all");
  const error = status === "failed" ? `${JOURNAL} still has entries: run --undo again` : undefined;
  return { name, status, checks, changes, error };
}

async function runChecked(task: HostTask, script: string, verb: string): Promise<RemoteResult> {
  const onLine = (line: string) => {
    if (line.startsWith(PREFIX)) task.progress(line.slice(PREFIX.length));
  };
  const { run, signal } = task;
  const result = await run(script, { signal, onLine });
  if (result.exitCode === 0) return result;
  // What undo left alone says why, each on a line of its own.
  const failed = result.lines
    .filter((line) => /^node-prep: (failed|left) /.test(line))
    .map((line) => line.replace(/^node-prep: (failed )?/, ""));
  const why = [...failed, result.errorTail].filter(Boolean).join("\n");
  if (result.exitCode === SSH_FAILED) {
    throw new SvcError("unavailable", `Cannot ${verb}: ssh failed: ${why || "connection lost"}`);
  }
  const text = why || `the script ended with code ${result.exitCode}`;
  throw new SvcError("failed-precondition", `Cannot ${verb}: ${text}`);
}

function summary({ status, changes, error }: HostResult): string {
  switch (status) {
    case "ready":
      return changes.length > 0 ? `ready (${changes.length} changes)` : "ready, nothing to change";
    case "would-change":
      return `${changes.length} changes to make: --apply makes them`;
    case "reboot":
      return `${changes.length} changes; counts after a reboot`;
    case "undone":
      return changes.length > 0 ? `undone (${changes.length})` : "nothing to undo";
    case "failed":
      return `failed: ${(error ?? "").split("\n")[0]}`;
  }
}
