/**
 * Where clusters of this machine keep their state, who owns them, and how what a killed run left is cleared.
 *
 * Why: a cluster is dozens of processes, namespaces, mounts and cgroups; whoever started it may be killed.
 * Invariants: a folder belongs to one cluster, claimed by making it; everything a cluster starts is recorded in its
 * folder (ProcessTable) before it does anything, and ending these processes ends all namespaces, mounts and pods;
 * a folder whose owner is gone is cleared by the next start, unless it was asked to outlive its owner.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { until } from "../local.ts";
import { ProcessTable, startTicks } from "../process.ts";
import { holdLock } from "./lock.ts";

/** The host's end of a cluster's link. */
export const hostLink = (cluster: number): string => `kube${cluster}`;

const CGROUPS = "/sys/fs/cgroup";
/** A folder without an owner's record is being claimed right now, unless it is older. */
const CLAIM_MS = 60_000;

export function stateRoot(): string {
  return path.join(os.tmpdir(), "mayastor-kube");
}

interface Owner {
  readonly pid: number;
  readonly startTicks: string | null;
  /** Outlives the process that started it (`main.ts up`). */
  readonly kept: boolean;
}

const ownerFile = (folder: string) => path.join(folder, "owner.json");

/** Claims a folder; null when another cluster has it. */
export function claim(name: string, options: { kept: boolean }): string | null {
  mkdirSync(stateRoot(), { recursive: true });
  const folder = path.join(stateRoot(), name);
  try {
    mkdirSync(folder, { mode: 0o711 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return null; // what mkdir throws
    throw error;
  }
  const owner: Owner = {
    pid: process.pid,
    startTicks: startTicks(process.pid),
    kept: options.kept,
  };
  writeFileSync(ownerFile(folder), JSON.stringify(owner));
  return folder;
}

function isStale(folder: string): boolean {
  if (!existsSync(ownerFile(folder))) {
    return Date.now() - statSync(folder).mtimeMs > CLAIM_MS;
  }
  const owner = JSON.parse(readFileSync(ownerFile(folder), "utf8")) as Owner; // our own file
  return !owner.kept && startTicks(owner.pid) !== owner.startTicks;
}

/** All claimed folders. */
export function stateFolders(): string[] {
  if (!existsSync(stateRoot())) return [];
  return readdirSync(stateRoot(), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => path.join(stateRoot(), entry.name));
}

/** The cgroups of a cluster's nodes start with this, in each hierarchy. */
export function cgroupPrefix(folder: string): string {
  return `mayastor-kube-${path.basename(folder)}-`;
}

/** The mounted cgroup hierarchies. */
export function cgroupHierarchies(): string[] {
  return readdirSync(CGROUPS, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(path.join(CGROUPS, entry.name, "tasks")))
    .map((entry) => path.join(CGROUPS, entry.name));
}

/** Top folders that `isOurs` names in every hierarchy, also in the one of version 2 beside them. */
export function cgroupsOf(isOurs: (name: string) => boolean): string[] {
  if (!existsSync(CGROUPS)) return [];
  return readdirSync(CGROUPS, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name: hierarchy }) =>
      readdirSync(path.join(CGROUPS, hierarchy), { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && isOurs(entry.name))
        .map((entry) => path.join(CGROUPS, hierarchy, entry.name)),
    );
}

function removeCgroup(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(path.join(folder, entry.name));
  }
  rmdirSync(folder);
}

/** Removes cgroups once their processes, killed before, are gone. */
export async function removeCgroups(isOurs: (name: string) => boolean): Promise<void> {
  await until(
    "the processes of a stopped node to end",
    async () => {
      for (const folder of cgroupsOf(isOurs)) removeCgroup(folder);
      return true;
    },
    { seconds: 30, everyMs: 50 },
  );
}

/** Ids of a process's children; none when it has ended. */
export function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch {
    return []; // ended
  }
}

const descendantsOf = (pid: number): number[] =>
  childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);

/**
 * Ends what recorded processes have started, once these were ended, and waits for it. The first process of a process
 * namespace is among them: the kernel lets it end only after everything else in there has. Others outlive their parent,
 * such as the compiler that a program run from source keeps.
 */
export function endOfChildren(pids: readonly number[]): () => Promise<void> {
  const children = pids
    .flatMap(descendantsOf)
    .map((pid) => ({ pid, ticks: startTicks(pid) }))
    .filter(({ ticks }) => ticks !== null);
  const left = () => children.filter(({ pid, ticks }) => startTicks(pid) === ticks);
  return async () => {
    for (const { pid } of left()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it has just ended
      }
    }
    await until("the killed processes to end", async () => left().length === 0, {
      ...{ seconds: 60, everyMs: 20 },
    });
  };
}

/** Ends whatever runs in this folder and removes all traces. */
export async function clear(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  const table = new ProcessTable(folder);
  const pids = table.names.map((name) => table.pid(name)).filter((pid) => pid !== null);
  const ended = endOfChildren(pids);
  await table.endAll("SIGKILL");
  await ended();
  const prefix = cgroupPrefix(folder);
  await removeCgroups((name) => name.startsWith(prefix));
  removeLink(folder);
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

/** The kernel takes a link away some time after its namespace; whoever claims the number next must not meet it. */
function removeLink(folder: string): void {
  const number = /^cluster-(\d+)$/.exec(path.basename(folder))?.[1];
  if (number === undefined) return; // a control plane alone has none
  const link = hostLink(Number(number));
  if (!existsSync(`/sys/class/net/${link}`)) return;
  const { stderr } = spawnSync("ip", ["link", "del", link], { encoding: "utf8" });
  if (existsSync(`/sys/class/net/${link}`))
    throw new Error(`Cannot remove the link ${link} of ${folder}: ${stderr.trim()}`);
}

/** Clears what killed runs left; the names of what was found. */
export async function clearStale(): Promise<string[]> {
  const release = await holdLock(path.join(os.tmpdir(), "mayastor-kube.lock"));
  try {
    const stale = stateFolders().filter(isStale);
    for (const folder of stale) await clear(folder);
    return stale.map((folder) => path.basename(folder));
  } finally {
    await release();
  }
}

const open = new Set<() => Promise<void>>();
let watching = false;

async function onSignal(name: NodeJS.Signals): Promise<void> {
  const stops = [...open];
  open.clear();
  await Promise.allSettled(stops.map((stop) => stop()));
  process.exit(128 + (os.constants.signals[name] ?? 0));
}

/** Runs `stop` when this process is told to end before `forget` (the result) is called. */
export function stopOnSignal(stop: () => Promise<void>): () => void {
  open.add(stop);
  if (!watching) {
    watching = true;
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(name, () => void onSignal(name));
    }
  }
  return () => open.delete(stop);
}
