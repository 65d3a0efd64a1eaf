import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { makeInstall } from "./config.ts";
import { synthesize, toText } from "./snapshots.ts";
import { ownVersion } from "./version.ts";

const ROOT = path.resolve(import.meta.dirname, "..");

function folder(t: TestContext): string {
  const name = mkdtempSync(path.join(tmpdir(), "mayastor-synth-"));
  t.after(() => rmSync(name, { recursive: true }));
  return name;
}

/** Runs main.ts as cdk8s does: its output folder comes by environment. */
function synth(
  outdir: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
  main: readonly string[] = ["--import", "tsx", "infra/main.ts"],
) {
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    const child = execFile(
      process.execPath,
      [...main, ...args],
      { cwd: ROOT, env: { ...process.env, CDK8S_OUTDIR: outdir, ...env } },
      (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

/** It did, and had nothing to say but what an operator should know. */
function succeeded({ code, stdout, stderr }: Awaited<ReturnType<typeof synth>>): void {
  assert.equal(code, 0, stderr);
  assert.equal(stdout, "");
  for (const line of stderr.split("\n").slice(0, -1)) assert.match(line, /^notice: [a-z]/);
}

test("main.ts says which images it names and which ports stay open, until told better", async (t) => {
  const first = await synth(folder(t));
  succeeded(first);
  assert.match(first.stderr, /^notice: image\.registry is not set; .*localhost\/mayastor\//m);
  assert.match(first.stderr, /^notice: networkPolicies\.nodeCidrs is empty: /m);
  const told = "--set=image.registry=registry.example,networkPolicies.nodeCidrs={10.0.0.0/8}";
  assert.deepEqual(await synth(folder(t), [told]), { code: 0, stdout: "", stderr: "" });
});

test("main.ts writes one file for each chart, as synthesize() has them", async (t) => {
  const outdir = folder(t);
  succeeded(await synth(outdir));
  const wanted = synthesize(makeInstall({ version: ownVersion() }));
  assert.deepEqual(
    readdirSync(outdir).sort(),
    [...wanted.keys()].map((name) => `${name}.k8s.yaml`).sort(),
  );
  for (const [name, objects] of wanted) {
    assert.equal(readFileSync(path.join(outdir, `${name}.k8s.yaml`), "utf8"), toText(objects));
  }
});

test("synth.ts, which cdk8s.yaml names, does what main.ts does", async (t) => {
  const outdir = folder(t);
  const config = readFileSync(path.join(ROOT, "cdk8s.yaml"), "utf8");
  assert.match(config, /^app: node infra\/synth\.ts$/m);
  const main = ["infra/synth.ts"];
  const args = ["--profile=kind"];
  succeeded(await synth(outdir, args, {}, main));
  const wanted = synthesize(makeInstall({ profile: "kind", version: ownVersion() }));
  assert.equal(readdirSync(outdir).length, wanted.size);
  for (const [name, objects] of wanted) {
    assert.equal(readFileSync(path.join(outdir, `${name}.k8s.yaml`), "utf8"), toText(objects));
  }
  const failed = await synth(outdir, ["--profile=big"], {}, main);
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /^Cannot use --profile: .*\n$/);
});

/** Runs a program in a Node that says something of itself at its end. */
function atExit(expression: string, program: readonly string[], env: NodeJS.ProcessEnv) {
  const hook = `import module from "node:module"; process.on("exit", () => process.stdout.write(\`\\n\${${expression}}\`));`;
  const args = [`--import=data:text/javascript,${encodeURIComponent(hook)}`, ...program];
  return new Promise<string>((resolve, reject) => {
    execFile(process.execPath, args, { cwd: ROOT, env }, (error, stdout) =>
      error ? reject(error) : resolve(stdout.slice(stdout.lastIndexOf("\n") + 1)),
    );
  });
}

test("synth.ts keeps what Node compiled, so that the next run need not", async (t) => {
  const { NODE_COMPILE_CACHE: _ours, NODE_DISABLE_COMPILE_CACHE: _off, ...env } = process.env;
  const program = ["infra/synth.ts", `--outdir=${folder(t)}`];
  const kept = await atExit("module.getCompileCacheDir()", program, env);
  assert.ok(kept.startsWith(path.join(ROOT, "node_modules/.cache/synth/")), kept);
  assert.ok(readdirSync(kept).length > 0);
});

test("cdk8s's own program starts without a TypeScript compiler", async () => {
  const loaded =
    "Object.keys(module._cache).filter((name) => name.endsWith('/typescript.js')).length";
  const program = ["node_modules/cdk8s-cli/bin/cdk8s", "--version", "--no-check-upgrade"];
  assert.equal(await atExit(loaded, program, process.env), "0");
});

test("main.ts takes a profile, values files and single values, and removes what is not wanted any more", async (t) => {
  const outdir = folder(t);
  const values = path.join(outdir, "mine.yaml");
  writeFileSync(values, "etcd:\n  replicaCount: 3\n  image: registry.example/etcd:v9\n");
  writeFileSync(path.join(outdir, "35-loki.k8s.yaml"), "old\n");
  const args = [`--values=${values}`, "--set=etcd.replicaCount=5", "--release=blue"];
  succeeded(await synth(outdir, args, { MAYASTOR_PROFILE: "minimal" }));
  const files = readdirSync(outdir);
  assert.ok(files.includes("mine.yaml"));
  assert.ok(!files.includes("35-loki.k8s.yaml"));
  const etcd = readFileSync(path.join(outdir, "30-etcd.k8s.yaml"), "utf8");
  assert.match(etcd, /replicas: 5/);
  assert.match(etcd, /image: registry\.example\/etcd:v9/);
  assert.match(etcd, /name: blue-etcd/);
});

test("main.ts says what is wrong in one line, exits 1 and leaves the folder alone", async (t) => {
  const outdir = folder(t);
  writeFileSync(path.join(outdir, "30-etcd.k8s.yaml"), "old\n");
  for (const [args, message] of [
    [
      ["--set=etcd.replicaCount=2"],
      "Cannot use etcd.replicaCount=2: a quorum needs 1, 3 or 5 members",
    ],
    [["--profile=big"], 'Cannot use --profile: Cannot use profile "big"'],
    [["--values=/nonexistent.yaml"], "Cannot read values: ENOENT"],
    [["--bogus"], "Cannot read options: Unknown option '--bogus'"],
  ] as const) {
    const { code, stdout, stderr } = await synth(outdir, args);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.ok(stderr.startsWith(message), stderr);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  }
  assert.equal(readFileSync(path.join(outdir, "30-etcd.k8s.yaml"), "utf8"), "old\n");
});
