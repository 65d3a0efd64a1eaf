import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { startFakeRest } from "./testing/fake_rest.ts";

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "kubectl-mayastor-build-"));
const rest = await startFakeRest();
after(async () => {
  await rest.close();
  rmSync(folder, { recursive: true });
});

test("the bundle runs on its own, lazy parts included", async () => {
  const script = join(import.meta.dirname, "build.ts");
  await run(process.execPath, ["--import", "tsx", script, `--out=${folder}`]);
  const bundle = join(folder, "kubectl-mayastor.mjs");
  rest.answers["GET /v0/nodes"] = { body: [{ id: "n-1" }] };
  const { stdout } = await run(process.execPath, [
    bundle,
    "-r",
    rest.url,
    "get",
    "nodes",
    "-oyaml",
  ]);
  assert.equal(stdout, "---\n- id: n-1\n");
  const lost = run(process.execPath, [bundle, "-k", join(folder, "none"), "get", "nodes"]);
  await assert.rejects(
    lost,
    /Failed to initialise the REST client\. Error kubeconfig file not found/,
  );
});
