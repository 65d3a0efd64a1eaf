import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { App } from "cdk8s";
import { makeInstall } from "../../infra/config.ts";
import { addInstallation } from "../../infra/install.ts";
import { ownVersion } from "../../infra/version.ts";
import { baseReferences } from "./bases.ts";
import { areStale } from "./buildah.ts";
import { INPUTS, wantedImages } from "./main.ts";
import { PROGRAMS } from "./programs.ts";

const root = path.resolve(import.meta.dirname, "../..");
const dockerfile = await readFile(path.join(root, "Dockerfile"), "utf8");

test("wantedImages are the ones that the manifests of this version ask for", () => {
  const app = new App();
  addInstallation(app, makeInstall({ version: ownVersion() }));
  const asked = [...app.synthYaml().matchAll(/image: (\S*\/mayastor-\S+)/g)].map(
    ([, name]) => name,
  );
  assert.deepEqual(
    wantedImages({})
      .map(({ reference }) => reference)
      .sort(),
    [...new Set(asked)].sort(),
  );
});

test("wantedImages takes a tag and some names, and refuses unknown ones", () => {
  assert.deepEqual(wantedImages({ only: ["api-rest"], tag: "ci" }), [
    { name: "api-rest", reference: "localhost/mayastor/mayastor-api-rest:ci" },
  ]);
  assert.throws(
    () => wantedImages({ only: ["api-rest", "nothing"] }),
    /Cannot build nothing: there are agent-core, /,
  );
});

test("PROGRAMS have a target each in the Dockerfile, which starts them by name and not as root without need", () => {
  for (const { name } of PROGRAMS) {
    const target = dockerfile
      .split(/^FROM /m)
      .find((stage) => stage.startsWith(`runtime AS ${name}\n`));
    assert.ok(target, `target ${name}`);
    assert.ok(target.includes(`ENTRYPOINT ["${name}"]`), `entry point of ${name}`);
    const onNodes = name === "io-engine" || name === "csi-node";
    assert.ok(target.includes(onNodes ? "USER 0:0" : "USER 65532:65532"), `user of ${name}`);
  }
});

test("baseReferences are named with a tag, never the newest of whatever there is", () => {
  for (const reference of Object.values(baseReferences(dockerfile))) {
    assert.match(
      reference,
      /^docker\.io\/library\/[a-z]+:[0-9][-a-z0-9.]*(@sha256:[0-9a-f]{64})?$/,
    );
  }
  assert.throws(() => baseReferences("FROM scratch"), /the Dockerfile has no ARG BASE/);
});

test("INPUTS name every file of the code that makes the images", async () => {
  const found = new Set(["main.ts"]);
  for (const name of found) {
    const text = await readFile(path.join(import.meta.dirname, name), "utf8");
    for (const [, imported = ""] of text.matchAll(/ from "\.\/([\w.]+)";$/gm)) found.add(imported);
  }
  assert.ok(found.has("archive.ts") && found.has("docker.ts"), [...found].join(" "));
  const files = [...found].map((name) => `hack/images/${name}`);
  assert.deepEqual(
    files.filter((file) => !INPUTS.includes(file)),
    [],
  );
});

test("areStale() asks for base images again after two weeks, for another Node, and when nothing is known", () => {
  const DAY_MS = 86_400_000;
  const now = { atMs: 1000 * DAY_MS, node: "v24.1.0" };
  const made = (days: number, node = now.node) =>
    JSON.stringify({ atMs: now.atMs - days * DAY_MS, node });
  assert.equal(areStale(made(13), now), false);
  for (const text of [made(14), made(-1), made(1, "v24.0.0"), null, "", "null", "{}", '{"atMs":']) {
    assert.equal(areStale(text, now), true, String(text));
  }
});
