/**
 * The main job on one machine: three nodes, one volume with three replicas, a node lost while data is
 * written, every byte proved afterwards on each replica by itself.
 * Usage: npm run quickstart [-- --once] [-- --down] [-- --folder=DIR]
 *   --once  tear everything down at the end; exit 0 only if every check held
 *   --down  stop the cluster that an earlier run left up
 * Invariants: an interrupt before the end (Ctrl-C, SIGTERM, a closed terminal or pipe) ends with 130 and leaves no
 * process; every wait ends at an interrupt, so nothing goes on behind its back; a folder left by a killed run never
 * stops the next; files that are not the cluster's own are never removed.
 */
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { commandLine } from "#common/command_line.ts";
import type { Replica, Volume } from "#common/openapi/model.ts";
import { NexusRpc } from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { makeClient } from "#common/rpc/grpc.ts";
import { type EngineNode, LocalCluster, until } from "../cluster/local.ts";
import {
  bold,
  dim,
  elapsedSeconds,
  green,
  line,
  mib,
  ok,
  progress,
  red,
  scene,
  yellow,
} from "./show.ts";
import { differingMiB, digest, VerifyIo } from "./verify_io.ts";

const USAGE = `Usage: npm run quickstart [-- --once] [-- --down] [-- --folder=DIR]
  --once        tear everything down at the end; exit 0 only if every check held
  --down        stop the cluster that an earlier run left up
  --folder=DIR  a new or empty folder for its files, or that of an earlier run`;

const { values } = commandLine({
  usage: USAGE,
  options: {
    once: { type: "boolean", default: false },
    down: { type: "boolean", default: false },
    folder: {
      type: "string",
      default: path.join(os.tmpdir(), `mayastor-quickstart-${process.getuid?.() ?? 0}`),
    },
  },
});
const folder = path.resolve(values.folder);
const VOLUME = "ec4e66fd-3b33-4439-b504-d49aba53da26";
const VOLUME_BYTES = 256 * 1024 * 1024;
/** What the checks write to: the volume less the room that each replica keeps for itself. */
const AREA_BYTES = 248 * 1024 * 1024;
/** User data starts here on each replica. */
const REPLICA_DATA_OFFSET = 5 * 1024 * 1024;

const interrupted = new AbortController();
const signal = interrupted.signal;
const running: {
  /** true once the folder is known to be a cluster's own: from then on it is ours to remove */
  claimed: boolean;
  cluster: LocalCluster | null;
  writer: VerifyIo | null;
  uri: string;
} = { claimed: false, cluster: null, writer: null, uri: "" };

/** Ends what runs in the folder and removes it; says so when something in it is not ours. */
async function clear(): Promise<string[]> {
  const { ended, kept } = await LocalCluster.clear(folder, { keepOthers: true });
  if (kept.length > 0) line(`left in ${folder}, as no local cluster made it: ${kept.join(", ")}`);
  return ended;
}

async function tearDown(): Promise<void> {
  await running.cluster?.stop("SIGKILL");
  if (running.claimed) await clear();
}

function interrupt(): void {
  if (signal.aborted) return;
  console.log(`\n${yellow("interrupted")}: stopping everything`);
  interrupted.abort(new Error("interrupted"));
}
const INTERRUPTS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** From here on signals do what they always do. */
function releaseSignals(): void {
  for (const name of INTERRUPTS) process.off(name, interrupt);
}

const describe = (volume: Volume): string => {
  const text = volume.state.status;
  return text === "Online" ? green(text) : yellow(text);
};

const nexusClient = ({ address }: EngineNode) =>
  makeClient(NexusRpc, `${address}:10124`, { deadlineMs: 10_000 });
type NexusClient = ReturnType<typeof nexusClient>;

/**
 * The rebuild in per cent as the target's engine has it now; null when none runs. The volume's topology has it too, as old as
 * the control plane's last look.
 */
async function rebuildPercent(engine: NexusClient, volume: Volume): Promise<number | null> {
  const nexus = volume.state.target;
  const rebuilding = nexus?.children.find(({ rebuildProgress }) => rebuildProgress !== undefined);
  if (nexus === undefined || rebuilding === undefined) return null;
  const request = { nexusUuid: nexus.uuid, uri: rebuilding.uri };
  try {
    return Number((await engine.rpc.getRebuildStats(request, { signal })).progress);
  } catch {
    return null; // it has just ended
  }
}

async function start(): Promise<LocalCluster> {
  scene("1. A cluster of three nodes");
  const left = await clear();
  running.claimed = true;
  if (left.length > 0) line(`ended what an earlier run had left: ${left.join(", ")}`);
  const cluster = await LocalCluster.create({
    folder,
    engines: 3,
    diskMiB: 1024,
    coreArgs: ["--reconcile-period", "1s", "--reconcile-idle-period", "2s", "--cache-period", "2s"],
    signal,
  });
  running.cluster = cluster;
  await cluster.start(signal);
  ok(
    `etcd, agent-core, api-rest and three io-engines are up: ${cluster.nodes.map((n) => `${n.name} ${n.address}`).join(", ")}`,
  );
  await cluster.createPools(signal);
  ok(
    `a pool on each node: ${cluster.nodes.map((n) => n.pool).join(", ")} (${mib(1024 * 1024 * 1024)} each)`,
  );
  return cluster;
}

