/**
 * Staging: attach a volume to this node and mount its file system at the staging path; and the way back.
 *
 * Invariants:
 * - Every step looks at what is there first, so a repeat after any interruption (plugin, kubelet or node restart)
 *   continues instead of failing.
 * - A failed stage leaves no connection behind that it made itself.
 * - A volume is disconnected only when nothing on the node has it mounted any more.
 * Callers hold the volume's guard.
 */
import type { FileSystem } from "#common/csi/driver.ts";
import { isKind, SvcError } from "#common/errors.ts";
import type { Attachment, NodeContext, VolumeName } from "./context.ts";
import { ensure } from "./filesystem.ts";
import {
  clearDeadMounts,
  isFileSystemOf,
  isReadOnly,
  mountFileSystem,
  mountsOf,
  ownFlags,
  remount,
  unmount,
} from "./mounts.ts";
import {
  connect,
  controllersOf,
  disconnect,
  dropDeadPaths,
  dropPath,
  findDevice,
  hasUsablePath,
  type NvmeDevice,
  setIoTimeout,
  waitForDevice,
} from "./nvme.ts";
import {
  presentPublication,
  publicationsOnNode,
  removeEarlier,
  removePublication,
} from "./publications.ts";
import { whereIs } from "./whereabouts.ts";

/** How long the kernel gets to let go of a file system after its last unmount. */
const RELEASE_POLLS = 10;
const RELEASE_POLL_MS = 200;

export type Access =
  | { readonly type: "block" }
  | { readonly type: "mount"; readonly fsType: FileSystem; readonly flags: readonly string[] };

export type StageRequest = {
  readonly volume: VolumeName;
  readonly stagingPath: string;
  readonly attachment: Attachment;
  readonly access: Access;
};

/**
 * Connects, unless that fails while the volume works over another address: a publish context lives as long as its
 * VolumeAttachment, so after the target has moved it may name a place where nobody listens any more.
 */
async function addConnection(
  { system, machineId, log }: NodeContext,
  { volume, attachment }: StageRequest,
): Promise<void> {
  const { address, port } = attachment.connect;
  const fields = { "volume.uuid": volume.uuid, address, port };
  try {
    if (await connect(system, attachment.connect, machineId)) log.info("volume connected", fields);
  } catch (error) {
    if (!isKind(error, "unavailable") || !(await hasUsablePath(system, volume.nqn))) throw error;
    log.warn("volume keeps its paths: its target cannot be reached at the published address", {
      ...{ ...fields, error },
    });
  }
}

/** Connects and waits for the device. */
async function attachAt(context: NodeContext, request: StageRequest): Promise<NvmeDevice> {
  const { system, clock } = context;
  const { volume, attachment } = request;
  await addConnection(context, request);
  const device = await waitForDevice(system, volume, clock);
  await dropDeadPaths(system, attachment.connect);
  return device;
}

/** The request with the address where the target is now; null when nobody knows a better one. */
async function movedRequest(
  { readVolume, nodeName, log }: NodeContext,
  request: StageRequest,
): Promise<StageRequest | null> {
  if (readVolume === null) return null;
  const { volume, attachment } = request;
  const { connect } = attachment;
  const fields = { "volume.uuid": volume.uuid, address: connect.address, port: connect.port };
  try {
    const found = whereIs(await readVolume(volume.uuid), { connect, nodeName });
    if (found.is === "unknown") {
      log.info("no other address of the volume's target", { ...fields, why: found.why });
      return null;
    }
    const { address, port } = found;
    log.info("volume's target has moved", { ...fields, "new.address": address, "new.port": port });
    return { ...request, attachment: { ...attachment, connect: { ...connect, address, port } } };
  } catch (error) {
    log.warn("the volume's target cannot be asked for", { ...fields, error }); // the first failure is what counts
    return null;
  }
}

/**
 * Attaches the volume where it was published or, when nothing is there, where its target has moved since; `isNew` when
 * nothing of the volume was there before.
 */
async function attach(
  context: NodeContext,
  request: StageRequest,
): Promise<{ readonly device: NvmeDevice; readonly isNew: boolean }> {
  const { system } = context;
  const { volume, attachment } = request;
  const isNew = (await controllersOf(system, volume.nqn)).length === 0;
  try {
    try {
      return { device: await attachAt(context, request), isNew };
    } catch (error) {
      const moved = isKind(error, "unavailable") ? await movedRequest(context, request) : null;
      if (moved === null) throw error;
      const device = await attachAt(context, moved);
      // What answered at the former address shows no namespace: it is not the volume's target any more.
      if (isNew) await dropPath(system, attachment.connect);
      return { device, isNew };
    }
  } catch (error) {
    if (isNew) await detachQuietly(context, volume);
    throw error;
  }
}

/** Undoes a connection after a failure, unless something uses it; the failure is what gets reported. */
async function detachQuietly(
  { system, clock, log }: NodeContext,
  volume: VolumeName,
): Promise<void> {
  try {
    const device = await findDevice(system, volume);
    if (device !== null && (await mountsOf(system, device)).length > 0) return;
    await disconnect(system, volume.nqn, clock);
  } catch (error) {
    log.warn("volume stays connected after a failed stage", { "volume.uuid": volume.uuid, error });
  }
}

