/**
 * Sizes of volumes: what is asked for, what the device gets, what a replica of it takes.
 *
 * Why: a target keeps the start and the end of each replica for its own use (5 MiB, and the place of a backup partition
 * table). A replica of just the volume's size would leave a device that is smaller than what was promised.
 * Invariants: a volume is at least as large as what was asked for, a multiple of 1 MiB and so of every block size; a
 * replica has room for all of it beside what the target keeps.
 */
import type { FileSystem } from "./csi/driver.ts";
import { SvcError } from "./errors.ts";

const MIB = 2 ** 20;

export const VOLUME_GRANULE_BYTES = MIB;
/** What a target keeps of each replica at least: 5 MiB before the data; after it 16 KiB and two blocks. */
const TARGET_BYTES_MIN = 5 * MIB + 16 * 2 ** 10 + 2 * 512;
/** 5 MiB before the data; after it 16 KiB and two blocks; in whole MiB. */
export const REPLICA_ROOM_BYTES = 6 * MIB;
/** Whatever is added or rounded up stays a whole number that JavaScript and REST hold exactly. */
export const VOLUME_BYTES_MAX =
  Math.floor(Number.MAX_SAFE_INTEGER / VOLUME_GRANULE_BYTES) * VOLUME_GRANULE_BYTES - 2 ** 40;

/** What the tools that make them take at least. */
const FILE_SYSTEM_BYTES_MIN: Readonly<Record<FileSystem, number>> = {
  ext4: 2 * MIB,
  xfs: 300 * MIB,
  btrfs: 128 * MIB,
};

/**
 * The size of a volume for which so much was asked.
 * @throws {SvcError} `out-of-range`
 */
export function volumeSizeFor(bytes: number): number {
  if (bytes > VOLUME_BYTES_MAX) {
    throw new SvcError(
      "out-of-range",
      `Cannot make a volume of ${bytes} bytes: ${VOLUME_BYTES_MAX} is the most`,
    );
  }
  return Math.ceil(bytes / VOLUME_GRANULE_BYTES) * VOLUME_GRANULE_BYTES;
}

/** The least volume that can hold such a file system; null: it is used as a raw block device. */
export function volumeSizeMin(fileSystem: FileSystem | null): number {
  return fileSystem === null ? VOLUME_GRANULE_BYTES : FILE_SYSTEM_BYTES_MIN[fileSystem];
}

/** The size of the replicas of a new volume. */
export function replicaSizeFor(volumeBytes: number): number {
  return volumeBytes + REPLICA_ROOM_BYTES;
}

/** A replica that is smaller surely has not room for the whole volume. */
export function replicaSizeMin(volumeBytes: number): number {
  return volumeBytes + TARGET_BYTES_MIN;
}
