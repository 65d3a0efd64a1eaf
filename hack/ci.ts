/**
 * The checks of this repository as named steps, so that a laptop and a CI machine run the same ones.
 * Usage: hack/ci.ts <step> [...]   hack/ci.ts --list   hack/ci.ts all
 * Invariants: a step either ran and passed, ran and failed, or was skipped with its reason printed; so is
 * each test that a step's programs skipped by themselves.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { commandLine } from "#common/command_line.ts";
import { haveKubeBinaries } from "./cluster/kube/binaries.ts";
import { cacheFolder as imagesFolder } from "./images/cache.ts";
import { type InnerSkip, readSkips, skipLines } from "./skips.ts";

const root = path.resolve(import.meta.dirname, "..");
const env = {
  ...process.env,
  // A root shell that `su` made knows no sbin, where depmod, mkfs and sshd are.
  PATH: `${root}/node_modules/.bin:${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`,
  // Set inside a test, where it would keep a step's own test runner from running any file.
  NODE_TEST_CONTEXT: undefined,
  // ccache (where there is one) finds objects of other clones: paths count from this root.
  CCACHE_BASEDIR: root,
  CCACHE_NOHASHDIR: "1",
  GTEST_BRIEF: "1",
  UBSAN_OPTIONS: "print_stacktrace=1",
  // No ptrace: LeakSanitizer works under any supervisor that CI uses except a tracer.
  ASAN_OPTIONS: "detect_leaks=1",
};

/** `null`: may run. Otherwise why this machine cannot. */
type Skip = () => string | null;
export interface Step {
  readonly name: string;
  readonly what: string;
  /** One after the other; those of an inner list side by side, each with a loopback network of its own. */
  readonly commands: readonly (string | readonly string[])[];
  readonly skip?: Skip;
  /** Minutes that it may take now; in a run of all steps it is left out when there is not that much left. */
  readonly needs?: () => number;
  /** A run of all steps leaves it out and says this. */
  readonly onlyByName?: string;
  readonly minutesMax: number;
}

/** What one compiler of a test file with sanitizers may take. */
const COMPILER_BYTES = 1.5 * 2 ** 30;
const compilers = Math.max(
  1,
  Math.min(availableParallelism(), Math.floor(process.availableMemory() / COMPILER_BYTES)),
);

const nativeBuild = (kind: string, options: string): string[] => [
  `test -e build/${kind}/build.ninja || cmake -S engine/native -B build/${kind} -G Ninja -DMAYASTOR_TESTS=ON ${options} > build-${kind}.log || { cat build-${kind}.log; exit 1; }; rm -f build-${kind}.log`,
  // A line for each file: a CI that ends what says nothing for long sees that it goes on.
  `ninja -C build/${kind} -j ${compilers}`,
];

/**
 * Sanitizers of g++ 12 need their shadow memory free, which a kernel that places mappings by more than
 * 28 random bits doesn't leave: so without randomness where that may be asked for.
 */
const MMAP_RANDOM_BITS_MAX = 28;
const unrandomized = () => spawnSync("setarch", ["-R", "true"]).status === 0;
const mayRunSanitizers: Skip = () => {
  const file = "/proc/sys/vm/mmap_rnd_bits";
  const bits = existsSync(file) ? Number(readFileSync(file, "utf8")) : 0;
  if (bits <= MMAP_RANDOM_BITS_MAX || unrandomized()) return null;
  return `vm.mmap_rnd_bits is ${bits} and setarch -R is not allowed here: sanitizers need sysctl vm.mmap_rnd_bits=${MMAP_RANDOM_BITS_MAX} (or a container with --privileged)`;
};
const sanitized = (command: string): string =>
  `if setarch -R true 2>/dev/null; then setarch -R ${command}; else ${command}; fi`;

