import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { until } from "../../hack/cluster/local.ts";
import { startTicks } from "../../hack/cluster/process.ts";

const MODULES = path.join(import.meta.dirname, "../..");

test("clearOnSignal() leaves no program and no folder behind when the test's process is told to end", async (t) => {
  const scratch = mkdtempSync(path.join(os.tmpdir(), "mayastor-interrupt-"));
  t.after(() => rmSync(scratch, { recursive: true, force: true }));
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const folder = path.join(scratch, signal);
    const cluster = path.join(folder, "cluster");
    mkdirSync(cluster, { recursive: true, mode: 0o700 });
    const program = path.join(scratch, "main.mts");
    writeFileSync(
      program,
      `import { ProcessTable } from "${MODULES}/hack/cluster/process.ts";
import { clearOnSignal } from "${MODULES}/test/support/interrupts.ts";
clearOnSignal("${folder}", "${cluster}");
const processes = new ProcessTable("${cluster}");
processes.start("sleeper", ["sleep", "300"], { cwd: "/" });
console.log(processes.pid("sleeper"));
setInterval(() => {}, 60_000);`,
    );
    const child = spawn(process.execPath, ["--import", "tsx", program], {
      ...{ cwd: MODULES, stdio: ["ignore", "pipe", "inherit"] },
    });
    t.after(() => child.kill("SIGKILL"));
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const pid = Number(line);
    assert.notEqual(startTicks(pid), null, "the sleeper runs");
    const exit = once(child, "exit");
    child.kill(signal);
    assert.deepEqual(await exit, [128 + os.constants.signals[signal], null]);
    await until("the sleeper to end", async () => startTicks(pid) === null);
    assert.equal(existsSync(folder), false);
  }
});
