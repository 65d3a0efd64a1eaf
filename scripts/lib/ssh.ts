/**
 * Runs shell scripts on a host over ssh, as root.
 *
 * Invariants: no value reaches a command line on the far side (the script comes on standard input); the
 * script is one function called on its last line, so that a cut connection runs nothing instead of half of
 * it; ssh never asks (BatchMode), and a silent host is given up after a named time.
 */

import { $ } from "zx";
import { SvcError } from "#common/errors.ts";

/** A host to reach: how ssh knows it and what Kubernetes calls it. */
export interface Host {
  /** As given: unique among the hosts of a run. */
  readonly name: string;
  readonly user: string | undefined;
  readonly address: string;
  readonly port: number | undefined;
  /** The Kubernetes node's name, when it isn't the host's own name. */
  readonly node: string | undefined;
}

export interface SshOptions {
  /** An ssh_config file to use instead of the user's. */
  readonly config: string | undefined;
  readonly identity: string | undefined;
}

export interface RemoteResult {
  readonly exitCode: number;
  readonly lines: readonly string[];
  /** The end of standard error. */
  readonly errorTail: string;
}

/** What runs a script on a host: ssh, or a test's own way in. */
export type RunScript = (
  script: string,
  options: { signal: AbortSignal; onLine?: (line: string) => void },
) => Promise<RemoteResult>;

const HOST =
  /^(?:(?<user>[a-z_][a-z0-9_.-]*)@)?(?<address>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::(?<port>[0-9]{1,5}))?(?:=(?<node>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?))?$/;

const CONNECT_TIMEOUT_S = 10;
const ALIVE_INTERVAL_S = 15;
const ALIVE_COUNT_MAX = 4;
/** A whole script: rebuilding boot files and installing a package take minutes on a slow disk. */
const SCRIPT_TIMEOUT_S = 900;
const ERROR_LINES_MAX = 20;

/** ssh's own exit code for "no connection"; also what a killed session gives. */
export const SSH_FAILED = 255;

/**
 * Parses `[user@]host[:port][=node-name]`.
 * @throws {SvcError} `invalid-argument`
 */
export function parseHost(text: string): Host {
  const groups = HOST.exec(text)?.groups;
  const port = groups?.["port"] === undefined ? undefined : Number(groups["port"]);
  const address = groups?.["address"];
  if (!groups || address === undefined || (port !== undefined && (port < 1 || port > 65535))) {
    throw new SvcError(
      "invalid-argument",
      `Cannot use host ${JSON.stringify(text)}: give [user@]host[:port][=node-name]`,
    );
  }
  const bare = address.replace(/^\[(.*)\]$/, "$1");
  return { name: text, user: groups["user"], address: bare, port, node: groups["node"] };
}

/** A constant: works in any login shell, and becomes root with sudo where it isn't already. */
const REMOTE_COMMAND =
  "exec sh -c 'if [ \"$(id -u)\" = 0 ]; then exec sh -s; else exec sudo -n -- sh -s; fi'";

/** The script as one function, so that a part of it does nothing. */
export function wholeScript(body: string): string {
  return `all() {\n${body}\n}\nall\n`;
}

/** Runs scripts on `host` through the system's ssh. */
export function sshTo(host: Host, options: SshOptions): RunScript {
  const args = [
    "-T",
    ...(options.config === undefined ? [] : ["-F", options.config]),
    ...(options.identity === undefined ? [] : ["-i", options.identity]),
    ...["-o", "BatchMode=yes", "-o", `ConnectTimeout=${CONNECT_TIMEOUT_S}`],
    ...["-o", `ServerAliveInterval=${ALIVE_INTERVAL_S}`],
    ...["-o", `ServerAliveCountMax=${ALIVE_COUNT_MAX}`],
    ...(host.port === undefined ? [] : ["-p", String(host.port)]),
    ...(host.user === undefined ? [] : ["-l", host.user]),
  ];
  return async (script, { signal, onLine }) => {
    const running = $({
      input: wholeScript(script),
      nothrow: true,
      quiet: true,
      timeout: `${SCRIPT_TIMEOUT_S}s`,
      signal,
    })`ssh ${args} -- ${host.address} ${REMOTE_COMMAND}`;
    const lines: string[] = [];
    for await (const line of running) {
      lines.push(line);
      onLine?.(line);
    }
    const { exitCode, stderr } = await running;
    const errorTail = stderr.trim().split("\n").slice(-ERROR_LINES_MAX).join("\n");
    return { exitCode: exitCode ?? SSH_FAILED, lines, errorTail };
  };
}
