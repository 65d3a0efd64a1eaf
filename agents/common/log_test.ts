import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { lineWriter } from "./log.ts";

const module_ = JSON.stringify(path.join(import.meta.dirname, "log.ts"));

/** A program that logs through a socket: the kind of pipe that a parent written for Node gives. */
function program(body: string) {
  const source = `import { createLog } from ${module_}; const log = createLog("test"); ${body}`;
  return spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", source], {
    stdio: ["pipe", "pipe", "ignore"],
  });
}

test("createLog() writes one JSON line a message, in order", async () => {
  const child = program(`for (let i = 0; i < 3; i++) log.info("m", { i, big: 1n });`);
  child.stdout.setEncoding("utf8");
  const chunks: string[] = [];
  child.stdout.on("data", (chunk: string) => chunks.push(chunk));
  const [code] = await once(child, "close");
  const lines = chunks
    .join("")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(code, 0);
  assert.deepEqual(
    lines.map(({ level, component, msg, i, big }) => [level, component, msg, i, big]),
    [0, 1, 2].map((i) => ["info", "test", "m", i, "1"]),
  );
});

test("createLog() lets a program end whose log reader is gone", async () => {
  const child = program(`
    process.stdin.once("data", () => { log.error("a"); log.error("b"); process.exit(7); });
    log.info("ready");`);
  await once(child.stdout, "data");
  child.stdout.destroy();
  await once(child.stdout, "close");
  child.stdin.write("go\n");
  const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  const [code] = await once(child, "exit");
  clearTimeout(timer);
  assert.equal(code, 7);
});

test("createLog() lets a program end whose log reader does not read", async () => {
  const child = program(`
    for (let i = 0; i < 200; i++) log.info("x".repeat(8192));
    process.exit(7);`);
  child.stdout.pause();
  const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  const [code] = await once(child, "exit");
  clearTimeout(timer);
  assert.equal(code, 7);
});

test("lineWriter() writes files as they come", (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "log-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, "log");
  const fd = openSync(file, "w");
  const { write } = lineWriter(fd);
  for (const line of ["one\n", "zwei äöü\n"]) write(line);
  closeSync(fd);
  write("late\n"); // a closed descriptor is no reason to fail
  assert.equal(readFileSync(file, "utf8"), "one\nzwei äöü\n");
});
