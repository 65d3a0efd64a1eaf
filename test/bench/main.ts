/**
 * npm run bench: what the layers cost, measured side by side on this machine.
 * Every round measures each target with each workload, so that whatever disturbs the machine hits all
 * alike; figures are medians over the rounds, ratios are to the raw file in the same run.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { commandLine } from "#common/command_line.ts";
import { type Effort, fill, perf, requireProgram, type Sample, type Workload } from "./perf.ts";
import { Rig, type Target } from "./rig.ts";
import { median, spread, table } from "./stats.ts";

const HELP = `npm run bench -- [--quick] [--rounds N] [--runtime S] [--volume-mib N] [--poll] [--cores LIST]
  --quick       fewer workloads, shorter runs: a smoke test, not a measurement
  --rounds      alternating rounds, default 5
  --runtime     seconds per measurement, default 2
  --volume-mib  size of each target, default 512
  --poll        engines never sleep
  --cores       of the load generator, as in perf --cores, default any
`;

const KINDS = ["randread", "randwrite", "randrw"] as const;
const FULL: readonly Workload[] = [
  ...KINDS.flatMap((rw) =>
    [1, 32, 128].map((queueDepth) => ({
      name: `4 KiB ${rw === "randrw" ? "70/30" : rw} QD${queueDepth}`,
      rw,
      blockBytes: 4096,
      queueDepth,
    })),
  ),
  ...(["read", "write"] as const).map((rw) => ({
    name: `128 KiB seq ${rw} QD8`,
    rw,
    blockBytes: 128 * 1024,
    queueDepth: 8,
  })),
];
const QUICK_NAMES = /randread QD(1|32)$|randwrite QD32$|seq read/;

const { values } = commandLine({
  usage: `Usage: ${HELP}`,
  options: {
    quick: { type: "boolean", default: false },
    poll: { type: "boolean", default: false },
    rounds: { type: "string" },
    runtime: { type: "string" },
    "volume-mib": { type: "string" },
    cores: { type: "string", default: "any" },
  },
});

function positive(name: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  console.error(`--${name} must be a number above 0, not "${text}"`);
  process.exit(2);
}

interface Result {
  readonly target: string;
  readonly workload: string;
  readonly samples: readonly Sample[];
}

function machine(): Record<string, string | number> {
  const [cpu] = os.cpus();
  const build = path.resolve(import.meta.dirname, "../../build/release/CMakeCache.txt");
  const type = /^CMAKE_BUILD_TYPE:.*=(.*)$/m.exec(readFileSync(build, "utf8"))?.[1] ?? "unknown";
  return {
    cpu: cpu?.model ?? "unknown",
    cpus: os.cpus().length,
    memoryMiB: Math.round(os.totalmem() / 2 ** 20),
    kernel: os.release(),
    loadBefore: Number((os.loadavg()[0] ?? 0).toFixed(2)),
    node: process.version,
    build: type,
  };
}

async function measure(
  rig: Rig,
  workloads: readonly Workload[],
  rounds: number,
  effort: Effort,
): Promise<Result[]> {
  const collected = new Map<string, { target: Target; work: Workload; samples: Sample[] }>();
  for (let round = 1; round <= rounds; round++) {
    for (const work of workloads) {
      // Every other round backwards: nobody is always first.
      const order = round % 2 === 1 ? rig.targets : rig.targets.toReversed();
      for (const target of order) {
        process.stderr.write(`\rround ${round}/${rounds}: ${work.name}, ${target.name}\u001b[K`);
        const sample = await perf(target.uri, work, effort, rig.pids(target.engines));
        const key = `${work.name}|${target.name}`;
        const entry = collected.get(key) ?? { target, work, samples: [] };
        entry.samples.push(sample);
        collected.set(key, entry);
      }
    }
  }
  process.stderr.write("\r\u001b[K");
  const order = (name: string) => rig.targets.findIndex((target) => target.name === name);
  return [...collected.values()]
    .map(({ target, work, samples }) => ({ target: target.name, workload: work.name, samples }))
    .toSorted(
      (a, b) =>
        workloads.findIndex((w) => w.name === a.workload) -
          workloads.findIndex((w) => w.name === b.workload) || order(a.target) - order(b.target),
    );
}

function report(results: readonly Result[]): string {
  const head = ["target", "IOPS", "of raw", "p50 µs", "p99 µs", "p99.9 µs", "CPU s/M", "spread"];
  const blocks: string[] = [];
  for (const workload of new Set(results.map((result) => result.workload))) {
    const rows = results.filter((result) => result.workload === workload);
    const pick = (result: Result, of: (sample: Sample) => number) => median(result.samples.map(of));
    const raw = rows[0] ? pick(rows[0], (s) => s.iops) : Number.NaN;
    const lines = rows.map((row) => [
      row.target,
      pick(row, (s) => s.iops).toFixed(0),
      `${((100 * pick(row, (s) => s.iops)) / raw).toFixed(0)} %`,
      pick(row, (s) => s.p50).toFixed(0),
      pick(row, (s) => s.p99).toFixed(0),
      pick(row, (s) => s.p999).toFixed(0),
      `${pick(row, (s) => s.cpuServers).toFixed(1)}+${pick(row, (s) => s.cpuOwn).toFixed(1)}`,
      `${(100 * spread(row.samples.map((s) => s.iops))).toFixed(0)} %`,
    ]);
    blocks.push(`${workload}\n${table([head, ...lines])}`);
  }
  return `${blocks.join("\n\n")}\n\nCPU s/M: seconds per million I/Os of the engines + of the generator.`;
}

requireProgram();
const { quick } = values;
const rounds = Math.round(positive("rounds", values.rounds, quick ? 2 : 5));
const runtime = positive("runtime", values.runtime, quick ? 0.5 : 2);
const volumeMiB = Math.round(positive("volume-mib", values["volume-mib"], quick ? 64 : 512));
const parameters = { quick, poll: values.poll, rounds, runtime, volumeMiB, cores: values.cores };
const stamp = new Date().toISOString().replace(/[:.]/g, "-");
const folder = path.resolve(import.meta.dirname, "../../build/bench");
mkdirSync(folder, { recursive: true });
const about = machine();
console.log(`machine ${JSON.stringify(about)}\nparameters ${JSON.stringify(parameters)}\n`);

const rig = await Rig.start({
  folder: path.join(folder, `run-${stamp}`),
  volumeMiB,
  poll: values.poll,
});
const stop = () => {
  void rig.close().then(() => process.exit(130));
};
process.once("SIGINT", stop);
process.once("SIGTERM", stop);
try {
  // A nexus rounds its size down; the same part of every target is used.
  const bytes = (volumeMiB - 8) * 1024 * 1024;
  for (const target of rig.targets) {
    process.stderr.write(`\rfilling ${target.name}\u001b[K`);
    await fill(target.uri, bytes);
  }
  const workloads = quick ? FULL.filter((work) => QUICK_NAMES.test(work.name)) : FULL;
  const warmup = quick ? 0.1 : 0.3;
  const effort = { bytes, runtime, warmup, cores: values.cores };
  const results = await measure(rig, workloads, rounds, effort);
  console.log(report(results));
  const file = path.join(folder, `${stamp}.json`);
  writeFileSync(file, JSON.stringify({ machine: about, parameters, results }, null, 1));
  console.log(`\nsamples: ${path.relative(process.cwd(), file)}`);
} finally {
  await rig.close();
}
