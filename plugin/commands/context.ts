/** What every command works with, and how its failures are told. */
import type { Clock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import type { OutputForm, Printer, Terminal } from "../output/print.ts";
import type { RestClient } from "../rest_client.ts";

export type CommandContext = {
  readonly rest: RestClient;
  readonly printer: Printer;
  /** How results are printed. */
  readonly form: OutputForm;
  readonly terminal: Terminal;
  readonly clock: Clock;
  /** aborted when the user interrupts */
  readonly signal: AbortSignal;
};

/** A command that did not do what it was asked to: its text goes to stderr, the exit code is 1. */
export class CommandError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "CommandError";
  }
}

/** Runs one step; its failure reads `Failed to <what>. Error <text>`. */
export async function attempt<T>(what: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw new CommandError(`Failed to ${what}. Error ${errorMessage(error)}`);
  }
}
