/**
 * The node's disks and partitions, for whoever chooses a pool's disk.
 *
 * Source of facts: sysfs (`/sys/class/block`), the udev database (`/run/udev/data`) where present,
 * and `/proc/self/mountinfo`. No library, so that the engine runs where udev does not.
 * Invariants: `available` is never true for a device that is mounted, partitioned, holds a file
 * system, or is one of our own; sizes are in 512-byte blocks, as sysfs has them.
 */
import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { basename, join } from "node:path";

/** Kernel major numbers of disks a pool may use: loop, SCSI, MMC/dm-like 43 (nbd), 259 (blkext). */
const USABLE_MAJORS = new Set([7, 8, 43, 259]);
const OWN_MODELS = ["Mayastor NVMe controller", "Nexus_CAS_Driver"];
const LINUX_PARTITION_TYPES = ["0fc63daf-8483-4772-8e79-3d69d8477de4", "0x83"];

export type Partition = {
  readonly parent: string;
  readonly number: number;
  readonly name: string;
  readonly scheme: string;
  readonly typeid: string;
  readonly uuid: string;
};
export type Filesystem = {
  readonly fstype: string;
  readonly label: string;
  readonly uuid: string;
  readonly mountpoints: string[];
};
export type BlockDevice = {
  readonly devname: string;
  readonly devtype: "disk" | "partition";
  readonly devmajor: number;
  readonly devminor: number;
  readonly model: string;
  readonly devpath: string;
  readonly devlinks: string[];
  readonly size: bigint;
  readonly partition: Partition | null;
  readonly filesystem: Filesystem | null;
  readonly available: boolean;
  readonly connectionType: string;
  readonly isRotational: boolean;
};

/** Where to look; tests give a folder of their own. */
export type Roots = { readonly sys: string; readonly udev: string; readonly mountinfo: string };
export const SYSTEM_ROOTS: Roots = {
  sys: "/sys",
  udev: "/run/udev/data",
  mountinfo: "/proc/self/mountinfo",
};

async function readText(path: string): Promise<string> {
  return (await readFile(path, "utf8").catch(() => "")).trim();
}

/** `E:KEY=value` and `S:link` lines of one udev record. */
export function parseUdev(text: string): { values: Map<string, string>; links: string[] } {
  const values = new Map<string, string>();
  const links: string[] = [];
  for (const line of text.split("\n")) {
    const property = /^E:([^=]+)=(.*)$/.exec(line);
    if (property?.[1] !== undefined) values.set(property[1], property[2] ?? "");
    const link = /^S:(.+)$/.exec(line)?.[1];
    if (link !== undefined) links.push(`/dev/${link}`);
  }
  return { values, links };
}

/** Mount points by "major:minor", with their file system type. */
export function parseMountinfo(text: string): Map<string, { fstype: string; points: string[] }> {
  const mounts = new Map<string, { fstype: string; points: string[] }>();
  for (const line of text.split("\n")) {
    const match = /^\d+ \d+ (\d+:\d+) \S+ (\S+) .*? - (\S+) /.exec(line);
    const [, device, point, fstype] = match ?? [];
    if (device === undefined || point === undefined || fstype === undefined) continue;
    const readable = point.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    const known = mounts.get(device);
    if (known) known.points.push(readable);
    else mounts.set(device, { fstype, points: [readable] });
  }
  return mounts;
}

type Mounts = ReturnType<typeof parseMountinfo>;
type Found = {
  readonly folder: string;
  readonly name: string;
  readonly number: string;
  readonly udev: ReturnType<typeof parseUdev>;
  readonly partitions: string[];
};

