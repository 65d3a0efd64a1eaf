import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { checkoutFiles } from "./files.ts";

const root = path.resolve(import.meta.dirname, "..");

function folder(t: TestContext, files: Readonly<Record<string, string>>): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-files-"));
  t.after(() => fs.rmSync(made, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(made, name)), { recursive: true });
    fs.writeFileSync(path.join(made, name), text);
  }
  return made;
}

const SOURCE = {
  ".gitignore": "build/\n*.log\n",
  "a.ts": "",
  "b/c.cc": "",
  "b/build/made.cc": "",
  "b/a.log": "",
};
const OWN = [".gitignore", "a.ts", "b/c.cc"];

test("checkoutFiles() lists a source archive, which has no history", (t) => {
  assert.deepEqual(checkoutFiles(folder(t, SOURCE)), OWN);
});

test("checkoutFiles() lists a clone that belongs to another user", (t) => {
  const clone = folder(t, SOURCE);
  execFileSync("git", ["init", "-q", clone]);
  if (process.getuid?.() === 0) {
    for (const name of fs.readdirSync(clone, { recursive: true })) {
      fs.chownSync(path.join(clone, name.toString()), 12345, 12345);
    }
    fs.chownSync(clone, 12345, 12345);
  }
  assert.deepEqual(checkoutFiles(clone), OWN);
});

test("checkoutFiles() fails where there is nothing to list", (t) => {
  assert.throws(() => checkoutFiles(folder(t, {})), /there are none/);
});

test("checkoutFiles() refuses an ignore pattern that it would read wrong", (t) => {
  const made = folder(t, { ".gitignore": "/a/b.ts\n", "a/b.ts": "" });
  assert.throws(() => checkoutFiles(made), /"\/a\/b\.ts", which is more than a name/);
});

test("tidy and format_native fail when git cannot list a clone's files", (t) => {
  const clone = folder(t, {
    ".git": "gitdir: /nonexistent\n",
  });
  for (const file of [
    "package.json",
    "agents/common/command_line.ts",
    "agents/common/errors.ts",
    "hack/files.ts",
    "hack/tidy.ts",
    "hack/format_native.ts",
  ]) {
    fs.mkdirSync(path.join(clone, path.dirname(file)), { recursive: true });
    fs.copyFileSync(path.join(root, file), path.join(clone, file));
  }
  const run = (script: string, PATH: string | undefined) =>
    spawnSync(process.execPath, [path.join(clone, "hack", script)], {
      encoding: "utf8",
      env: { ...process.env, PATH },
    });
  for (const script of ["tidy.ts", "format_native.ts"]) {
    const broken = run(script, process.env["PATH"]);
    assert.notEqual(broken.status, 0, script);
    assert.match(broken.stderr, /Cannot list the files of .*not a git repository/);
    const without = run(script, "/nonexistent");
    assert.notEqual(without.status, 0, script);
    assert.match(without.stderr, /git is not installed/);
  }
});
