/**
 * File systems on a volume: what is there, making one, checking one.
 *
 * Invariant: a file system is made only on a device that can be read and in which blkid(8) finds nothing at all;
 * doubt is a failure, never a reason to format.
 */
import type { FileSystem } from "#common/csi/driver.ts";
import { SvcError } from "#common/errors.ts";
import type { NvmeDevice } from "./nvme.ts";
import type { NodeSystem } from "./system.ts";

const PROBE_MS = 60_000;
/** Big volumes on slow networks; the caller's own deadline passes long before. */
const MKFS_MS = 1_800_000;
const CHECK_MS = 1_800_000;
/** Covers every superblock that blkid looks for at the start. */
const READ_BYTES = 1024 * 1024;

/** Exit codes of blkid(8) in probing mode. */
const BLKID_NOTHING = 2;
const BLKID_AMBIGUOUS = 8;
/** fsck(8): clean, or everything was mended. */
const FSCK_GOOD_MAX = 1;

/**
 * Type of the file system on the device; null when the device holds nothing.
 * @throws {SvcError} `failed-precondition` when it holds something else, `internal` when that cannot be told
 */
export async function probe(system: NodeSystem, { node }: NvmeDevice): Promise<string | null> {
  const { code, stdout, stderr } = await system.run(
    "blkid",
    ["-p", "-o", "export", node],
    PROBE_MS,
  );
  const refuse = (why: string) =>
    new SvcError("failed-precondition", `Cannot use ${node} for a file system: ${why}`);
  if (code === BLKID_AMBIGUOUS) throw refuse("it has signatures of several");
  if (code === BLKID_NOTHING) {
    // blkid answers the same for a device that it could not read.
    await system.readStart(node, READ_BYTES);
    return null;
  }
  if (code !== 0) {
    throw new SvcError("internal", `Cannot probe ${node}: ${stderr.trim() || `exit code ${code}`}`);
  }
  const values = new Map(
    stdout.split("\n").map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)] as const;
    }),
  );
  const type = values.get("TYPE");
  if (type) return type;
  const table = values.get("PTTYPE");
  throw refuse(table ? `it has a partition table (${table})` : "it holds something unknown");
}

async function make(system: NodeSystem, device: NvmeDevice, fsType: FileSystem): Promise<void> {
  const { code, stderr } = await system.run(`mkfs.${fsType}`, [device.node], MKFS_MS);
  if (code === 0) return;
  const why = stderr.trim() || `exit code ${code}`;
  throw new SvcError("internal", `Cannot make ${fsType} on ${device.node}: ${why}`);
}

/** Replays and mends what is safe to mend; xfs and btrfs do so when mounted. */
async function check(system: NodeSystem, device: NvmeDevice, fsType: FileSystem): Promise<void> {
  if (fsType !== "ext4") return;
  const { code, stdout, stderr } = await system.run("fsck.ext4", ["-p", device.node], CHECK_MS);
  if (code === null && /ENOENT/.test(stderr)) return; // not installed: mounting still replays the journal
  if (code !== null && code <= FSCK_GOOD_MAX) return;
  throw new SvcError(
    "internal",
    `Cannot mount ${device.node}: its file system needs repair by hand: ${stdout.trim()} ${stderr.trim()}`,
  );
}

/** Leaves a checked file system of this type on the device; an existing one is kept as it is. */
export async function ensure(
  system: NodeSystem,
  device: NvmeDevice,
  fsType: FileSystem,
): Promise<"made" | "kept"> {
  const found = await probe(system, device);
  if (found === null) {
    await make(system, device, fsType);
    return "made";
  }
  if (found !== fsType) {
    throw new SvcError(
      "failed-precondition",
      `Cannot mount ${device.node} as ${fsType}: it holds ${found}, which is kept`,
    );
  }
  await check(system, device, fsType);
  return "kept";
}
