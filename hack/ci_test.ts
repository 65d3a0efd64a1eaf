import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { nodeTest, runStep, type Step, table } from "./ci.ts";
import { until } from "./cluster/local.ts";
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

/** Says that it runs, and ends well once it was told to end twice. */
const STUBBORN = `told=0; trap 'told=$((told + 1)); echo $told >told' TERM; touch runs
while [ $told -lt 2 ]; do sleep 0.05; done; true`;

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

test("runSteps() that is interrupted ends what runs, however often it is asked, and begins nothing more", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-ci-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const places = ["a", "b"].map((name) => path.join(folder, name));
  for (const place of places) fs.mkdirSync(place);
  const group = places.map((place) => `cd ${place}; ${STUBBORN}`);
  const next = `touch ${folder}/next`;
  const steps = [
    { name: "first", what: "two at once", minutesMax: 1, commands: [group, next] },
    { name: "second", what: "comes too late", minutesMax: 1, commands: [next] },
  ];
  const program = path.join(folder, "main.mts");
  const ci = path.join(import.meta.dirname, "ci.ts");
  fs.writeFileSync(
    program,
    `import { runSteps } from ${JSON.stringify(ci)};
process.exitCode = (await runSteps(["first", "second"], ${JSON.stringify(steps)})) ? 0 : 1;`,
  );
  const child = spawn(process.execPath, ["--import", "tsx", program], {
    cwd: path.dirname(import.meta.dirname),
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  child.stdout.on("data", (data: Buffer) => {
    output += data.toString();
  });
  const ended = new Promise((resolve) => child.once("close", (...how) => resolve(how)));
  const all = (file: string, text: string) =>
    until(`${text || "nothing"} in each ${file}`, async () =>
      places.every((place) => fs.readFileSync(path.join(place, file), "utf8").trim() === text),
    );
  await all("runs", "");
  child.kill("SIGINT");
  await all("told", "1");
  child.kill("SIGTERM");
  await all("told", "2");
  assert.deepEqual(await ended, [1, null], output);
  assert.match(output, /^=== first failed: interrupted$/m);
  assert.doesNotMatch(output, /second/);
  const left = fs.readdirSync(folder).filter((name) => name.startsWith("mayastor-"));
  assert.deepEqual(left, []);
});

test("runStep() ends a command that runs too long, and nobody else afterwards", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const step = { name: "own", what: "a step of this test", minutesMax: 1 };
  const running = runStep({ ...step, commands: ["sleep 300"] });
  t.mock.timers.tick(60_000);
  assert.equal((await running).reason, "exit 1: sleep 300");
  t.mock.timers.tick(60_000); // it is gone by now: there is nobody to kill
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