async function makeVolume({ rest, nodes }: LocalCluster): Promise<string> {
  scene("2. One volume, three replicas");
  await rest.createVolume(VOLUME, { size: VOLUME_BYTES, replicas: 3 });
  const volume = await rest.publish(VOLUME, nodes[0]?.name);
  const uri = volume.state.target?.deviceUri;
  if (!uri) throw new Error("The volume is published but has no device URI");
  ok(`volume ${VOLUME}: ${describe(volume)}, served by ${volume.state.target?.node}`);
  line(dim(uri));
  return uri;
}

interface LossFigures {
  readonly degradedAfterMs: number;
  readonly rebuild: string;
}

/** What the engine recorded of the last rebuild: kind, amount, rate. */
async function rebuildFigures(target: EngineNode, nexus: string): Promise<string> {
  const client = nexusClient(target);
  try {
    const { records } = await client.rpc.getRebuildHistory({ uuid: nexus }, { signal });
    const last = records.at(-1);
    if (!last?.startTime || !last.endTime) return "not recorded";
    const ms = timestampMs(last.endTime) - timestampMs(last.startTime);
    const copied = Number(last.blocksTransferred * last.blockSize);
    const total = Number(last.blocksTotal * last.blockSize);
    const rate = (copied / 1024 / 1024 / (Math.max(ms, 1) / 1000)).toFixed(0);
    const kind = last.isPartial
      ? `partial: ${mib(copied)} of ${mib(total)} copied, the segments written meanwhile`
      : `full: ${mib(copied)} copied`;
    return `${kind} in ${(ms / 1000).toFixed(1)} s, ${rate} MiB/s, under I/O`;
  } finally {
    client.close();
  }
}

/** Kills the engine of a replica while the writer runs, brings it back, waits for Online. */
async function loseANode(local: LocalCluster, victim: EngineNode): Promise<LossFigures> {
  scene(`3. Kill ${victim.name} while data is written`);
  const before = performance.now();
  await local.endEngine(victim, "SIGKILL");
  line(`${red("kill -9")} of ${victim.name}'s engine`);
  const degraded = await until(
    "the volume to be Degraded",
    async () => {
      const volume = await local.rest.volume(VOLUME);
      return volume.state.status === "Degraded" ? volume : null;
    },
    { seconds: 60, signal },
  );
  const degradedAfterMs = performance.now() - before;
  ok(`volume is ${describe(degraded)}; I/O goes on with two replicas`);
  await sleep(2000, undefined, { signal }); // let writes pile up that it misses
  local.startEngine(victim);
  line(`started ${victim.name}'s engine again: its pool is imported, its replica caught up`);
  const target = local.nodes[0];
  const engine = target && nexusClient(target);
  try {
    await until(
      "the volume to be Online again",
      async () => {
        const volume = await local.rest.volume(VOLUME);
        const percent = engine ? await rebuildPercent(engine, volume) : null;
        if (percent !== null) progress("rebuild", percent);
        return (
          volume.state.status === "Online" &&
          Object.keys(volume.state.replica_topology).length === 3
        );
      },
      { seconds: 240, everyMs: 50, signal },
    );
  } finally {
    engine?.close();
  }
  progress("rebuild", 100);
  ok(`volume is ${green("Online")} again, all three replicas healthy`);
  const nexus = degraded.state.target?.uuid;
  const rebuild = target && nexus ? await rebuildFigures(target, nexus) : "not recorded";
  return { degradedAfterMs, rebuild };
}

/** Reads everything back through the nexus, then from each replica without it. */
async function verify(local: LocalCluster, uri: string, journal: string): Promise<void> {
  scene("4. Verify every block, then each replica by itself");
  const through = await VerifyIo.run(["verify", "--uri", uri, "--journal", journal], signal);
  ok(`through the nexus: ${through.result?.reads ?? "?"} blocks hold what was acknowledged`);
  await local.rest.unpublish(VOLUME);
  const replicas: Replica[] = (await local.rest.replicas()).toSorted((a, b) =>
    a.node.localeCompare(b.node),
  );
  if (replicas.length !== 3) throw new Error(`Expected 3 replicas, found ${replicas.length}`);
  let first: string[] | null = null;
  for (const replica of replicas) {
    const replicaUri = await local.rest.shareReplica(replica);
    const args = ["--uri", replicaUri, "--offset-bytes", String(REPLICA_DATA_OFFSET)];
    await VerifyIo.run(["verify", ...args, "--journal", journal], signal);
    const found = await digest(replicaUri, AREA_BYTES, REPLICA_DATA_OFFSET, signal);
    first ??= found;
    const differs = differingMiB(first, found);
    if (differs.length > 0)
      throw new Error(`The replica on ${replica.node} differs in MiB ${differs.join(", ")}`);
    ok(`replica on ${replica.node}: every block right`);
    await local.rest.unshareReplica(replica);
  }
  ok(`the three replicas are identical, byte by byte, over ${mib(AREA_BYTES)}`);
}

