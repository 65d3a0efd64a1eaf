import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { nodeTest, runStep, type Step, table } from "./ci.ts";
import { readSkips } from "./skips.ts";

const TESTS = `
import { describe, test } from "node:test";
test("runs", () => {});
test("needs a thing", { skip: "no thing here" }, () => {});
test("finds out late", (t) => t.skip("no thing here"));
describe("a whole rig", { skip: "no etcd: apt-get install etcd-server" }, () => {
  test("inside", () => {});
});
test("is silent", { skip: true }, () => {});
`;

const HOLD = `
import fs from "node:fs";
import net from "node:net";
const [, , own, other] = process.argv;
const server = net.createServer().listen(18081, "127.0.0.1", () => {
  fs.writeFileSync(own, "");
  const timer = setInterval(() => {
    if (!fs.existsSync(other)) return;
    clearInterval(timer);
    server.close();
  }, 10);
});
`;

const XML = `<testsuites><testsuite name="A">
<testcase name="Runs" status="run" result="completed" classname="A" />
<testcase name="Skips" file="t.cc" line="3" status="run" result="skipped" classname="A">
  <skipped message="t.cc:3&#x0A;needs a &quot;loop&quot; device: &lt;EPERM&gt;"><![CDATA[x]]></skipped>
</testcase>
<testcase name="Bare" status="run" result="skipped" classname="A">
  <skipped message="t.cc:4&#x0A;"><![CDATA[x]]></skipped>
</testcase>
</testsuite></testsuites>`;

test("runStep() runs commands of a group at once, each on its own loopback, and names those that fail", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-ci-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  // Holds the port until the other holds it too.
  const script = path.join(folder, "hold.mjs");
  fs.writeFileSync(script, HOLD);
  const step: Step = {
    ...{ name: "own", what: "a step of this test", minutesMax: 1 },
    commands: [
      [`node ${script} ${folder}/a ${folder}/b`, `node ${script} ${folder}/b ${folder}/a`],
    ],
  };
  const passed = await runStep(step);
  assert.equal(passed.result, "passed", passed.reason);
  const failed = await runStep({ ...step, commands: [["true", "exit 3"], "true"] });
  assert.equal(failed.result, "failed");
  assert.equal(failed.reason, "exit 3: exit 3");
});

test("runStep() names every test that the step's programs skipped, with its reason", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-ci-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  fs.writeFileSync(path.join(folder, "a_test.mjs"), TESTS);
  fs.writeFileSync(path.join(folder, "made.xml"), XML);
  // The command of the real step, on other files; and what a program of GoogleTest writes.
  const step: Step = {
    name: "own",
    what: "a step of this test",
    commands: [
      `${nodeTest(`'${folder}/*_test.mjs'`)} >/dev/null`,
      `cp ${folder}/made.xml "\${GTEST_OUTPUT#xml:}"`,
    ],
    minutesMax: 2,
  };
  const outcome = await runStep(step);
  assert.equal(outcome.result, "passed", outcome.reason);
  assert.deepEqual(
    table([outcome]).map((line) => line.replace(/ +\d+\.\d s/, " S")),
    [
      "  passed  own S",
      "          not run: needs a thing; finds out late: no thing here",
      "          not run: a whole rig: no etcd: apt-get install etcd-server",
      "          not run: is silent; A.Bare: no reason given",
      '          not run: A.Skips: needs a "loop" device: <EPERM>',
      "",
      "1 passed, 0 failed, 0 skipped; 6 tests within them not run",
    ],
  );
});

test("runStep() leaves a long step out of a whole run that has no time for it, and says so", async () => {
  const step: Step = {
    ...{ name: "own", what: "a step of this test", commands: ["true"] },
    ...{ needs: () => 45, minutesMax: 60 },
  };
  const late = await runStep(step, 30.5);
  assert.equal(late.result, "skipped");
  assert.match(late.reason ?? "", /may take 45 minutes, and 31 of the 75/);
  assert.equal((await runStep(step, 30)).result, "passed");
  assert.equal((await runStep(step)).result, "passed", "asked for by its name");
});

test("runStep() keeps the skips of a step that failed, and says which command did", async () => {
  const line = JSON.stringify({ name: "a", reason: "b" });
  const step: Step = {
    name: "own",
    what: "a step of this test",
    commands: [
      `echo '${line}' >"$MAYASTOR_SKIPS/1.jsonl"; printf '{"na' >>"$MAYASTOR_SKIPS/1.jsonl"; exit 3`,
      "false",
    ],
    minutesMax: 1,
  };
  const outcome = await runStep(step);
  assert.equal(outcome.result, "failed");
  assert.match(outcome.reason ?? "", /^exit 3: echo/);
  assert.deepEqual(outcome.skips, [{ name: "a", reason: "b" }]);
});

test("readSkips() finds nothing where nothing was skipped", (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-ci-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  assert.deepEqual(readSkips(folder), []);
});
