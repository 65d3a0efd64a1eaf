/** Runs the native load generator and reads its JSON; also the CPU time of other processes. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const program = path.resolve(import.meta.dirname, "..", "..", "build", "release", "perf");
const CLOCK_TICKS = 100; // USER_HZ: fixed in the Linux ABI
const GRACE_SECONDS = 60;

export interface Workload {
  readonly name: string;
  readonly rw: "randread" | "randwrite" | "randrw" | "read" | "write";
  readonly blockBytes: number;
  readonly queueDepth: number;
}

/** One measurement. Latencies in microseconds. */
export interface Sample {
  readonly iops: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  /** CPU seconds per million I/Os: of the generator, and of the processes that serve it. */
  readonly cpuOwn: number;
  readonly cpuServers: number;
}

interface PerfOutput {
  readonly iops: number;
  readonly p50_us: number;
  readonly p99_us: number;
  readonly p999_us: number;
  readonly cpu_seconds_per_million: number;
}

/** User and system CPU seconds a process used so far. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}

export interface Effort {
  readonly bytes: number;
  readonly runtime: number;
  readonly warmup: number;
  readonly cores: string;
}

export function requireProgram(): void {
  if (!existsSync(program)) throw new Error(`Cannot run ${program}: not built; run npm run build`);
}

export async function perf(
  uri: string,
  work: Workload,
  effort: Effort,
  serverPids: readonly number[],
): Promise<Sample> {
  const args = [
    ...["--uri", uri, "--rw", work.rw, "--bs", String(work.blockBytes)],
    ...["--qd", String(work.queueDepth), "--bytes", String(effort.bytes)],
    ...["--runtime", String(effort.runtime), "--warmup", String(effort.warmup)],
    ...["--cores", effort.cores, "--json"],
  ];
  const before = serverPids.map(cpuSeconds);
  const timeout = (effort.runtime + effort.warmup + GRACE_SECONDS) * 1000;
  const { stdout } = await run(program, args, { timeout });
  const used = serverPids.reduce((sum, pid, i) => sum + cpuSeconds(pid) - (before[i] ?? 0), 0);
  const out = JSON.parse(stdout) as PerfOutput; // our own tool's output
  const millions = (out.iops * (effort.runtime + effort.warmup)) / 1e6;
  return {
    iops: out.iops,
    p50: out.p50_us,
    p99: out.p99_us,
    p999: out.p999_us,
    cpuOwn: out.cpu_seconds_per_million,
    cpuServers: used / millions,
  };
}

/** Writes every block of the first `bytes` once, so that later reads find real data. */
export async function fill(uri: string, bytes: number): Promise<void> {
  const args = ["--uri", uri, "--rw", "read", "--bs", String(1 << 20), "--qd", "4"];
  await run(program, [
    ...[...args, "--bytes", String(bytes), "--verify", "--warmup", "0", "--runtime", "0.1"],
    "--json",
  ]);
}