function summary(local: LocalCluster, loss: LossFigures, write: VerifyIo, seconds: number): void {
  const result = write.events.findLast((event) => event.event === "result");
  const rows: [string, string][] = [
    ["acknowledged writes", `${result?.writes ?? "?"} of 4 KiB, none lost`],
    [
      "write rate",
      `${((result?.writes ?? 0) / seconds).toFixed(0)} a second at queue depth 16 (all processes share this machine)`,
    ],
    ["write latency", `p50 ${result?.p50_us ?? "?"} µs, p99 ${result?.p99_us ?? "?"} µs`],
    ["longest stall", `${result?.longest_stall_ms ?? "?"} ms, around the kill`],
    ["Degraded shown after", `${loss.degradedAfterMs.toFixed(0)} ms`],
    ["rebuild", loss.rebuild],
  ];
  for (const node of local.nodes) {
    const usage = local.usage(node.name);
    if (usage) rows.push([`${node.name} memory`, mib(usage.rssBytes)]);
  }
  scene("Summary");
  for (const [name, value] of rows) console.log(`  ${name.padEnd(22)} ${value}`);
}

async function run(): Promise<void> {
  const local = await start();
  const uri = await makeVolume(local);
  const journal = path.join(folder, "journal");
  const writeStarted = performance.now();
  const pattern = ["--seed", "2", "--qd", "16", "--read-percent", "20", "--retry-seconds", "60"];
  const area = ["--uri", uri, "--bytes", String(AREA_BYTES), "--journal", journal];
  const writer = new VerifyIo(["write", ...area, ...pattern], { signal });
  running.writer = writer;
  await sleep(3000, undefined, { signal }); // some healthy seconds first
  line(`writing and reading back a seeded pattern through NVMe/TCP`);
  const victim = local.nodes[2];
  if (!victim) throw new Error("The cluster has fewer than three nodes");
  const loss = await loseANode(local, victim);
  writer.stop();
  const written = await writer.finished;
  signal.throwIfAborted();
  if (written.code !== 0)
    throw new Error(`The writer failed: ${JSON.stringify(written.result)} ${written.stderr}`);
  const seconds = (performance.now() - writeStarted) / 1000;
  ok(`writer stopped after ${written.result?.writes ?? "?"} acknowledged writes, no I/O error`);
  await verify(local, uri, journal);
  const again = await local.rest.publish(VOLUME, local.nodes[0]?.name);
  running.uri = again.state.target?.deviceUri ?? uri;
  summary(local, loss, writer, seconds);
}

/** With the folder, unless it is the default. */
function downCommand(): string {
  const where = process.argv.some((arg) => arg.startsWith("--folder")) ? ` --folder=${folder}` : "";
  return `npm run quickstart -- --down${where}`;
}

function nextCommands(local: LocalCluster): void {
  const plugin = `plugin/kubectl-mayastor -r ${local.rest.url}`;
  console.log(`
${bold("The cluster stays up. Try next:")}
  ${plugin} get volumes
  ${plugin} get volume-replica-topology ${VOLUME}
  ${plugin} get nodes
  ${plugin} scale volume ${VOLUME} 2
  curl -s ${local.rest.url}/v0/pools
  build/release/perf --uri ${running.uri} --rw randread --qd 32
  ${downCommand()}      ${dim("stops it and removes its files")}
${dim(`logs and disks: ${folder}`)}`);
}

if (values.down) {
  try {
    const ended = await clear();
    console.log(ended.length > 0 ? `stopped: ${ended.join(", ")}` : "nothing was running");
  } catch (error) {
    console.error(`${red("failed")}: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
} else {
  for (const name of INTERRUPTS) process.on(name, interrupt);
  // The terminal or the reader of a pipe has gone: the same, and no crash that would leave the processes.
  process.stdout.on("error", interrupt);
  process.stderr.on("error", interrupt);
  try {
    await run();
    signal.throwIfAborted();
    if (!values.once) releaseSignals();
    console.log(`\n${green("Every check held")} in ${elapsedSeconds().toFixed(0)} s.`);
    if (values.once) await tearDown();
    else if (running.cluster) nextCommands(running.cluster);
  } catch (error) {
    running.writer?.kill(); // it would write, and keep this process, for ever
    const stays = !signal.aborted && !values.once;
    if (stays) releaseSignals();
    if (!signal.aborted) {
      const explained = running.cluster?.explain(error) ?? error;
      console.error(
        `\n${red("failed")}: ${explained instanceof Error ? explained.message : String(explained)}`,
      );
    }
    if (!stays) await tearDown();
    else if (running.cluster)
      console.error(`The cluster is left as it is; logs: ${folder}/log. End it: ${downCommand()}`);
    process.exitCode = signal.aborted ? 130 : 1;
  }
}
