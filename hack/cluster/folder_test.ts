import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { MARKER, ownFolder } from "./folder.ts";
import { LocalCluster } from "./local.ts";
import { ProcessTable, startTicks } from "./process.ts";

function scratch(t: TestContext): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-folder-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
const create = (folder: string) =>
  LocalCluster.create({ folder, engines: 1, diskMiB: 1, addresses: ["127.0.0.1"] });

test("LocalCluster.clear() and create() leave a folder alone that no cluster made", async (t) => {
  const folder = scratch(t);
  const precious = path.join(folder, "precious.txt");
  writeFileSync(precious, "years of work");
  for (const keepOthers of [false, true])
    await assert.rejects(LocalCluster.clear(folder, { keepOthers }), /no local cluster made it/);
  await assert.rejects(create(folder), /no local cluster made it/);
  assert.deepEqual(readdirSync(folder), ["precious.txt"]);
});

test("LocalCluster.clear() removes what create() made, in a folder that nobody else may enter", async (t) => {
  const folder = path.join(scratch(t), "new", "cluster");
  await create(folder);
  assert.equal(statSync(folder).mode & 0o777, 0o700);
  assert.ok(existsSync(path.join(folder, "disks", "disk-1.img")));
  await create(folder); // its own folder again, after a run that was killed
  assert.deepEqual(await LocalCluster.clear(folder), { ended: [], kept: [] });
  assert.equal(existsSync(folder), false);
  assert.deepEqual(await LocalCluster.clear(folder), { ended: [], kept: [] });
});

test("LocalCluster.clear() with keepOthers leaves what came from elsewhere", async (t) => {
  const folder = scratch(t);
  await create(folder);
  writeFileSync(path.join(folder, "journal"), "of the quickstart");
  writeFileSync(path.join(folder, "notes.txt"), "of the user");
  assert.deepEqual(await LocalCluster.clear(folder, { keepOthers: true }), {
    ended: [],
    kept: ["notes.txt"],
  });
  assert.deepEqual(readdirSync(folder), ["notes.txt"]);
  await assert.rejects(create(folder), /it is not empty/);
});

test("records in a folder that others may write to, or own, end no process", async (t) => {
  const victim = spawn("sleep", ["600"], { stdio: "ignore" });
  t.after(() => victim.kill("SIGKILL"));
  await once(victim, "spawn");
  const pid = victim.pid ?? 0;
  const records = JSON.stringify([{ name: "etcd", pid, startTicks: startTicks(pid) }]);
  const plant = (folder: string) => {
    writeFileSync(path.join(folder, "processes.json"), records);
    writeFileSync(path.join(folder, MARKER), "");
    return folder;
  };
  const open = plant(scratch(t));
  chmodSync(open, 0o777);
  const cases: [string, RegExp][] = [[open, /others may write to it/]];
  const link = path.join(scratch(t), "link");
  symlinkSync(plant(scratch(t)), link);
  cases.push([link, /it is not a folder \(a link does not count\)/]);
  if (process.geteuid?.() === 0) {
    const foreign = plant(scratch(t));
    chownSync(foreign, 65_534, 65_534);
    cases.push([foreign, /it belongs to user 65534, this is user 0/]);
  }
  for (const [folder, why] of cases) {
    await assert.rejects(LocalCluster.clear(folder), why);
    assert.throws(() => new ProcessTable(folder), why);
    await assert.rejects(create(folder), why);
    assert.ok(existsSync(path.join(folder, "processes.json")), folder);
  }
  assert.equal(victim.exitCode ?? victim.signalCode, null);
  assert.notEqual(startTicks(pid), null);
});

test("ownFolder() says that a file is no folder", (t) => {
  const folder = scratch(t);
  mkdirSync(path.join(folder, "a"));
  ownFolder(path.join(folder, "a"));
  writeFileSync(path.join(folder, "b"), "");
  assert.throws(() => ownFolder(path.join(folder, "b")), /it is not a folder/);
});
