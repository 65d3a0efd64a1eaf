import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { App } from "cdk8s";
import { makeInstall } from "../../infra/config.ts";
import { addInstallation } from "../../infra/install.ts";
import { ownVersion } from "../../infra/version.ts";
import { baseReferences } from "./buildah.ts";
import { wantedImages } from "./main.ts";
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
    { name: "api-rest", reference: "docker.io/openebs/mayastor-api-rest:ci" },
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
