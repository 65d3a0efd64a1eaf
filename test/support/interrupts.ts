/**
 * Takes away what a test has started also when its process is told to end, as an interrupted run does: node:test runs
 * no hooks then, and the programs of a ProcessTable, in sessions of their own, would go on for ever.
 *
 * Invariant: it is done in one turn of the event loop, so that no code of the test can start anything behind it.
 */
import { existsSync, rmSync } from "node:fs";
import { constants } from "node:os";
import { ProcessTable } from "../../hack/cluster/process.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** A folder that goes, and in it (or itself) that of a ProcessTable. */
const places = new Map<string, string>();

function leave(signal: (typeof SIGNALS)[number]): void {
  for (const [folder, recorded] of places) {
    try {
      if (existsSync(recorded)) new ProcessTable(recorded).killAll();
      rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    } catch (error) {
      console.error(`Cannot clear ${folder}; what runs in it goes on:`, error);
    }
  }
  process.exit(128 + constants.signals[signal]);
}

/** From now on a signal that ends this process kills the programs recorded in `recorded` and removes `folder`. */
export function clearOnSignal(folder: string, recorded: string = folder): void {
  // Not once(): the second signal, of the test runner after that of its group, must not end us in between.
  if (places.size === 0) for (const signal of SIGNALS) process.on(signal, leave);
  places.set(folder, recorded);
}
