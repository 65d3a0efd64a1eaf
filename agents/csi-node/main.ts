/** csi-node: the CSI node plugin. Attaches and mounts volumes; the node itself is its only state. */
import { tmpdir } from "node:os";
import path from "node:path";
import { systemClock } from "#common/clock.ts";
import { helpText, parseOptions } from "#common/config.ts";
import { VolumeGuard } from "#common/csi/guard.ts";
import { identityService, serveSocket } from "#common/csi/serve.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid, parseNodeId } from "#common/ids.ts";
import { createLog, type Log } from "#common/log.ts";
import { runMain, shutdownSignal } from "#common/process.ts";
import { systemRandom } from "#common/random.ts";
import { startServer } from "#common/rpc/grpc.ts";
import packageJson from "../../package.json" with { type: "json" };
import type { NodeContext } from "./context.ts";
import { Freezer, nodePluginService } from "./node_plugin.ts";
import { nvmeOperationsService } from "./nvme_operations.ts";
import { NODE_OPTIONS } from "./options.ts";
import { nodeService } from "./service.ts";
import { LinuxSystem, type NodeSystem } from "./system.ts";
import { restVolumes } from "./whereabouts.ts";

const IO_TIMEOUT = "/sys/module/nvme_core/parameters/io_timeout";
const PRODUCT_UUID = "/sys/class/dmi/id/product_uuid";
/** What programs get to end once the plugin is to stop: with the calls' 5 s less than the pod's 30 s. */
const PROGRAMS_MS = 20_000;
// Before anything is parsed, so that the log of the start has it too.
if (process.argv.some((arg) => arg === "--verbose" || /^-v+$/.test(arg))) {
  process.env["LOG_LEVEL"] = process.env["LOG_LEVEL"] === "trace" ? "trace" : "debug";
}
const log = createLog("csi-node");

/** Before the first connection; without the kernel's module the plugin still registers its node. */
async function applyIoTimeout(system: NodeSystem, seconds: number): Promise<void> {
  if ((await system.readText(IO_TIMEOUT)) === null) {
    log.warn("nvme_core is not loaded: its I/O timeout is not set", { file: IO_TIMEOUT });
    return;
  }
  await system.writeText(IO_TIMEOUT, String(seconds));
}

async function machineIdOf(system: NodeSystem, log: Log): Promise<string> {
  const found = (await system.readText(PRODUCT_UUID))?.toLowerCase() ?? "";
  if (isUuid(found)) return found;
  log.info("the machine has no uuid: one is made for this run", { file: PRODUCT_UUID });
  return systemRandom.uuid();
}

runMain(log, async () => {
  const options = parseOptions(NODE_OPTIONS, { args: process.argv.slice(2), env: process.env });
  if (options.help) {
    process.stdout.write(helpText("csi-node", NODE_OPTIONS));
    return;
  }
  if (options["node-name"] === null) {
    throw new SvcError("invalid-argument", "Cannot start: --node-name is missing");
  }
  const signal = shutdownSignal();
  const system = new LinuxSystem();
  const ioTimeout = options["nvme-core-io-timeout"];
  const rest = options["rest-endpoint"];
  if (ioTimeout !== null) await applyIoTimeout(system, ioTimeout);
  const context: NodeContext = {
    system,
    log,
    clock: systemClock,
    nodeName: parseNodeId(options["node-name"]),
    machineId: await machineIdOf(system, log),
    detourFolder: path.join(tmpdir(), "mayastor-csi-node"),
    readVolume: rest === null ? null : restVolumes(rest, systemClock),
    defaults: {
      nrIoQueues: options["nvme-nr-io-queues"],
      ctrlLossTmo: options["nvme-ctrl-loss-tmo"],
      keepAliveTmo: options["nvme-keep-alive-tmo"],
    },
  };
  const nodeSegments = options["node-selector"];
  const guard = new VolumeGuard();
  const node = nodeService({ context, guard, nodeSegments });
  const nvmeOperations = nvmeOperationsService(context);
  const identity = identityService({ version: packageJson.version, isReady: async () => true });
  const freezer = new Freezer({ context, guard });
  const plugin = (mayFreeze: boolean) => nodePluginService({ context, guard, freezer, mayFreeze });
  const csi = await serveSocket(options["csi-socket"], [
    ...[identity, node, nvmeOperations, plugin(true)],
  ]);
  // Not before the socket is ours: another instance's freezes are its own.
  const thawing = freezer.thawLeft();
  const own = await startServer(options["grpc-endpoint"], [plugin(options["network-freeze"])]);
  log.info("serving", { socket: options["csi-socket"], endpoint: options["grpc-endpoint"] });
  if (!signal.aborted) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  }
  await Promise.all([csi.close(), own.close(), thawing]);
  await freezer.close();
  await system.settled(PROGRAMS_MS);
  log.info("stopped");
});
