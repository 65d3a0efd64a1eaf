/**
 * Images of all nodes: unpacked once into a template of containerd's store, which each node starts from by hard links.
 * Why: unpacking some hundred megabytes on each of three nodes takes minutes; linking takes a second.
 * Invariant: linked are only content and layers, which containerd never changes in place; its databases are copied.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { until } from "../local.ts";
import type { ProcessTable } from "../process.ts";
import { containerdConfig } from "./node_files.ts";
import { run } from "./run.ts";

const IMPORTER = "image-importer";
const IMPORT_MS = 10 * 60_000;

/** `ctr` for the images that the kubelet sees. */
export const ctr = (socket: string): readonly string[] => [
  ...["ctr", "--address", socket, "--namespace", "k8s.io"],
];

/** Imports docker-archive tars into a store in `folder`; the references of all images. */
export async function importTemplate(
  folder: string,
  images: readonly string[],
  processes: ProcessTable,
): Promise<string[]> {
  for (const image of images) {
    if (!existsSync(image)) throw new Error(`Cannot import ${image}: there is no such file`);
  }
  mkdirSync(folder, { recursive: true });
  const root = path.join(folder, "store");
  const socket = path.join(folder, "containerd.sock");
  const config = path.join(folder, "containerd.toml");
  const disabled = 'disabled_plugins = ["io.containerd.grpc.v1.cri", ';
  const text = containerdConfig({ root, state: path.join(folder, "state"), socket });
  writeFileSync(config, text.replace("disabled_plugins = [", disabled));
  // In a mount namespace of its own: unpacking mounts layers.
  const command = ["unshare", "--mount", "--propagation", "private", "containerd", "-c", config];
  processes.start(IMPORTER, command, { cwd: folder });
  await until("the image importer", async () => await run([...ctr(socket), "version"]), {
    seconds: 60,
  });
  // One after the other: they share layers, and unpacking is bound by the disk.
  for (const image of images) {
    await run([...ctr(socket), "images", "import", image], { timeoutMs: IMPORT_MS });
  }
  const references = await run([...ctr(socket), "images", "list", "--quiet"]);
  await processes.end(IMPORTER);
  return references.split("\n").filter((reference) => reference !== "");
}

/** A store of a node's own that starts with what the template has. */
export async function linkTemplate(folder: string, root: string): Promise<void> {
  await run(["cp", "--archive", "--link", path.join(folder, "store"), root]);
  const databases = await run(["find", root, "-name", "*.db", "-type", "f"]);
  for (const database of databases.split("\n").filter((file) => file !== "")) {
    await run(["cp", "--archive", database, `${database}.own`]);
    await run(["mv", "--force", `${database}.own`, database]);
  }
}
