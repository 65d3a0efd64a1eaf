/**
 * A real control plane for one test file, and kubectl with its words and exit code.
 * Invariant: it is gone when the tests end.
 */
import { spawn } from "node:child_process";
import path from "node:path";
import { ControlPlane } from "../../../hack/cluster/kube/control_plane.ts";
import type { Cleanup } from "../cluster.ts";

export async function startControlPlane(t: Cleanup): Promise<ControlPlane> {
  delete process.env["KUBECONFIG"]; // the user's own cluster is none of a test's business
  const plane = await ControlPlane.start({});
  t.after(() => plane.stop());
  return plane;
}

export type Ran = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs the control plane's own kubectl, as its administrator unless told otherwise; a failure is an answer. */
export async function kubectl(
  plane: ControlPlane,
  args: readonly string[],
  {
    input,
    kubeconfig = plane.kubeconfig,
  }: { readonly input?: string; readonly kubeconfig?: string } = {},
): Promise<Ran> {
  const cache = path.join(plane.place.folder, "kubectl-cache");
  const child = spawn(plane.binaries.kubectl, ["--cache-dir", cache, ...args], {
    env: { ...process.env, KUBECONFIG: kubeconfig },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    stdout += part;
  });
  child.stderr.setEncoding("utf8").on("data", (part: string) => {
    stderr += part;
  });
  child.stdin.on("error", () => {}); // kubectl need not read it
  child.stdin.end(input ?? "");
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? -1));
  });
  return { code, stdout, stderr };
}

export const linesOf = (text: string): readonly string[] =>
  text.split("\n").filter((line) => line.trim() !== "");