/** The layout is that of Debian 12's clang-format; others break lines elsewhere. */
const CLANG_FORMAT = "14";
const otherClangFormat: Skip = () => {
  const { stdout } = spawnSync("clang-format", ["--version"], { encoding: "utf8", env });
  const version = /version (\d+)/.exec(stdout ?? "")?.[1];
  // None at all: the step fails and says so.
  return version === undefined || version === CLANG_FORMAT
    ? null
    : `clang-format is version ${version} here; the layout is that of version ${CLANG_FORMAT}`;
};

const noGuestKernel: Skip = () => {
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  if (!/^ID="?debian"?$/m.test(release))
    return "the guest boots Debian's kernel package, and this system has other packages: run it in Debian (a container will do)";
  return process.arch === "x64"
    ? null
    : `the guest is x86-64, and packages here are ${process.arch}`;
};

const cores = availableParallelism();
const FEW_SEEDS = "NEXUS_SIM_SEEDS=10 MAYASTOR_CRASH_SEEDS=10";

/** Its skipped tests go to a file of the step's own: see skips.ts. */
export const nodeTest = (globs: string, extra = ""): string =>
  `node --import tsx --test --test-reporter=spec --test-reporter-destination=stdout --test-reporter=./hack/skip_reporter.ts --test-reporter-destination="$MAYASTOR_SKIPS/$$.jsonl" ${extra} ${globs}`;

/** One after another, in a guest of that kernel. */
const guestTest = (kernel: "oldest" | "newest", ...tests: readonly string[]): string =>
  `export MAYASTOR_GUEST_KERNEL=${kernel}; ${nodeTest(tests.map((name) => `test/e2e/${name}_test.ts`).join(" "), "--test-concurrency=1")}`;

/** What a run of all steps may take: with the set-up before it, it has to end within 90 minutes. */
const RUN_MINUTES_MAX = 75;
const imagesNeed = () => (existsSync(imagesFolder()) ? 10 : 20);
/** Kubernetes itself is built where the cache has none. */
const kubeNeeds = () => (haveKubeBinaries() ? 25 : 45);
const noRoom = ({ needs }: Step, elapsedMinutes: number): string | null =>
  needs === undefined || elapsedMinutes + needs() <= RUN_MINUTES_MAX
    ? null
    : `it may take ${needs()} minutes, and ${Math.ceil(elapsedMinutes)} of the ${RUN_MINUTES_MAX} that a whole run has are gone; next: npm test -- images kube`;

