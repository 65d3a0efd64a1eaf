/**
 * A killed run costs nobody a manual clean-up: what a signal or a kill leaves of a cluster goes by itself.
 * The cluster's own checks (nodes, pods, names, loss of a node, nothing left after stop()) open install_test.ts, so that
 * one cluster of three nodes serves both.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { whyNoCluster } from "../../hack/cluster/kube/cluster.ts";
import { PAUSE_IMAGE } from "../../hack/cluster/kube/node_files.ts";
import { cgroupPrefix, cgroupsOf, clearStale } from "../../hack/cluster/kube/state.ts";
import { buildClusterImages } from "../../hack/images/thirdparty.ts";

const root = path.resolve(import.meta.dirname, "..", "..");
const skip = whyNoCluster() ?? false;

describe("a killed runner", { skip }, () => {
  /** A process that evaluates to something with a folder, tells it and then waits; resolves to the folder. */
  async function startElsewhere(module: string, expression: string) {
    const script = `const module = await import(${JSON.stringify(path.join(root, module))});
      const started = await (${expression});
      console.log((started.place ?? started).folder); setInterval(() => {}, 1000);`;
    const child = spawn(
      process.execPath,
      ["--import", "tsx", "--input-type=module", "-e", script],
      { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
    );
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    const folder = await new Promise<string>((resolve, reject) => {
      child.stdout.once("data", (text) => resolve(String(text).trim()));
      child.once("close", (code) => reject(new Error(`the runner ended with ${code}`)));
    });
    return { child, folder, ended };
  }
  const leavesNothing = (folder: string) => {
    assert.equal(existsSync(folder), false);
    const prefix = cgroupPrefix(folder);
    assert.deepEqual(
      cgroupsOf((name) => name.startsWith(prefix)),
      [],
    );
  };

  test("SIGTERM takes a control plane down", async () => {
    const told = await startElsewhere(
      "hack/cluster/kube/control_plane.ts",
      "module.ControlPlane.start()",
    );
    assert.equal(existsSync(told.folder), true);
    told.child.kill("SIGTERM");
    await told.ended;
    leavesNothing(told.folder);
  });

  test("what SIGKILL leaves of a cluster the next start clears", async () => {
    const archives = (await buildClusterImages())
      .filter(({ reference }) => reference === PAUSE_IMAGE)
      .map(({ archive }) => archive);
    const killed = await startElsewhere(
      "hack/cluster/kube/cluster.ts",
      `module.KubeCluster.start({ nodes: 1, images: ${JSON.stringify(archives)} })`,
    );
    const outer = readFileSync(path.join(killed.folder, "processes.json"), "utf8");
    killed.child.kill("SIGKILL");
    await killed.ended;
    assert.equal(existsSync(killed.folder), true);
    assert.match(outer, /node-1\.kubelet/);
    await clearStale(); // or a start in another test file, which we have then waited for
    leavesNothing(killed.folder);
  });
});
