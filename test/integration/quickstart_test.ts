/** The quickstart when it is interrupted, loses its reader or fails: nothing is left that should not be. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { LocalCluster } from "../../hack/cluster/local.ts";

const script = path.resolve(import.meta.dirname, "..", "..", "hack", "quickstart", "main.ts");

/** Ids of the processes whose command line or environment names the folder: all that a run starts. */
function processesOf(folder: string): string[] {
  return readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, "utf8").includes(folder);
    } catch {
      return false; // ended meanwhile
    }
  });
}

interface Run {
  readonly folder: string;
  readonly child: ChildProcess;
  /** Resolves when a line of the output contains the text; rejects when the run ends before. */
  shown(text: string): Promise<void>;
  readonly exit: Promise<number | string>;
  output(): string;
}

function start(t: TestContext): Run {
  const scratch = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  const folder = path.join(scratch, "quickstart");
  const child = spawn(process.execPath, ["--import", "tsx", script, `--folder=${folder}`], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const seen: string[] = [];
  const waiting = new Set<() => void>();
  let ended = false;
  const note = () => {
    for (const look of waiting) look();
  };
  createInterface({ input: child.stdout }).on("line", (line) => {
    seen.push(line);
    note();
  });
  createInterface({ input: child.stderr }).on("line", (line) => seen.push(line));
  const exit = once(child, "exit").then(([code, name]) => {
    ended = true;
    note();
    return (code ?? name) as number | string; // one of the two
  });
  t.after(async () => {
    child.kill("SIGKILL");
    await exit;
    await LocalCluster.clear(folder);
    for (const pid of processesOf(folder)) process.kill(Number(pid), "SIGKILL"); // its verify_io
    rmSync(scratch, { recursive: true, force: true });
  });
  const output = () => seen.join("\n");
  const shown = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        const found = seen.some((line) => line.includes(text));
        if (!found && !ended) return;
        waiting.delete(look);
        if (found) resolve();
        else reject(new Error(`The quickstart ended before "${text}":\n${output()}`));
      };
      waiting.add(look);
      look();
    });
  return { folder, child, shown, exit, output };
}

function nothingLeft({ folder, output }: Run): void {
  assert.doesNotMatch(output(), /Every check held/);
  assert.equal(existsSync(folder), false, output());
  assert.deepEqual(processesOf(folder), [], output());
}

for (const { scene, signal } of [
  { scene: "1. A cluster", signal: "SIGHUP" },
  { scene: "kill -9", signal: "SIGINT" },
  { scene: "4. Verify", signal: "SIGTERM" },
] as const) {
  test(`quickstart: ${signal} at "${scene}" stops everything`, async (t) => {
    const run = start(t);
    await run.shown(scene);
    run.child.kill(signal);
    assert.equal(await run.exit, 130, run.output());
    nothingLeft(run);
  });
}

test("quickstart: a reader of its output that goes away stops everything", async (t) => {
  const run = start(t);
  await run.shown("1. A cluster");
  run.child.stdout?.destroy();
  assert.equal(await run.exit, 130, run.output());
  nothingLeft(run);
});

test("quickstart: a failure while data is written ends the writer and the script, not the cluster", async (t) => {
  const run = start(t);
  await run.shown("I/O goes on with two replicas");
  renameSync(path.join(run.folder, "log"), path.join(run.folder, "away")); // the engine cannot be started again
  assert.equal(await run.exit, 1, run.output());
  assert.match(run.output(), /The cluster is left as it is/);
  const left = processesOf(run.folder).map((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8"));
  assert.ok(left.some((line) => line.startsWith("etcd")));
  assert.deepEqual(
    left.filter((line) => line.includes("verify_io")),
    [],
  );
});
