/**
 * Changes to a node as data, and the script that makes them.
 *
 * Why data: the plan is shown before it is done, compared by tests, and done by one journalling script.
 * Invariant: every value is quoted here, once, for the POSIX sh that reads the script on the node.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { assertNever } from "#common/errors.ts";
import { assignments, quote } from "../lib/shell.ts";
import { PORTS } from "./options.ts";

interface Named {
  /** The journal entry's name: one per changed thing, the same in every run. */
  readonly name: string;
  /** What a person is told. */
  readonly what: string;
}

export type Action =
  | (Named & { kind: "file"; path: string; content: string })
  | (Named & {
      kind: "line";
      path: string;
      /** Added at the end of a file that is somebody else's. */
      line: string;
      /** Says whether a file, its first argument, can be loaded. */
      check: string;
    })
  | (Named & { kind: "live"; path: string; value: string })
  | (Named & {
      kind: "run";
      command: string;
      /**
       * Takes the command back, when its files were changed again since. What it leaves it says on
       * descriptor 3.
       */
      revert: string;
      /** Makes the restored files count, when they were restored byte by byte. */
      refresh: string;
      touches: readonly string[];
    })
  /** Packages: undo leaves them, and a failure doesn't keep the rest from being done. */
  | (Named & { kind: "install"; command: string })
  | (Named & { kind: "label"; node: string });

export const JOURNAL = "/var/lib/mayastor/node-prep";
const FILE_MODE = "644";

const nodeScript = (name: string): string =>
  readFileSync(path.join(import.meta.dirname, "node", `${name}.sh`), "utf8");

const prelude = () =>
  `set -u\nunset CDPATH\nexport LC_ALL=C\nPATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\n${assignments({ JOURNAL })}`;

const changing = () => `${prelude()}${nodeScript("state")}\n${nodeScript("journal")}`;

/** Prints the node's facts; changes nothing. */
export function probeScript(files: readonly string[]): string {
  const values = assignments({ PORTS: PORTS.join(" "), FILES: files.join(" ") });
  return `${prelude()}${values}${nodeScript("state")}\n${nodeScript("probe")}\nprobe\n`;
}

/** Makes the changes, each journalled first. */
export function applyScript(actions: readonly Action[]): string {
  return `${changing()}\nlock\njournal_init\n${actions.map(call).join("\n")}\nsay finished\n`;
}

/** Takes back everything the journal holds; with `keepLabel` all but the note that the node was labelled. */
export function undoScript({ keepLabel }: { keepLabel: boolean }): string {
  const notes = assignments({ KEEP_NOTES: keepLabel ? "yes" : "" });
  return `${changing()}\n${notes}${nodeScript("undo")}\nlock\nundo_all\nsay finished\n`;
}

function call(action: Action): string {
  const words = (...all: string[]) => all.map(quote).join(" ");
  switch (action.kind) {
    case "file": {
      const data = Buffer.from(action.content).toString("base64");
      return `put_file ${words(action.name, action.path, FILE_MODE, data)}`;
    }
    case "line":
      return `put_line ${words(action.name, action.path, action.line, action.check)}`;
    case "install":
      return `install ${words(action.name, action.command)}`;
    case "live":
      return `set_live ${words(action.name, action.path, action.value)}`;
    case "run": {
      const { name, command, revert, refresh, touches } = action;
      return `run_step ${words(name, command, revert, refresh, ...touches)}`;
    }
    case "label":
      return `note ${words(action.name, "label", action.node)}`;
    default:
      return assertNever(action);
  }
}