async function stageFileSystem(
  context: NodeContext,
  {
    stagingPath,
    device,
    fsType,
    flags,
  }: {
    stagingPath: string;
    device: NvmeDevice;
    fsType: FileSystem;
    flags: readonly string[];
  },
): Promise<void> {
  const { system, log } = context;
  const wantsReadOnly = flags.includes("ro");
  const there = await clearDeadMounts(context, stagingPath);
  if (there !== null && isFileSystemOf(there, device)) {
    if (there.fsType !== fsType) {
      throw new SvcError(
        "already-exists",
        `Cannot stage at ${stagingPath}: it is staged as ${there.fsType}`,
      );
    }
    const missing = ownFlags(flags).filter(
      (flag) => flag !== "ro" && !there.options.includes(flag),
    );
    if (missing.length > 0) {
      throw new SvcError(
        "already-exists",
        `Cannot stage at ${stagingPath}: it is staged without ${missing.join(", ")}`,
      );
    }
    if (isReadOnly(there) !== wantsReadOnly) {
      await remount(system, stagingPath, { readOnly: wantsReadOnly, bind: false });
    }
    return;
  }
  if (there !== null) {
    throw new SvcError(
      "already-exists",
      `Cannot stage at ${stagingPath}: ${there.source} is mounted there`,
    );
  }
  const [elsewhere] = await mountsOf(system, device);
  if (elsewhere !== undefined) {
    throw new SvcError(
      "already-exists",
      `Cannot stage ${device.node}: it is mounted at ${elsewhere.path}`,
    );
  }
  await system.makeFolder(stagingPath);
  const how = await ensure(system, device, fsType);
  await mountFileSystem(system, { device, at: stagingPath, fsType, flags });
  log.info("volume mounted", { device: device.name, path: stagingPath, fsType, fileSystem: how });
}

/** @throws {SvcError} `already-exists` when the volume is staged with a file system */
async function checkRaw(
  context: NodeContext,
  stagingPath: string,
  device: NvmeDevice,
): Promise<void> {
  const there = await clearDeadMounts(context, stagingPath);
  if (there === null || !isFileSystemOf(there, device)) return;
  throw new SvcError(
    "already-exists",
    `Cannot stage ${device.node} as a block device: it is staged as ${there.fsType} at ${stagingPath}`,
  );
}

/** @throws {SvcError} `unavailable` (no device), `already-exists`, `failed-precondition`, `internal` */
export async function stage(context: NodeContext, request: StageRequest): Promise<void> {
  const { system } = context;
  const { volume, attachment, access, stagingPath } = request;
  await removeEarlier(context, volume);
  const { device, isNew } = await attach(context, request);
  try {
    if (attachment.ioTimeout !== null) {
      await setIoTimeout(system, { nqn: volume.nqn, device, seconds: attachment.ioTimeout });
    }
    if (access.type === "block") return await checkRaw(context, stagingPath, device);
    const { fsType, flags } = access;
    await stageFileSystem(context, { stagingPath, device, fsType, flags });
  } catch (error) {
    if (isNew) await detachQuietly(context, volume);
    throw error;
  }
}

/**
 * True while the kernel still runs the file system, mounted somewhere that this program cannot see: the device is
 * claimed then, whatever the file system's type; /proc also tells of ext4 whose device has gone already.
 */
async function isInUse({ system }: NodeContext, { name, node }: NvmeDevice): Promise<boolean> {
  if ((await system.list("/proc/fs/ext4")).includes(name)) return true;
  if ((await system.list("/proc/fs/jbd2")).some((entry) => entry.startsWith(`${name}-`)))
    return true;
  return await system.isClaimed(node);
}

async function waitReleased(context: NodeContext, device: NvmeDevice): Promise<void> {
  for (let poll = 0; poll <= RELEASE_POLLS; poll++) {
    if (!(await isInUse(context, device))) return;
    await context.clock.sleep(RELEASE_POLL_MS);
  }
  throw new SvcError(
    "failed-precondition",
    `Cannot detach ${device.node}: its file system is still mounted in another mount namespace`,
  );
}

/** Refuses when what is mounted at the staging path belongs to something else; a lost device's mount goes. */
async function checkOwn(
  context: NodeContext,
  {
    volume,
    stagingPath,
    device,
  }: { volume: VolumeName; stagingPath: string; device: NvmeDevice | null },
): Promise<void> {
  const live = await clearDeadMounts(context, stagingPath);
  if (live === null || (device !== null && isFileSystemOf(live, device))) return;
  throw new SvcError(
    "internal",
    `Cannot unstage volume ${volume.uuid}: ${live.source} of something else is mounted at ${stagingPath}`,
  );
}

/** @throws {SvcError} `internal` (still published), `failed-precondition` (still mounted elsewhere) */
export async function unstage(
  context: NodeContext,
  { uuid, stagingPath }: { readonly uuid: string; readonly stagingPath: string },
): Promise<void> {
  const { system, clock, log } = context;
  const volume = await presentPublication(system, uuid);
  // The volume leaves this node: what a cut-off left of earlier publications goes with it.
  for (const other of await publicationsOnNode(system, uuid)) {
    if (other.nqn !== volume.nqn) await removePublication(context, other);
  }
  const device = await findDevice(system, volume);
  await checkOwn(context, { volume, stagingPath, device });
  if (device !== null) {
    const staged = await system.resolve(stagingPath);
    const other = (await mountsOf(system, device)).find((mount) => mount.path !== staged);
    if (other !== undefined) {
      throw new SvcError(
        "internal",
        `Cannot unstage volume ${uuid}: it is still mounted at ${other.path}`,
      );
    }
    await unmount(system, stagingPath);
    await waitReleased(context, device);
  }
  if ((await controllersOf(system, volume.nqn)).length === 0) return;
  await disconnect(system, volume.nqn, clock);
  log.info("volume disconnected", { "volume.uuid": uuid });
}
