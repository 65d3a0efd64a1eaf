/**
 * The life of a program: from its start to SIGTERM.
 *
 * Invariants: the first SIGTERM or SIGINT aborts the signal and the program drains; a second one ends
 * it at once. A promise nobody awaited or an error nobody caught is a bug and ends the process.
 */
import { errorMessage } from "./errors.ts";
import type { Log } from "./log.ts";

/** Aborted by the first SIGTERM or SIGINT. */
export function shutdownSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(name === "SIGINT" ? 130 : 143);
    controller.abort(new Error(`stopped by ${name}`));
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  return controller.signal;
}

/** Runs a program's main function; an error ends the process with code 1 and one line that says why. */
export function runMain(log: Log, main: () => Promise<void>): void {
  main().then(
    () => process.exit(0),
    (error: unknown) => {
      log.error("stopped by an error", { error });
      process.stderr.write(`${errorMessage(error)}\n`);
      process.exit(1);
    },
  );
}
