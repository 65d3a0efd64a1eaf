#!/usr/bin/env tsx
/**
 * The checks of this repository as named steps, so that a laptop and a CI machine run the same ones.
 * Usage: hack/ci.ts <step> [...]   hack/ci.ts --list   hack/ci.ts all
 * Invariant: a step either ran and passed, ran and failed, or was skipped with its reason printed.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";

const root = path.resolve(import.meta.dirname, "..");
const env = {
  ...process.env,
  PATH: `${root}/node_modules/.bin:${process.env["PATH"] ?? ""}`,
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
interface Step {
  readonly name: string;
  readonly what: string;
  readonly commands: readonly string[];
  readonly skip?: Skip;
  /** Runs only when asked for by its name; says why it is not among the others. */
  readonly byName?: string;
  readonly minutesMax: number;
}

const nativeBuild = (kind: string, options: string): string[] => [
  `test -e build/${kind}/build.ninja || cmake -S engine/native -B build/${kind} -G Ninja -DMAYASTOR_TESTS=ON ${options} > build-${kind}.log || { cat build-${kind}.log; exit 1; }; rm -f build-${kind}.log`,
  `ninja -C build/${kind} | tail -40; exit \${PIPESTATUS[0]}`,
];
const nodeTest = (globs: string, extra = ""): string =>
  `node --import tsx --test --test-reporter=spec ${extra} ${globs}`;

const BY_NAME =
  "takes as long as all others together and builds Kubernetes once; run `npm test -- images kube`";

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
    commands: [
      "git ls-files -co --exclude-standard 'engine/native/*.h' 'engine/native/*.cc' | xargs clang-format --dry-run -Werror",
    ],
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
    commands: ["tsx hack/tidy.ts"],
    minutesMax: 2,
  },
  {
    name: "gen",
    what: "generated files are up to date",
    commands: ["tsx hack/gen/main.ts --check"],
    minutesMax: 2,
  },
  {
    name: "unit",
    what: "TypeScript unit tests beside the code",
    commands: [
      nodeTest(
        "'agents/**/*_test.ts' 'engine/ts/**/*_test.ts' 'plugin/**/*_test.ts' 'infra/**/*_test.ts' 'scripts/**/*_test.ts' 'hack/**/*_test.ts' 'test/support/**/*_test.ts'",
      ),
    ],
    minutesMax: 15,
  },
  {
    name: "native-asan",
    what: "native tests, simulation and fuzz replay under ASan + UBSan",
    commands: [
      ...nativeBuild("asan", "-DMAYASTOR_SANITIZE=address"),
      "ctest --test-dir build/asan --output-on-failure --timeout 600",
    ],
    minutesMax: 30,
  },
  {
    name: "native-tsan",
    what: "native tests under TSan (cross-core messages)",
    commands: [
      ...nativeBuild("tsan", "-DMAYASTOR_SANITIZE=thread"),
      // Fuzz replay is single-threaded and ran under ASan.
      "ctest --test-dir build/tsan --output-on-failure --timeout 600 -E _fuzz",
    ],
    minutesMax: 30,
  },
  {
    name: "integration",
    what: "real etcd, real engines on files, real processes",
    commands: [nodeTest("'test/integration/**/*_test.ts'", "--test-concurrency=1")],
    minutesMax: 20,
  },
  {
    name: "quickstart",
    what: "the main job, end to end, torn down afterwards",
    commands: ["tsx hack/quickstart/main.ts --once"],
    minutesMax: 6,
  },
  {
    name: "kernel-initiator",
    what: "a stock Debian kernel in QEMU against our target",
    commands: [nodeTest("'test/e2e/**/*_test.ts'", "--test-concurrency=1")],
    minutesMax: 20,
  },
  {
    name: "images",
    what: "container images from this checkout",
    commands: [
      "bash hack/setup.sh kube",
      "tsx hack/images/main.ts",
      nodeTest("'test/images/**/*_test.ts'"),
    ],
    byName: BY_NAME,
    minutesMax: 30,
  },
  {
    name: "kube",
    what: "a real API server, and the installation on three real nodes",
    commands: [
      "bash hack/setup.sh kube",
      nodeTest("'test/kube/**/*_test.ts'", "--test-concurrency=1"),
    ],
    byName: BY_NAME,
    minutesMax: 60,
  },
];

