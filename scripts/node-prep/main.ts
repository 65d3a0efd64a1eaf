/**
 * node-prep: makes Linux nodes ready for Mayastor over ssh. A dry run without --apply; --undo takes it back.
 * Usage: main.ts --host=node-1 --host=node-2 --hugepages=1024 --isolate-cpus=2,3 [--apply]   (--help)
 */
import { errorMessage } from "#common/errors.ts";
import { shutdownSignal } from "#common/process.ts";
import { LiveTable } from "../lib/live_table.ts";
import { sshTo } from "../lib/ssh.ts";
import { type HostResult, prepareHost } from "./host.ts";
import { type Options, parseOptions, USAGE } from "./options.ts";
import { talosPatch } from "./talos.ts";

async function main(options: Options, signal: AbortSignal): Promise<number> {
  if (options.mode === "help") {
    process.stdout.write(USAGE);
    return 0;
  }
  if (options.mode === "talos") {
    process.stdout.write(talosPatch(options, options.namespace));
    return 0;
  }
  const { mode, hosts, kubectl } = options;
  const names = hosts.map(({ name }) => name);
  const table = new LiveTable(names, process.stderr, { plain: options.plain });
  const waiting = [...hosts];
  const results = new Map<string, HostResult>();
  const worker = async () => {
    for (let host = waiting.shift(); host; host = waiting.shift()) {
      const { name, node } = host;
      const progress = (text: string) => table.set(name, text);
      const run = sshTo(host, options.ssh);
      const task = { name, node, mode, wanted: options, kubectl, run, signal, progress };
      results.set(name, await prepareHost(task));
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.parallel, hosts.length) }, worker));
  const ordered = names.flatMap((name) => results.get(name) ?? []);
  process.stdout.write(ordered.map(report).join("\n"));
  return ordered.every(({ status }) => status !== "failed") ? 0 : 1;
}

/** A node's checks and changes for a person to read. */
function report({ name, status, checks, changes, error }: HostResult): string {
  const width = Math.max(0, ...checks.map((check) => check.name.length));
  return [
    `${name}: ${status === "undone" && changes.length === 0 ? "nothing to undo" : status}`,
    ...checks.map(
      (check) => `  ${check.status.padEnd(6)} ${check.name.padEnd(width)}  ${check.text}`,
    ),
    ...(status === "would-change" ? changes.map((change) => `  would ${change}`) : []),
    ...(status === "undone" ? changes.map((change) => `  ${change}`) : []),
    ...(error === undefined ? [] : error.split("\n").map((line) => `  error: ${line}`)),
    "",
  ].join("\n");
}

let options: Options;
try {
  options = parseOptions(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${errorMessage(error)}\nnode-prep --help shows the options\n`);
  process.exit(2);
}
process.exitCode = await main(options, shutdownSignal());
