import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { execa } from "execa";
import { judge, judgeStopped, UNTIL_STOPPED } from "./fio_run.ts";

const SAID = "fio: terminating on signal 15";
const page = (error = 0, iops = 5) =>
  JSON.stringify({ jobs: [{ error, read: { iops }, write: { iops } }] });

test("judgeStopped() takes a run that the stop has ended, and no other", () => {
  assert.equal(judgeStopped(`\n${SAID}\n${page()}`).length, 1);
  assert.throws(() => judgeStopped(page()), /ended before what happened meanwhile/);
  assert.throws(() => judgeStopped(`\n${SAID}\n${page(5)}`), assert.AssertionError);
});

test("judge() refuses an error, and a run that wrote nothing", () => {
  assert.equal(judge(page()).length, 1);
  assert.throws(() => judge(page(5)), assert.AssertionError);
  assert.throws(() => judge(page(0, 0)), assert.AssertionError);
});

/** Runs the shell program with a stand-in for fio. */
function run(t: TestContext, fio: string) {
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-fio-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const stop = path.join(folder, "stop");
  const argv = ["-c", UNTIL_STOPPED, "sh", stop, "sh", "-c", fio, "fio", folder];
  return { folder, stop, ended: execa("sh", argv, { timeout: 30_000, reject: false }) };
}

async function until(file: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!existsSync(file)) {
    if (performance.now() > deadline) throw new Error(`Waited 10 s for ${file}`);
    await new Promise(setImmediate);
  }
}

test("UNTIL_STOPPED lets fio run until the stop, and gives its output", async (t) => {
  const fio = `trap 'echo "${SAID}"; echo done; exit 128' TERM; : > "$1/runs"; while :; do sleep 0.1; done`;
  const { folder, stop, ended } = run(t, fio);
  await until(path.join(folder, "runs"));
  writeFileSync(stop, "");
  const { exitCode, stdout } = await ended;
  assert.equal(exitCode, 0);
  assert.equal(stdout, `${SAID}\ndone`);
});

test("UNTIL_STOPPED returns when fio ends by itself", async (t) => {
  const { exitCode, stdout } = await run(t, "echo failed; exit 1").ended;
  assert.equal(exitCode, 0);
  assert.equal(stdout, "failed");
});