export const steps: readonly Step[] = [
  {
    name: "format",
    what: "Biome formatting and lint",
    commands: ["biome check --error-on-warnings ."],
    minutesMax: 2,
  },
  {
    name: "format-native",
    what: "clang-format",
    commands: ["node --import tsx hack/format_native.ts"],
    skip: otherClangFormat,
    minutesMax: 2,
  },
  {
    name: "lint",
    what: "type-aware lint: promises, exhaustive switches",
    commands: ["oxlint --type-aware --deny-warnings"],
    minutesMax: 3,
  },
  { name: "types", what: "TypeScript", commands: ["tsc -p ."], minutesMax: 4 },
  {
    name: "tidy",
    what: "own rules: import direction, banned calls, headers, words",
    commands: ["node --import tsx hack/tidy.ts"],
    minutesMax: 2,
  },
  {
    name: "gen",
    what: "generated files are up to date",
    commands: ["node --import tsx hack/gen/main.ts --check"],
    minutesMax: 2,
  },
  {
    name: "unit",
    what: "TypeScript unit tests beside the code",
    commands: [
      nodeTest(
        "'agents/**/*_test.ts' 'engine/ts/**/*_test.ts' 'plugin/**/*_test.ts' 'infra/**/*_test.ts' 'scripts/**/*_test.ts' 'hack/**/*_test.ts' 'test/support/**/*_test.ts'",
        `--test-concurrency=${cores}`,
      ),
    ],
    minutesMax: 20,
  },
  {
    name: "native-asan",
    what: "native tests, simulation and fuzz replay under ASan + UBSan",
    commands: [
      ...nativeBuild("asan", "-DMAYASTOR_SANITIZE=address"),
      sanitized(`ctest --test-dir build/asan --output-on-failure --timeout 600 -j ${cores}`),
    ],
    skip: mayRunSanitizers,
    minutesMax: 30,
  },
  {
    name: "native-tsan",
    what: "native tests under TSan (cross-core messages)",
    commands: [
      ...nativeBuild("tsan", "-DMAYASTOR_SANITIZE=thread"),
      // Fuzz replay is single-threaded and ran under ASan; so did the simulations, with all their seeds.
      `export ${FEW_SEEDS}; ${sanitized(`ctest --test-dir build/tsan --output-on-failure --timeout 600 -E _fuzz -j ${cores}`)}`,
    ],
    skip: mayRunSanitizers,
    minutesMax: 30,
  },
  {
    name: "integration",
    what: "real etcd, real engines on files, real processes",
    // Half of each test is waiting: two at once, each with addresses and ports of its own.
    commands: [nodeTest("'test/integration/**/*_test.ts'", "--test-concurrency=2")],
    minutesMax: 30,
  },
  {
    name: "hostile-long",
    what: "hostile hosts beside an honest one, a minute for each kind",
    commands: [
      `export MAYASTOR_HOSTILE_SECONDS=60; ${nodeTest("test/integration/hostile_hosts_test.ts")}`,
    ],
    onlyByName: "integration has a few seconds of each; a minute of each: npm test -- hostile-long",
    minutesMax: 30,
  },
  {
    name: "quickstart",
    what: "the main job, end to end, torn down afterwards",
    commands: ["node --import tsx hack/quickstart/main.ts --once"],
    minutesMax: 6,
  },
  {
    name: "kernel-initiator",
    what: "the oldest and the newest of Debian's kernels in QEMU against our target",
    commands: [
      "node --import tsx test/support/vm/fetch.ts", // the guests have no way out
      // The guest reaches one address of the host, and the product's ports there. What depends on the kernel most runs on
      // the newest too.
      [
        guestTest("oldest", "csi_guest", "serving_engine"),
        guestTest("oldest", "kernel_initiator", "node_prep_guest"),
      ],
      [
        guestTest("newest", "serving_engine", "kernel_initiator"),
        guestTest("newest", "stale_node"),
      ],
    ],
    skip: noGuestKernel,
    minutesMax: 20,
  },
  {
    name: "kernel-long",
    what: "every guest test on the kernel that kernel-initiator leaves out for it",
    commands: [
      "node --import tsx test/support/vm/fetch.ts",
      [guestTest("newest", "csi_guest", "node_prep_guest"), guestTest("oldest", "stale_node")],
    ],
    skip: noGuestKernel,
    onlyByName:
      "kernel-initiator runs each guest test on one of two kernels at least; the rest: npm test -- kernel-long",
    minutesMax: 30,
  },
  {
    name: "images",
    what: "container images from this checkout",
    commands: [
      "bash hack/setup.sh kube",
      "node --import tsx hack/images/main.ts",
      nodeTest("'test/images/**/*_test.ts'"),
    ],
    needs: imagesNeed,
    minutesMax: 30,
  },
  {
    name: "kube",
    what: "a real API server, and the installation on three real nodes",
    commands: [
      "bash hack/setup.sh kube",
      // Clusters and control planes keep out of each other's way, and wait more than they work.
      nodeTest("'test/kube/**/*_test.ts'", "--test-concurrency=2"),
    ],
    needs: kubeNeeds,
    minutesMax: 45,
  },
];

export interface Outcome {
  readonly step: Step;
  readonly result: "passed" | "failed" | "skipped";
  readonly seconds: number;
  readonly reason?: string;
  /** Tests that the step's programs left out by themselves. */
  readonly skips: readonly InnerSkip[];
}

