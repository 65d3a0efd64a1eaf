/**
 * Publishing: show a staged volume at a pod's path, as a folder or as a device file; and the way back.
 *
 * Invariants: the pod's path is only ever a bind mount of the staged file system or of the device node; a repeat with
 * the same wish is no error, with another wish it is `already-exists`. Callers hold the volume's guard.
 */
import { createHash } from "node:crypto";
import path from "node:path";
import { SvcError } from "#common/errors.ts";
import type { NodeContext, VolumeName } from "./context.ts";
import {
  bindMount,
  bindMountWith,
  clearDeadMounts,
  isFileSystemOf,
  isNodeOf,
  isReadOnly,
  type Mount,
  mountAt,
  mountsOf,
  ownFlags,
  unmount,
} from "./mounts.ts";
import { findDevice, type NvmeDevice } from "./nvme.ts";
import { devicesOf } from "./publications.ts";
import type { Access } from "./stage.ts";

export type PublishRequest = {
  readonly volume: VolumeName;
  readonly stagingPath: string;
  readonly targetPath: string;
  readonly readOnly: boolean;
  readonly access: Access;
};

async function checkParent({ system }: NodeContext, targetPath: string): Promise<void> {
  const parent = path.dirname(await system.resolve(targetPath));
  if ((await system.kind(parent)) === "directory") return;
  throw new SvcError(
    "internal",
    `Cannot publish at ${targetPath}: folder ${parent} does not exist`,
  );
}

const refuse = (why: string) => new SvcError("invalid-argument", `Cannot publish: ${why}`);
const notStaged = (why: string) =>
  new SvcError("failed-precondition", `Cannot publish: ${why}; stage it first`);

async function stagedMount(
  { system }: NodeContext,
  stagingPath: string,
  device: NvmeDevice,
): Promise<Mount> {
  const staged = await mountAt(system, stagingPath);
  if (staged !== null && isFileSystemOf(staged, device)) return staged;
  throw notStaged(`the volume is not staged at ${stagingPath}`);
}

async function publishMount(
  context: NodeContext,
  request: PublishRequest & { readonly device: NvmeDevice },
): Promise<void> {
  const { system, detourFolder } = context;
  const { stagingPath, targetPath, device, access } = request;
  if (access.type !== "mount") return;
  const staged = await stagedMount(context, stagingPath, device);
  if (staged.fsType !== access.fsType) {
    throw refuse(`the volume is staged as ${staged.fsType}, not ${access.fsType}`);
  }
  const readOnly = request.readOnly || access.flags.includes("ro");
  if (isReadOnly(staged) && !readOnly) throw refuse("the volume is staged read-only");
  const flags = ownFlags(access.flags).filter((flag) => flag !== "ro");
  const there = await mountAt(system, targetPath);
  if (there !== null) {
    if (!isFileSystemOf(there, device)) {
      throw new SvcError(
        "already-exists",
        `Cannot publish at ${targetPath}: ${there.source} is mounted there`,
      );
    }
    const missing = flags.filter((flag) => !there.options.includes(flag));
    if (isReadOnly(there) !== readOnly || missing.length > 0) {
      throw new SvcError(
        "already-exists",
        `Cannot publish at ${targetPath}: it is published with other flags`,
      );
    }
    return;
  }
  await system.makeFolder(targetPath);
  const wanted = [...flags, ...(readOnly ? ["ro"] : [])];
  if (wanted.every((flag) => staged.options.includes(flag))) {
    return await bindMount(system, stagingPath, targetPath); // has them all from the staged mount
  }
  const name = createHash("sha256").update(targetPath).digest("hex").slice(0, 16);
  const detour = path.join(detourFolder, `${request.volume.uuid}-${name}`);
  await bindMountWith(system, { source: stagingPath, at: targetPath, detour, flags: wanted });
}

async function publishBlock(
  { system }: NodeContext,
  { targetPath, device, stagingPath }: PublishRequest & { readonly device: NvmeDevice },
): Promise<void> {
  const staged = await mountAt(system, stagingPath);
  if (staged !== null && isFileSystemOf(staged, device)) {
    throw refuse("the volume is staged with a file system, not as a block device");
  }
  const there = await mountAt(system, targetPath);
  if (there !== null) {
    if (isNodeOf(there, device)) return;
    throw new SvcError(
      "already-exists",
      `Cannot publish at ${targetPath}: ${there.source} is mounted there`,
    );
  }
  const kind = await system.kind(targetPath);
  if (kind !== null && kind !== "file") {
    throw new SvcError("already-exists", `Cannot publish at ${targetPath}: a ${kind} is there`);
  }
  await system.makeFile(targetPath);
  await bindMount(system, device.node, targetPath);
}

/** @throws {SvcError} `failed-precondition` (not staged), `invalid-argument`, `already-exists`, `internal` */
export async function publish(context: NodeContext, request: PublishRequest): Promise<void> {
  const { log, system } = context;
  const { volume, targetPath, access } = request;
  const device = await findDevice(system, volume);
  if (device === null) throw notStaged(`volume ${volume.uuid} is not attached to this node`);
  await checkParent(context, targetPath);
  const there = await clearDeadMounts(context, targetPath);
  const isNew = there === null && (await system.kind(targetPath)) === null;
  try {
    const all = { ...request, device };
    await (access.type === "mount" ? publishMount(context, all) : publishBlock(context, all));
  } catch (error) {
    // Leaves no empty folder or file that it made.
    if (isNew && (await mountAt(system, targetPath)) === null)
      await removeTarget(context, targetPath);
    throw error;
  }
  log.info("volume is at its target", { "volume.uuid": volume.uuid, path: targetPath });
}

async function removeTarget({ system }: NodeContext, targetPath: string): Promise<void> {
  const kind = await system.kind(targetPath);
  if (kind === "directory") await system.removeFolder(targetPath);
  else if (kind === "file") await system.removeFile(targetPath);
}

/** Absent counts as unpublished. @throws {SvcError} `internal`, `failed-precondition` (another volume's) */
export async function unpublish(
  context: NodeContext,
  { uuid, targetPath }: { readonly uuid: string; readonly targetPath: string },
): Promise<void> {
  const { system, log } = context;
  const there = await clearDeadMounts(context, targetPath);
  const devices = await devicesOf(system, uuid); // an earlier publication's mount may still be there
  if (there !== null && devices.length > 0) {
    const own = await Promise.all(devices.map((device) => mountsOf(system, device)));
    if (!own.flat().some((mount) => mount.id === there.id)) {
      throw new SvcError(
        "failed-precondition",
        `Cannot unpublish volume ${uuid}: ${there.source} of something else is mounted at ${targetPath}`,
      );
    }
  }
  await unmount(system, targetPath);
  await removeTarget(context, targetPath);
  log.info("volume is gone from its target", { "volume.uuid": uuid, path: targetPath });
}
