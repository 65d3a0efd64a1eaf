/**
 * The CSI plugins for tests: csi-controller as a process on this machine; csi-node and the client bundled into one
 * file each, so that they start quickly in a slow guest.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { build } from "esbuild";
import { until } from "../../../hack/cluster/local.ts";
import type { Cleanup } from "../cluster.ts";
import { CsiClient } from "./client.ts";

const root = path.resolve(import.meta.dirname, "..", "..", "..");

/** One CommonJS file with all that a program imports. */
export async function bundle(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [path.join(root, entry)],
    outfile,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "error",
  });
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}

/** A csi-controller for a REST server; ended with the test. */
export async function startController(
  t: Cleanup,
  { restUrl, folder }: { readonly restUrl: string; readonly folder: string },
): Promise<CsiClient> {
  const socket = path.join(folder, "csi-controller.sock");
  const output: string[] = [];
  const child = spawn(
    process.execPath,
    [
      ...["--import", "tsx", "agents/csi-controller/main.ts"],
      ...["-r", restUrl, "-c", socket, "--rest-timeout", "60s"],
    ],
    { cwd: root, stdio: ["ignore", "pipe", "pipe"] },
  );
  child.stdout.on("data", (text: Buffer) => output.push(text.toString()));
  child.stderr.on("data", (text: Buffer) => output.push(text.toString()));
  t.after(() => endProcess(child));
  try {
    await until("csi-controller serves", async () => existsSync(socket), { seconds: 60 });
  } catch (error) {
    throw new Error(`csi-controller did not start: ${output.join("")}`, { cause: error });
  }
  const client = new CsiClient(`unix:${socket}`);
  t.after(() => client.close());
  return client;
}