interface RunOptions {
  readonly minutesMax: number;
  /** Folder for what its tests skip. */
  readonly skips: string;
  /** With a network of its own, in which there is only loopback. */
  readonly apart?: boolean;
  /** Where its output goes; absent: to ours. */
  readonly output?: number;
}

/** Between SIGTERM and SIGKILL of a command that ran too long. */
const GRACE_MS = 10_000;
/** Set once a signal asked this program to end: what runs is told to end, and nothing further begins. */
let interrupted = false;

/** Signals a process group; false: nobody of it is left. */
function signalGroup(leader: number | undefined, signal: NodeJS.Signals | 0): boolean {
  try {
    return leader !== undefined && process.kill(-leader, signal);
  } catch {
    return false;
  }
}

function run(command: string, options: RunOptions): Promise<number> {
  const { minutesMax, skips, apart = false, output = "inherit" } = options;
  return new Promise((resolve) => {
    const [program, args] = apart
      ? ["unshare", ["--net", "bash", "-c", `ip link set lo up && ${command}`]]
      : ["bash", ["-c", command]];
    const child = spawn(program, args, {
      cwd: root,
      env: { ...env, MAYASTOR_SKIPS: skips, GTEST_OUTPUT: `xml:${skips}/` },
      stdio: ["ignore", output, output],
      detached: true,
    });
    const stop = (signal: NodeJS.Signals | 0) => signalGroup(child.pid, signal);
    let grace: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      console.error(`step ran longer than its ${minutesMax} minutes: ending it`);
      stop("SIGTERM");
      grace = setTimeout(() => stop("SIGKILL"), GRACE_MS).unref();
    }, minutesMax * 60_000);
    // Each time: a second signal must not end us alone and leave the commands behind.
    const forward = () => {
      interrupted = true;
      stop("SIGTERM");
    };
    process.on("SIGINT", forward);
    process.on("SIGTERM", forward);
    child.once("close", (code) => {
      clearTimeout(timer);
      if (!stop(0)) clearTimeout(grace); // its number may be another's by then
      process.off("SIGINT", forward);
      process.off("SIGTERM", forward);
      resolve(code ?? 1);
    });
  });
}

const mayUnshare = (): boolean => spawnSync("unshare", ["--net", "true"]).status === 0;

