/**
 * Runs a program to its end and gives its output, or an error that says what was run and what it printed.
 * Why: the cluster is set up by many small programs (ip, openssl, ctr, kubectl), and a bare exit code helps nobody.
 */
import { readlinkSync } from "node:fs";
import { execa } from "execa";

export interface RunOptions {
  readonly input?: string;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 120_000;
const SHOWN_CHARS = 4000;
const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;

/** The program's standard output. @throws naming the command, its exit code and the end of what it printed */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program, ...args] = argv;
  if (program === undefined) throw new Error("Cannot run a program: the command is empty");
  const result = await execa(program, args, {
    reject: false,
    stripFinalNewline: false,
    timeout: options.timeoutMs ?? TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
    ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  if (!result.failed) return String(result.stdout);
  const printed = `${result.stderr}\n${result.stdout}`.trim().slice(-SHOWN_CHARS);
  const how = result.timedOut
    ? `did not end in ${(options.timeoutMs ?? TIMEOUT_MS) / 1000} s`
    : (result.originalMessage ?? `exit code ${result.exitCode}`);
  throw new Error(`Cannot run ${argv.join(" ").slice(0, 500)}: ${how}\n${printed}`);
}

export type NamespaceKind = "mnt" | "net" | "uts" | "ipc" | "pid";

/** Which namespace a process is in, as `net:[4026531840]`; null when the process is gone. */
export function namespaceOf(pid: number | "self", kind: NamespaceKind): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`);
  } catch {
    return null;
  }
}
