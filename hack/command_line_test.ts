/** Every program that people start by hand, started as they do: `--help` and a wrong option never begin anything. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { checkoutFiles } from "./files.ts";

const root = path.resolve(import.meta.dirname, "..");
const PROGRAMS = [
  "hack/ci.ts",
  "hack/cluster/kube/main.ts",
  "hack/e2e/main.ts",
  "hack/format_native.ts",
  "hack/gen/main.ts",
  "hack/images/main.ts",
  "hack/images/release.ts",
  "hack/quickstart/main.ts",
  "hack/test.ts",
  "hack/tidy.ts",
  "infra/main.ts",
  "infra/snapshot.ts",
  "plugin/build.ts",
  "plugin/main.ts",
  "scripts/node-prep/main.ts",
  "test/bench/main.ts",
  ...["core", "csi-controller", "csi-node", "diskpool-operator", "metrics-exporter", "rest"].map(
    (agent) => `agents/${agent}/main.ts`,
  ),
  "engine/ts/main.ts",
];
const SECONDS_MAX = 60;

function start(command: string, args: readonly string[]) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    const child = execFile(
      command,
      args,
      // Not in the repository, and with the system's PATH: where a user is.
      { cwd: "/", timeout: SECONDS_MAX * 1000, env: { ...process.env, NODE_OPTIONS: "" } },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

test("the list has every program of the repository", () => {
  const started = checkoutFiles(root).filter(
    (file) => /(^|\/)main\.ts$/.test(file) && existsSync(path.join(root, file)),
  );
  assert.deepEqual(
    started.filter((file) => !PROGRAMS.includes(file)),
    [],
  );
});

for (const program of PROGRAMS) {
  test(`${program} --help prints its usage and ends with 0; a wrong option ends it in a few words`, async () => {
    const [help, wrong] = await Promise.all([
      start(path.join(root, "scripts/run"), [program, "--help"]),
      start(path.join(root, "scripts/run"), [program, "--no-such-option"]),
    ]);
    assert.equal(help.code, 0, `${help.stdout}${help.stderr}`);
    assert.match(help.stdout, /usage/i);
    assert.ok(wrong.code !== 0 && wrong.code !== null, `${wrong.stdout}${wrong.stderr}`);
    assert.match(wrong.stderr, /no-such-option/);
    assert.doesNotMatch(wrong.stderr, /^\s+at .*:\d+:\d+/m, "a stack trace");
  });
}

test("hack/setup.sh builds only what it knows", async () => {
  const setup = path.join(root, "hack/setup.sh");
  assert.equal((await start("bash", [setup, "--help"])).code, 0);
  const { code, stderr } = await start("bash", [setup, "nonsense"]);
  assert.equal(code, 2);
  assert.match(stderr, /^Cannot set up "nonsense"/);
});

/** Code blocks and inline code of every README, as commands that a reader may type. */
function documentedCommands(): readonly { file: string; line: string }[] {
  return checkoutFiles(root)
    .filter((file) => file.endsWith(".md") && file !== "CHANGELOG.md")
    .flatMap((file) =>
      readFileSync(path.join(root, file), "utf8")
        .split("\n")
        .map((line) => ({ file, line })),
    );
}

test("no README starts a program through tsx's own command, or with the system's Node", () => {
  const bad = documentedCommands().filter(
    ({ line }) =>
      /\b(npx )?tsx [\w./-]+\.ts/.test(line) ||
      /(^|`|\s)node (--import tsx )?(--test )?[\w.'*/-]+\.ts/.test(line),
  );
  assert.deepEqual(bad, []);
});

test("every program that a README starts is there", () => {
  const named = documentedCommands().flatMap(({ file, line }) =>
    [...line.matchAll(/scripts\/run ([\w./-]+\.ts)/g)].map(([, program = ""]) => ({
      file,
      program,
    })),
  );
  assert.ok(named.length > 0);
  for (const { file, program } of named) {
    assert.ok(existsSync(path.join(root, program)), `${file}: ${program}`);
  }
  assert.ok(readdirSync(path.join(root, "scripts")).includes("run"));
});
