/**
 * The command line of programs that people run by hand: `--help`, and what is wrong in one line instead of a stack trace.
 *
 * Why beside config.ts: agents have documented flags with environment variables and defaults; these programs have a
 * usage text and a few switches.
 * Invariant: nothing has begun when `--help` or a wrong option ends the program.
 */
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { errorMessage } from "./errors.ts";

export const EXIT_USAGE = 2;

type Parsed<T extends ParseArgsOptionsConfig> = ReturnType<
  typeof parseArgs<{ options: T; allowPositionals: true; args: string[] }>
>;

interface Outcome<T extends ParseArgsOptionsConfig> {
  readonly parsed?: Parsed<T>;
  /** What the program ends with instead of running. */
  readonly end?: { readonly code: number; readonly text: string };
}

interface CommandLine<T extends ParseArgsOptionsConfig> {
  /** Begins with `Usage: `. */
  readonly usage: string;
  readonly options?: T;
  /** How many words besides options it takes; none by default. */
  readonly positionalsMax?: number;
  readonly args?: readonly string[];
}

/** Pure part of `commandLine`. */
export function readCommandLine<const T extends ParseArgsOptionsConfig>(
  { usage, options, positionalsMax = 0 }: CommandLine<T>,
  args: readonly string[],
): Outcome<T> {
  const text = `${usage.trimEnd()}\n`;
  const before = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  if (before.includes("--help") || before.includes("-h")) return { end: { code: 0, text } };
  try {
    const parsed = parseArgs({
      // Proof of the cast: an absent table has no options.
      options: (options ?? {}) as T,
      allowPositionals: true,
      args: [...args],
    });
    const extra = parsed.positionals[positionalsMax];
    if (extra !== undefined) throw new Error(`Unexpected argument '${extra}'`);
    return { parsed };
  } catch (error) {
    // Node appends advice about "--" that no one needs here.
    const [why = ""] = errorMessage(error).split(/\. (?:To specify|This command)/);
    return { end: { code: EXIT_USAGE, text: `Cannot start: ${why}\n${text}` } };
  }
}

/** The options given; ends the program with the usage text at `--help` (code 0) or a wrong option (code 2). */
export function commandLine<const T extends ParseArgsOptionsConfig>(
  program: CommandLine<T>,
): Parsed<T> {
  const { parsed, end } = readCommandLine(program, program.args ?? process.argv.slice(2));
  if (parsed !== undefined) return parsed;
  (end?.code === 0 ? process.stdout : process.stderr).write(end?.text ?? "");
  process.exit(end?.code ?? EXIT_USAGE);
}
