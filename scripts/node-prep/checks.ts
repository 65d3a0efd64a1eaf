/**
 * The words of a plan: checks, their states, and the small decisions every part of the plan shares.
 *
 * Invariant: a check is "change" exactly when an action of the plan mends it.
 */
import type { Action } from "./actions.ts";
import type { Facts } from "./facts.ts";

/** change: apply mends it; reboot: done, and counts after a reboot; manual: only a person can. */
export type CheckStatus = "ok" | "change" | "reboot" | "warn" | "manual" | "fail";

export interface Check {
  readonly name: string;
  readonly status: CheckStatus;
  readonly text: string;
}

export interface Plan {
  readonly checks: readonly Check[];
  readonly actions: readonly Action[];
}

export const WRITTEN_BY = "# Written by Mayastor's node-prep; --undo removes it.\n";

export type Family = "debian" | "rhel" | "other";

export function familyOf({ os }: Facts): Family {
  const names = [os.id, ...os.like];
  if (names.some((name) => ["debian", "ubuntu"].includes(name))) return "debian";
  if (names.some((name) => ["rhel", "fedora", "centos"].includes(name))) return "rhel";
  return "other";
}

/** True when the journal lacks the end of an earlier change: do it again. */
export const isPending = (facts: Facts, name: string): boolean =>
  facts.journal.get(name) === "pending";

/** The file, unless it is already so. */
export function fileAction(
  facts: Facts,
  action: { name: string; path: string; content: string },
): Action[] {
  const same = facts.files.get(action.path)?.equals(Buffer.from(action.content)) === true;
  if (same && !isPending(facts, action.name)) return [];
  return [{ ...action, kind: "file", what: `write ${action.path}` }];
}

/** ok, or what is going to be done. */
export function check(name: string, actions: readonly Action[], text: string): Check {
  return actions.length === 0
    ? { name, status: "ok", text }
    : { name, status: "change", text: actions.map(({ what }) => what).join("; ") };
}