async function inspect(roots: Roots, name: string): Promise<Found | null> {
  const folder = await realpath(join(roots.sys, "class/block", name)).catch(() => null);
  if (folder === null) return null;
  const number = await readText(join(folder, "dev"));
  if (!/^\d+:\d+$/.test(number)) return null;
  const udev = parseUdev(await readText(join(roots.udev, `b${number}`)));
  const entries = await readdir(folder).catch((): string[] => []);
  const partitions: string[] = [];
  for (const entry of entries) {
    if (entry.startsWith(name) && (await readText(join(folder, entry, "partition"))) !== "") {
      partitions.push(entry);
    }
  }
  return { folder, name, number, udev, partitions };
}

async function partitionOf(found: Found): Promise<Partition | null> {
  const index = await readText(join(found.folder, "partition"));
  if (index === "") return null;
  const { values } = found.udev;
  return {
    parent: `/dev/${basename(join(found.folder, ".."))}`,
    number: Number(index),
    name: values.get("PARTNAME") ?? values.get("ID_PART_ENTRY_NAME") ?? "",
    scheme: values.get("ID_PART_ENTRY_SCHEME") ?? "",
    typeid: values.get("ID_PART_ENTRY_TYPE") ?? "",
    uuid: values.get("ID_PART_ENTRY_UUID") ?? "",
  };
}

function filesystemOf(found: Found, mounts: Mounts): Filesystem | null {
  const mounted = mounts.get(found.number);
  const { values } = found.udev;
  const fstype = values.get("ID_FS_TYPE") ?? mounted?.fstype;
  if (fstype === undefined) return null;
  return {
    fstype,
    label: values.get("ID_FS_LABEL") ?? "",
    uuid: values.get("ID_FS_UUID") ?? "",
    mountpoints: mounted?.points ?? [],
  };
}

async function isHeld(found: Found): Promise<boolean> {
  const holders = await readdir(join(found.folder, "holders")).catch((): string[] => []);
  return holders.length > 0; // dm, md or bcache sits on it
}

async function connectionOf(found: Found): Promise<string> {
  const bus = found.udev.values.get("ID_BUS");
  if (bus !== undefined) return bus;
  const subsystem = await readlink(join(found.folder, "device/subsystem")).catch(() => "");
  return basename(subsystem);
}

async function describe(roots: Roots, found: Found, mounts: Mounts): Promise<BlockDevice> {
  const [major = 0, minor = 0] = found.number.split(":").map(Number);
  const size = BigInt((await readText(join(found.folder, "size"))) || "0");
  const partition = await partitionOf(found);
  const filesystem = filesystemOf(found, mounts);
  const model =
    found.udev.values.get("ID_MODEL") ?? (await readText(join(found.folder, "device/model")));
  const parentFolder = partition === null ? found.folder : join(found.folder, "..");
  const rotational = await readText(join(parentFolder, "queue/rotational"));
  const available =
    found.partitions.length === 0 &&
    size > 0n &&
    !OWN_MODELS.includes(model) &&
    USABLE_MAJORS.has(major) &&
    (partition === null || LINUX_PARTITION_TYPES.includes(partition.typeid.toLowerCase())) &&
    filesystem === null &&
    !(await isHeld(found));
  return {
    devname: `/dev/${found.name}`,
    devtype: partition === null ? "disk" : "partition",
    devmajor: major,
    devminor: minor,
    model,
    devpath: found.folder.replace(await realpath(roots.sys), ""),
    devlinks: found.udev.links,
    size,
    partition,
    filesystem,
    available,
    connectionType: await connectionOf(found),
    isRotational: rotational === "1",
  };
}

/** Disks and their partitions, in the order of their names; only available ones unless `all`. */
export async function listBlockDevices(
  { all }: { all: boolean },
  roots: Roots = SYSTEM_ROOTS,
): Promise<BlockDevice[]> {
  const names = (await readdir(join(roots.sys, "class/block")).catch((): string[] => [])).sort();
  const mounts = parseMountinfo(await readText(roots.mountinfo));
  const devices: BlockDevice[] = [];
  for (const name of names) {
    const found = await inspect(roots, name);
    if (found) devices.push(await describe(roots, found, mounts));
  }
  return all ? devices : devices.filter((device) => device.available);
}