interface Outcome {
  readonly step: Step;
  readonly result: "passed" | "failed" | "skipped";
  readonly seconds: number;
  readonly reason?: string;
}

function run(command: string, minutesMax: number): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn("bash", ["-c", command], {
      cwd: root,
      env,
      stdio: ["ignore", "inherit", "inherit"],
      detached: true,
    });
    const stop = (signal: NodeJS.Signals) => {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    };
    const timer = setTimeout(() => {
      console.error(`step ran longer than its ${minutesMax} minutes: ending it`);
      stop("SIGTERM");
      setTimeout(() => child.exitCode === null && stop("SIGKILL"), 10_000).unref();
    }, minutesMax * 60_000);
    const forward = () => stop("SIGTERM");
    process.once("SIGINT", forward);
    process.once("SIGTERM", forward);
    child.once("close", (code) => {
      clearTimeout(timer);
      process.off("SIGINT", forward);
      process.off("SIGTERM", forward);
      resolve(code ?? 1);
    });
  });
}

/** Runs one step; a failing command ends it. */
export async function runStep(step: Step, asked = true): Promise<Outcome> {
  const reason = (asked ? null : step.byName) ?? step.skip?.() ?? null;
  if (reason !== null) return { step, result: "skipped", seconds: 0, reason };
  const start = performance.now();
  for (const command of step.commands) {
    const code = await run(command, step.minutesMax);
    if (code !== 0) {
      const seconds = (performance.now() - start) / 1000;
      return { step, result: "failed", seconds, reason: `exit ${code}: ${command}` };
    }
  }
  return { step, result: "passed", seconds: (performance.now() - start) / 1000 };
}

/**
 * Runs steps in order, all of them even after a failure; prints a table and the closing line.
 * Without names: every step but those that want to be asked for, which are shown as skipped.
 */
export async function runSteps(asked: readonly string[]): Promise<boolean> {
  const names = asked.length > 0 ? asked : steps.map((step) => step.name);
  const wanted = names.map((name) => {
    const step = steps.find((candidate) => candidate.name === name);
    if (!step)
      throw new Error(`No step "${name}"; there are: ${steps.map((s) => s.name).join(", ")}`);
    return step;
  });
  const outcomes: Outcome[] = [];
  for (const step of wanted) {
    console.log(`\n=== ${step.name}: ${step.what}`);
    const outcome = await runStep(step, asked.length > 0);
    outcomes.push(outcome);
    if (outcome.result !== "passed")
      console.log(`=== ${step.name} ${outcome.result}: ${outcome.reason}`);
  }
  console.log(`\n${availableParallelism()} cores, Node ${process.version}`);
  for (const { step, result, seconds, reason } of outcomes) {
    console.log(
      `  ${result.padEnd(7)} ${step.name.padEnd(18)} ${seconds.toFixed(1).padStart(7)} s  ${reason ?? ""}`,
    );
  }
  const count = (result: Outcome["result"]) => outcomes.filter((o) => o.result === result).length;
  console.log(
    `\n${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped`,
  );
  return count("failed") === 0;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  if (!existsSync(path.join(root, "node_modules")))
    throw new Error("Run `npm test` once first: it installs what is needed");
  if (args.length === 0 || args.includes("--list")) {
    for (const step of steps) console.log(`${step.name.padEnd(18)} ${step.what}`);
  } else {
    process.exitCode = (await runSteps(args.includes("all") ? [] : args)) ? 0 : 1;
  }
}
