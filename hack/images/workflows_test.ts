/** What the workflows that build and install images may do with the repository's token, and whose code they run. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "yaml";

type Step = { readonly uses?: string; readonly run?: string; readonly with?: object };
type Job = {
  readonly if?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
};
type Workflow = {
  readonly permissions?: Readonly<Record<string, string>>;
  readonly jobs: Readonly<Record<string, Job>>;
};

const folder = path.resolve(import.meta.dirname, "../../.github/workflows");
const workflow = (name: string): Workflow =>
  parse(readFileSync(path.join(folder, `${name}.yaml`), "utf8")) as Workflow; // GitHub's schema
const NAMES = ["images", "e2e", "kube"];
const FOR_TAGS = "startsWith(github.ref, 'refs/tags/v')";
const CAN_PUSH = /docker\/login-action|--push|release\.ts merge/;

test("workflows run only actions pinned by commit, and leave no token in the checkout", () => {
  for (const name of NAMES) {
    for (const [job, { steps }] of Object.entries(workflow(name).jobs)) {
      for (const { uses, with: given = {} } of steps) {
        if (uses === undefined) continue;
        assert.match(uses, /^[\w-]+\/[\w-]+@[0-9a-f]{40}$/, `${name}, ${job}`);
        if (!uses.startsWith("actions/checkout@")) continue;
        assert.deepEqual(given, { "persist-credentials": false }, `${name}, ${job}`);
      }
    }
  }
});

test("workflows give a token that writes only to the jobs of a tag that push", () => {
  for (const name of NAMES) {
    const { permissions, jobs } = workflow(name);
    assert.deepEqual(permissions, { contents: "read" }, name);
    for (const [job, { if: condition, permissions: own = {}, steps }] of Object.entries(jobs)) {
      const writes = Object.values(own).includes("write");
      if (writes) assert.equal(condition, FOR_TAGS, `${name}, ${job}`);
      assert.equal(
        steps.some((step) => CAN_PUSH.test(JSON.stringify(step))),
        writes,
        `${name}, ${job}`,
      );
    }
  }
});

test("the images workflow runs no package's own scripts", () => {
  const runs = Object.values(workflow("images").jobs).flatMap(({ steps }) => steps);
  const installs = runs.flatMap(({ run = "" }) => (run.startsWith("npm ") ? [run] : []));
  assert.ok(installs.length > 0);
  for (const run of installs) assert.match(run, /^npm ci --ignore-scripts /);
});