/** Runs commands at once; the output of the first is seen as it comes, that of the others when they have ended. */
async function runBeside(
  commands: readonly string[],
  options: Omit<RunOptions, "apart" | "output">,
): Promise<{ readonly command: string; readonly code: number }[]> {
  if (!mayUnshare()) {
    const outcomes = [];
    for (const command of commands) {
      if (interrupted) break;
      outcomes.push({ command, code: await run(command, options) });
    }
    return outcomes;
  }
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-output-"));
  try {
    const fileOf = (index: number) => path.join(folder, String(index));
    const outcomes = await Promise.all(
      commands.map(async (command, index) => {
        const output = index === 0 ? null : openSync(fileOf(index), "w");
        const more = output === null ? { apart: true } : { apart: true, output };
        const code = await run(command, { ...options, ...more });
        if (output !== null) closeSync(output);
        return { command, code };
      }),
    );
    for (const index of commands.keys())
      if (index > 0) process.stdout.write(readFileSync(fileOf(index)));
    return outcomes;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Runs one step; a failing command ends it.
 * @param elapsedMinutes of a run of all steps; null for a step that was asked for by its name
 */
export async function runStep(step: Step, elapsedMinutes: number | null = null): Promise<Outcome> {
  const room = elapsedMinutes === null ? null : (step.onlyByName ?? noRoom(step, elapsedMinutes));
  const reason = room ?? step.skip?.() ?? null;
  if (reason !== null) return { step, result: "skipped", seconds: 0, reason, skips: [] };
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-skips-"));
  try {
    const start = performance.now();
    let failure: string | undefined;
    for (const command of step.commands) {
      const options = { minutesMax: step.minutesMax, skips: folder };
      const outcomes =
        typeof command === "string"
          ? [{ command, code: await run(command, options) }]
          : await runBeside(command, options);
      const failed = outcomes.filter(({ code }) => code !== 0);
      if (failed.length === 0 && !interrupted) continue;
      const ends = failed.map(({ code, command }) => `exit ${code}: ${command}`).join("; ");
      failure = interrupted ? `interrupted${ends && ` (${ends})`}` : ends;
      break;
    }
    const seconds = (performance.now() - start) / 1000;
    const skips = readSkips(folder);
    return failure === undefined
      ? { step, result: "passed", seconds, skips }
      : { step, result: "failed", seconds, skips, reason: failure };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What ran and what didn't, for a person: a line a step, what it left out below it, and the sums. */
export function table(outcomes: readonly Outcome[]): string[] {
  const count = (result: Outcome["result"]) => outcomes.filter((o) => o.result === result).length;
  const inner = outcomes.reduce((sum, { skips }) => sum + skips.length, 0);
  return [
    ...outcomes.flatMap(({ step, result, seconds, reason, skips }) => [
      `  ${result.padEnd(7)} ${step.name.padEnd(18)} ${seconds.toFixed(1).padStart(7)} s  ${reason ?? ""}`.trimEnd(),
      ...skipLines(skips).map((line) => `${" ".repeat(10)}${line}`),
    ]),
    "",
    `${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped${inner > 0 ? `; ${inner} tests within them not run` : ""}`,
  ];
}

/**
 * Runs steps in order, all of them even after a failure; prints a table and the closing line. SIGINT and SIGTERM end it:
 * the commands under way first.
 * Without names: every step; one for which there is no time left is shown as skipped.
 */
export async function runSteps(
  asked: readonly string[],
  known: readonly Step[] = steps,
): Promise<boolean> {
  const names = asked.length > 0 ? asked : known.map((step) => step.name);
  const wanted = names.map((name) => {
    const step = known.find((candidate) => candidate.name === name);
    if (!step)
      throw new Error(`No step "${name}"; there are: ${known.map((s) => s.name).join(", ")}`);
    return step;
  });
  const outcomes: Outcome[] = [];
  for (const step of wanted) {
    console.log(`\n=== ${step.name}: ${step.what}`);
    const outcome = await runStep(step, asked.length > 0 ? null : performance.now() / 60_000);
    outcomes.push(outcome);
    if (outcome.result !== "passed")
      console.log(`=== ${step.name} ${outcome.result}: ${outcome.reason}`);
    if (interrupted) break;
  }
  console.log(`\n${availableParallelism()} cores, Node ${process.version}`);
  console.log(table(outcomes).join("\n"));
  return outcomes.every(({ result }) => result !== "failed");
}

/** What to tell who asked for a step that there is not; null: all are there. */
export function wrongStep(names: readonly string[]): string | null {
  const wrong = names.find((name) => !steps.some((step) => step.name === name));
  return wrong === undefined
    ? null
    : `Cannot start: no step "${wrong}"; there are: ${steps.map(({ name }) => name).join(", ")}`;
}

const USAGE = "Usage: hack/ci.ts STEP [...] | all | --list";

if (import.meta.main) {
  const { values, positionals } = commandLine({
    usage: USAGE,
    options: { list: { type: "boolean", default: false } },
    positionalsMax: Number.POSITIVE_INFINITY,
  });
  if (!existsSync(path.join(root, "node_modules")))
    throw new Error("Run `npm test` once first: it installs what is needed");
  const wrong = wrongStep(positionals.filter((name) => name !== "all"));
  if (wrong !== null) {
    console.error(wrong);
    process.exitCode = 2;
  } else if (positionals.length === 0 || values.list) {
    for (const step of steps) console.log(`${step.name.padEnd(18)} ${step.what}`);
  } else {
    process.exitCode = (await runSteps(positionals.includes("all") ? [] : positionals)) ? 0 : 1;
  }
}
