/**
 * File systems on a volume: what is there, making one, checking one.
 *
 * Invariant: a file system is made only on a device that can be read and in which blkid(8), asked twice, and a look of
 * our own find nothing at all; doubt is a failure, never a reason to format. The one exception is what mkfs.xfs has
 * left when it was cut short: it says so itself, and no kernel has ever mounted it.
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

/** Documentation of the xfs on-disk format, struct xfs_dsb. */
const XFS_SUPERBLOCK_BYTES = 512;
const XFS_IN_PROGRESS_AT = 126;

/** Exit codes of blkid(8) in probing mode. */
const BLKID_NOTHING = 2;
const BLKID_AMBIGUOUS = 8;
/** fsck(8): clean, or everything was mended. */
const FSCK_GOOD_MAX = 1;

/** What volumes are likely to hold, and where it says so: each format's own documentation. */
const SIGNATURES: readonly { at: number; bytes: string; what: string }[] = [
  { at: 1024 + 56, bytes: "53ef", what: "ext4" },
  { at: 0, bytes: "58465342", what: "xfs" },
  { at: 0x10040, bytes: "5f42485266535f4d", what: "btrfs" },
  { at: 0, bytes: "4c554b53babe", what: "LUKS" },
  { at: 512, bytes: "4c4142454c4f4e45", what: "LVM" },
  { at: 512, bytes: "4546492050415254", what: "a partition table" },
  { at: 4096, bytes: "4546492050415254", what: "a partition table" },
];

/** The format that the start of a device shows; null when it is none that this program knows. */
export function signatureIn(start: Buffer): string | null {
  const found = SIGNATURES.find(({ at, bytes }) => {
    const wanted = Buffer.from(bytes, "hex");
    return start.subarray(at, at + wanted.length).equals(wanted);
  });
  return found?.what ?? null;
}

const refuse = (node: string, why: string) =>
  new SvcError("failed-precondition", `Cannot use ${node} for a file system: ${why}`);

/** One look with blkid(8); null when it says that it found nothing. */
async function identify(system: NodeSystem, node: string): Promise<string | null> {
  const { code, stdout, stderr } = await system.run(
    "blkid",
    ["-p", "-o", "export", node],
    PROBE_MS,
  );
  if (code === BLKID_AMBIGUOUS) throw refuse(node, "it has signatures of several");
  if (code === BLKID_NOTHING) return null;
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
  throw refuse(node, table ? `it has a partition table (${table})` : "it holds something unknown");
}

/**
 * Type of the file system on the device; null when the device holds nothing.
 *
 * blkid says "nothing" also when it could not read: while paths fail and come back, that would make a volume full of
 * data look new. So "nothing" counts only if the start can be read, shows nothing to this program either, and blkid
 * says it again afterwards.
 * @throws {SvcError} `failed-precondition` when it holds something else, `internal` when that cannot be told
 */
export async function probe(
  system: NodeSystem,
  { node, bytes }: NvmeDevice,
): Promise<string | null> {
  const first = await identify(system, node);
  if (first !== null) return first;
  const start = await system.readStart(node, bytes < READ_BYTES ? Number(bytes) : READ_BYTES);
  const signature = signatureIn(start);
  const again = await identify(system, node);
  if (again !== null || signature === null) return again;
  throw new SvcError(
    "internal",
    `Cannot probe ${node}: it shows ${signature}, blkid finds nothing; it is kept as it is. Repair it by hand, or, if it never held data, wipe its start: wipefs -a ${node}`,
  );
}

/** sb_inprogress of the superblock: mkfs.xfs sets it first and clears it last, and the kernel refuses to mount it. */
async function isUnfinishedXfs(system: NodeSystem, { node }: NvmeDevice): Promise<boolean> {
  const superblock = await system.readStart(node, XFS_SUPERBLOCK_BYTES);
  return superblock.toString("latin1", 0, 4) === "XFSB" && superblock[XFS_IN_PROGRESS_AT] === 1;
}

async function make(
  system: NodeSystem,
  device: NvmeDevice,
  { fsType, force = false }: { readonly fsType: FileSystem; readonly force?: boolean },
): Promise<void> {
  const args = force ? ["-f", device.node] : [device.node];
  const { code, stderr } = await system.run(`mkfs.${fsType}`, args, MKFS_MS);
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
    await make(system, device, { fsType });
    return "made";
  }
  if (found !== fsType) {
    throw new SvcError(
      "failed-precondition",
      `Cannot mount ${device.node} as ${fsType}: it holds ${found}, which is kept`,
    );
  }
  if (fsType === "xfs" && (await isUnfinishedXfs(system, device))) {
    await make(system, device, { fsType, force: true });
    return "made";
  }
  await check(system, device, fsType);
  return "kept";
}
