/**
 * kubectl-mayastor's command line: what can be typed, and which command that runs.
 *
 * Invariants: options may stand before or after the command; nothing is asked of the cluster before the command
 * line is understood; every failure, an interrupt among them, ends on stderr with exit code 1 (a bad command line
 * too).
 */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import type { Clock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import { parseDurationMs } from "#common/units.ts";
import { cordonNode, drainNode, scaleVolume, uncordonNode } from "./commands/change.ts";
import { type CommandContext, CommandError } from "./commands/context.ts";
import * as get from "./commands/get.ts";
import { type PurgeRequest, purge } from "./commands/purge.ts";
import { findEndpoint } from "./discovery.ts";
import { makePrinter, OUTPUT_FORMS, type OutputForm, type Terminal } from "./output/print.ts";
import { makeRestClient } from "./rest_client.ts";

export const NAMESPACE_DEFAULT = "mayastor";

export type ProgramEnvironment = {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly version: string;
};

type GlobalOptions = {
  readonly rest?: string;
  readonly kubeConfigPath?: string;
  readonly namespace: string;
  readonly output: OutputForm;
  readonly timeout: number;
};

function duration(value: string): number {
  try {
    return parseDurationMs(value);
  } catch (error) {
    throw new InvalidArgumentError(errorMessage(error));
  }
}

function replicaCount(value: string): number {
  const count = Number(value);
  if (!/^\d+$/.test(value) || count < 1 || count > 255) {
    throw new InvalidArgumentError("a replica count is a whole number from 1 to 255");
  }
  return count;
}

function uuid(value: string): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)) {
    throw new InvalidArgumentError("a volume id is a uuid");
  }
  return value.toLowerCase();
}

type Run = (context: CommandContext) => Promise<void>;

