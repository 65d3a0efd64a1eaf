/**
 * Mounts: what /proc/self/mountinfo says, and the few changes the plugin makes with mount(8) and umount(8).
 *
 * Invariants: the kernel's table is the only state; a read-only bind mount is never visible writable, not even
 * for a moment in another mount namespace (its flag is set on a private detour before it appears at its place).
 */
import path from "node:path";
import { SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { NvmeDevice } from "./nvme.ts";
import type { NodeSystem } from "./system.ts";

const MOUNTINFO = "/proc/self/mountinfo";
const PROGRAM_MS = 120_000;
/** Mounts stacked on one path; more is not ours. */
const STACKED_MAX = 16;

export type Mount = {
  readonly id: number;
  /** major:minor */
  readonly number: string;
  /** Of the file system, what is mounted: "/" or a bind mount's source. */
  readonly root: string;
  readonly path: string;
  readonly options: readonly string[];
  readonly fsType: string;
  readonly source: string;
  readonly superOptions: readonly string[];
};

/** The kernel writes blank, tab, newline and backslash as three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Format: proc_pid_mountinfo(5). Lines that do not have it are left out. */
export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [left, right] = line.split(" - ");
    const [id, , number, root, at, options] = (left ?? "").split(" ");
    const [fsType, source, superOptions] = (right ?? "").split(" ");
    if (!id || !number || !root || !at || !options || !fsType || source === undefined) continue;
    mounts.push({
      id: Number(id),
      number,
      root: unescapeOctal(root),
      path: unescapeOctal(at),
      options: options.split(","),
      fsType,
      source: unescapeOctal(source),
      superOptions: (superOptions ?? "").split(","),
    });
  }
  return mounts;
}

export async function listMounts(system: NodeSystem): Promise<Mount[]> {
  return parseMountinfo((await system.readText(MOUNTINFO)) ?? "");
}

/** The topmost mount at a path; null when nothing is mounted there. */
export async function mountAt(system: NodeSystem, at: string): Promise<Mount | null> {
  const real = await system.resolve(at);
  return (await listMounts(system)).findLast((mount) => mount.path === real) ?? null;
}

/** The mount shows the file system of this device. */
export function isFileSystemOf(mount: Mount, device: NvmeDevice): boolean {
  if (mount.fsType === "devtmpfs") return false;
  // btrfs has a number of its own; its source still is the device.
  return mount.number === device.number || mount.source === device.node;
}

/** The mount shows the device itself: a bind mount of its node. */
export function isNodeOf(mount: Mount, device: NvmeDevice): boolean {
  return mount.fsType === "devtmpfs" && mount.root === `/${path.basename(device.node)}`;
}

export async function mountsOf(system: NodeSystem, device: NvmeDevice): Promise<Mount[]> {
  const all = await listMounts(system);
  return all.filter((mount) => isFileSystemOf(mount, device) || isNodeOf(mount, device));
}

/**
 * The mount shows a device that the kernel has given up: it gives errors only, for good, whatever comes back later.
 * Of a device node that is gone the kernel says so; a file system keeps the name of its device from being used again.
 */
export async function isDead(system: NodeSystem, mount: Mount): Promise<boolean> {
  if (mount.fsType === "devtmpfs") return /^\/nvme\d+n\d+\/\/deleted$/.test(mount.root);
  const name = /^\/dev\/(nvme\d+n\d+)$/.exec(mount.source)?.[1];
  return name !== undefined && (await system.readText(`/sys/block/${name}/dev`)) === null;
}

export const isReadOnly = (mount: Mount): boolean => mount.options.includes("ro");

async function mustRun(
  system: NodeSystem,
  program: string,
  args: readonly string[],
): Promise<void> {
  const { code, stderr } = await system.run(program, args, PROGRAM_MS);
  if (code === 0) return;
  throw new SvcError(
    "internal",
    `Cannot run ${program} ${args.join(" ")}: ${stderr.trim() || `exit code ${code}`}`,
  );
}

export async function mountFileSystem(
  system: NodeSystem,
  {
    device,
    at,
    fsType,
    flags,
  }: { device: NvmeDevice; at: string; fsType: string; flags: readonly string[] },
): Promise<void> {
  const options = flags.length > 0 ? ["-o", flags.join(",")] : [];
  await mustRun(system, "mount", ["-t", fsType, ...options, device.node, at]);
}

/** Of the whole file system, or with `bind` of this mount alone. */
export async function remount(
  system: NodeSystem,
  at: string,
  { readOnly, bind }: { readOnly: boolean; bind: boolean },
): Promise<void> {
  const options = ["remount", ...(bind ? ["bind"] : []), readOnly ? "ro" : "rw"];
  await mustRun(system, "mount", ["-o", options.join(","), at]);
}

/** Removes all mounts at a path; nothing there is no error. */
export async function unmount(system: NodeSystem, at: string): Promise<void> {
  for (let count = 0; count < STACKED_MAX; count++) {
    if ((await mountAt(system, at)) === null) return;
    await mustRun(system, "umount", [at]);
  }
  throw new SvcError("internal", `Cannot unmount ${at}: more than ${STACKED_MAX} mounts lie there`);
}

/** Takes a mount out of sight without waiting for who uses it; it is gone when nobody does. Nothing there is no error. */
export async function detach(system: NodeSystem, at: string): Promise<void> {
  if ((await mountAt(system, at)) !== null) await mustRun(system, "umount", ["-l", at]);
}

/** Takes away what dead mounts lie at a path, which are in the way of new ones; returns the live one there, or null. */
export async function clearDeadMounts(
  { system, log }: { readonly system: NodeSystem; readonly log: Log },
  at: string,
): Promise<Mount | null> {
  for (let count = 0; count < STACKED_MAX; count++) {
    const mount = await mountAt(system, at);
    if (mount === null || !(await isDead(system, mount))) return mount;
    await mustRun(system, "umount", [at]);
    log.info("mount of a lost device removed", {
      path: at,
      source: mount.source,
      root: mount.root,
    });
  }
  throw new SvcError("internal", `Cannot clear ${at}: more than ${STACKED_MAX} mounts lie there`);
}

export async function bindMount(system: NodeSystem, source: string, at: string): Promise<void> {
  await mustRun(system, "mount", ["--bind", source, at]);
}

/** Flags that belong to a mount, not to its file system: a bind mount may have its own. */
const MOUNT_FLAGS: ReadonlySet<string> = new Set([
  ...["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"],
]);

export const ownFlags = (flags: readonly string[]): string[] =>
  flags.filter((flag) => MOUNT_FLAGS.has(flag));

/**
 * A bind mount with flags of its own. Remounting at the final place would leave copies of the mount in other
 * namespaces as they were (a read-only one writable): a bind mount of a flagged bind mount is born with its flags.
 */
export async function bindMountWith(
  system: NodeSystem,
  {
    source,
    at,
    detour,
    flags,
  }: { source: string; at: string; detour: string; flags: readonly string[] },
): Promise<void> {
  await system.makeFolder(detour);
  try {
    await unmount(system, detour); // what an interrupted attempt left
    await bindMount(system, source, detour);
    await mustRun(system, "mount", ["-o", ["remount", "bind", ...flags].join(","), detour]);
    await bindMount(system, detour, at);
  } finally {
    await unmount(system, detour);
    await system.removeFolder(detour);
  }
}
