import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { digestsOf, repositoryOf } from "./release.ts";

test("digestsOf needs every architecture before anything is published", async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), "mayastor-digests-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(path.join(folder, "api-rest-amd64"), "sha256:aa\n");
  await assert.rejects(
    digestsOf(folder, "api-rest"),
    /Cannot publish api-rest: no digest of api-rest-arm64/,
  );
  await writeFile(path.join(folder, "api-rest-arm64"), "sha256:bb\n");
  assert.deepEqual(await digestsOf(folder, "api-rest"), ["sha256:aa", "sha256:bb"]);
});

test("repositoryOf has no capitals, whoever owns the repository", () => {
  assert.equal(repositoryOf("ghcr.io/OpenEBS", "io-engine"), "ghcr.io/openebs/mayastor-io-engine");
});