/** The whole command line; `run` gets what was typed, with the command's own arguments bound. */
function makeCommands(environment: ProgramEnvironment, run: (run: Run) => Promise<void>): Command {
  const { terminal } = environment;
  const program = new Command("kubectl-mayastor")
    .description("Manage Mayastor: volumes, pools and nodes.")
    .version(`kubectl-plugin ${environment.version}`, "-V, --version", "Print version information")
    .helpOption("-h, --help", "Print help information")
    .option("-r, --rest <REST>", "The rest endpoint to connect to")
    .option("-k, --kube-config-path <PATH>", "Path to kubeconfig file")
    .option(
      "-n, --namespace <NAMESPACE>",
      "Kubernetes namespace of mayastor service",
      NAMESPACE_DEFAULT,
    )
    .addOption(
      new Option("-o, --output <OUTPUT>", "The Output, viz yaml, json")
        .choices([...OUTPUT_FORMS])
        .default("none"),
    )
    .addOption(
      new Option("-t, --timeout <TIMEOUT>", "Timeout for the REST operations")
        .argParser(duration)
        .default(10_000, "10s"),
    )
    .option("-j, --jaeger <JAEGER>", "Accepted for compatibility: requests are not traced")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
    });

  const getting = program.command("get").description("'Get' resources");
  getting
    .command("volumes")
    .description("Get all volumes")
    .action(() => run(get.getVolumes));
  getting
    .command("volume")
    .description("Get volume with the given ID")
    .argument("<id>", "ID of the volume", uuid)
    .action((id: string) => run((context) => get.getVolume(context, id)));
  getting
    .command("volume-replica-topologies")
    .description("Get the replica topology for all volumes")
    .action(() => run(get.getTopologies));
  getting
    .command("volume-replica-topology")
    .description("Get the replica topology for the volume with the given ID")
    .argument("<id>", "ID of the volume", uuid)
    .action((id: string) => run((context) => get.getTopology(context, id)));
  getting
    .command("pools")
    .description("Get all pools")
    .action(() => run(get.getPools));
  getting
    .command("pool")
    .description("Get pool with the given ID")
    .argument("<id>", "ID of the pool")
    .action((id: string) => run((context) => get.getPool(context, id)));
  getting
    .command("nodes")
    .description("Get all nodes")
    .action(() => run(get.getNodes));
  getting
    .command("node")
    .description("Get node with the given ID")
    .argument("<id>", "ID of the node")
    .action((id: string) => run((context) => get.getNode(context, id)));
  getting
    .command("block-devices")
    .description("Get the block devices of a node")
    .argument("<node>", "ID of the node")
    .option("--all", "Show all devices, not only usable ones", false)
    .action((node: string, { all }: { all: boolean }) =>
      run((context) => get.getBlockDevices(context, { node, all })),
    );
  const cordons = getting.command("cordon").description("Get cordoned nodes");
  cordons
    .command("nodes")
    .description("Get all cordoned nodes")
    .action(() => run(get.getCordonNodes));
  cordons
    .command("node")
    .description("Get the cordon labels of a node")
    .argument("<id>", "ID of the node")
    .action((id: string) => run((context) => get.getCordonNode(context, id)));
  const drains = getting.command("drain").description("Get draining and drained nodes");
  drains
    .command("nodes")
    .description("Get all nodes that are draining or drained")
    .action(() => run(get.getDrainNodes));
  drains
    .command("node")
    .description("Get the drain state of a node")
    .argument("<id>", "ID of the node")
    .action((id: string) => run((context) => get.getDrainNode(context, id)));

  program
    .command("scale")
    .description("'Scale' resources")
    .command("volume")
    .description("Set the number of replicas of a volume")
    .argument("<id>", "ID of the volume", uuid)
    .argument("<replica-count>", "Replica count of the volume", replicaCount)
    .action((id: string, replicas: number) =>
      run((context) => scaleVolume(context, { id, replicas })),
    );
  program
    .command("cordon")
    .description("'Cordon' resources")
    .command("node")
    .description("Keep new resources off a node")
    .argument("<id>", "ID of the node")
    .argument("<label>", "Name of the cordon")
    .action((id: string, label: string) => run((context) => cordonNode(context, { id, label })));
  program
    .command("uncordon")
    .description("'Uncordon' resources")
    .command("node")
    .description("Remove a cordon or a drain from a node")
    .argument("<id>", "ID of the node")
    .argument("<label>", "Name of the cordon or drain")
    .action((id: string, label: string) => run((context) => uncordonNode(context, { id, label })));
  const deleting = program.command("delete").description("'Delete' resources");
  for (const kind of ["pool", "node"] as const) {
    deleting
      .command(kind)
      .description(`Give up a ${kind} that is lost for good`)
      .argument("<id>", `ID of the ${kind}`)
      .option("--purge", "Give it up with everything on it; what that costs is shown first", false)
      .option("--last-copies", "Also what nobody has another copy of: that data is lost", false)
      .option("--dry-run", "Only show what it costs", false)
      .action((id: string, options: Omit<PurgeRequest, "kind" | "id">) =>
        run((context) => purge(context, { kind, id, ...options })),
      );
  }
  program
    .command("drain")
    .description("'Drain' resources")
    .command("node")
    .description("Move all volume targets off a node")
    .argument("<id>", "ID of the node")
    .argument("<label>", "Name of the drain")
    .addOption(
      new Option("--drain-timeout <DURATION>", "Stop waiting after this long").argParser(duration),
    )
    .action((id: string, label: string, { drainTimeout }: { drainTimeout?: number }) =>
      run((context) => drainNode(context, { id, label, timeoutMs: drainTimeout ?? null })),
    );
  return program;
}

/** Runs one command line (without the program's own name); resolves to the exit code. */
export async function runProgram(
  args: readonly string[],
  environment: ProgramEnvironment,
): Promise<number> {
  const { terminal, clock, env, signal } = environment;
  const typed: Run[] = [];
  const program = makeCommands(environment, async (run) => {
    typed.push(run);
  });
  inheritSettings(program);
  try {
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode; // commander has printed its text
    throw error;
  }
  const [run] = typed;
  if (!run) return 0;
  const options: GlobalOptions = program.opts();
  return connectAndRun(run, options, { terminal, clock, env, signal });
}

/** Subcommands report as the program does instead of ending the process. */
function inheritSettings(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command).helpOption("-h, --help", "Print help information");
    inheritSettings(child);
  }
}

async function connectAndRun(
  run: Run,
  { rest: given, kubeConfigPath, namespace, output, timeout: timeoutMs }: GlobalOptions,
  { terminal, clock, env, signal }: Omit<ProgramEnvironment, "version">,
): Promise<number> {
  let context: CommandContext;
  try {
    const wanted = { rest: given, kubeConfigPath, namespace, timeoutMs, clock, env, signal };
    const rest = makeRestClient(await findEndpoint(wanted), { timeoutMs, clock, signal });
    context = {
      rest,
      printer: makePrinter(terminal, output),
      form: output,
      terminal,
      clock,
      signal,
    };
  } catch (error) {
    terminal.err(`Failed to initialise the REST client. Error ${errorMessage(error)}\n`);
    return 1;
  }
  try {
    await run(context);
    return 0;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    terminal.err(`${error.message}\n`);
    return 1;
  }
}
