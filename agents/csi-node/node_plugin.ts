/**
 * The private node service: freezing a volume's file system and finding what a volume is on this node.
 *
 * Invariants: a freeze that finds the file system frozen, and a thaw that finds it thawed, succeed; a volume without
 * a file system is refused. A freeze holds the volume's guard, so that nobody unmounts the path it was found at: fsfreeze
 * takes any folder, and would freeze the node's own file system. A freeze that does not end in time is thawed again.
 */
import type { VolumeGuard } from "#common/csi/guard.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { NodePlugin, VolumeType } from "#common/proto/generated/csi/node_service_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NodeContext } from "./context.ts";
import { isNodeOf, type Mount, mountAt, mountsOf } from "./mounts.ts";
import { findDevice, type NvmeDevice } from "./nvme.ts";
import { presentPublication } from "./publications.ts";

const FREEZE_MS = 30_000;
/** EINVAL of the thaw. */
const NOT_FROZEN = /invalid argument/i;

export type NodePluginParts = {
  readonly context: NodeContext;
  /** The one that the CSI node service takes. */
  readonly guard: VolumeGuard;
};

async function find(
  { system }: Pick<NodeContext, "system">,
  volumeId: string,
): Promise<{ device: NvmeDevice; mounts: Mount[] }> {
  if (!isUuid(volumeId)) {
    throw new SvcError("invalid-argument", `Cannot find volume "${volumeId}": it is not a uuid`);
  }
  const device = await findDevice(system, await presentPublication(system, volumeId.toLowerCase()));
  if (device === null) {
    throw new SvcError(
      "not-found",
      `Cannot find volume ${volumeId}: it is not attached to this node`,
    );
  }
  const mounts = await mountsOf(system, device);
  if (mounts.length === 0) {
    throw new SvcError("failed-precondition", `Cannot use volume ${volumeId}: it is not mounted`);
  }
  return { device, mounts };
}

/** Where the volume's file system is what a path leads to. */
async function fileSystemPath({ system }: NodeContext, volumeId: string): Promise<string> {
  const { device, mounts } = await find({ system }, volumeId);
  const fileSystems = mounts.filter((mount) => !isNodeOf(mount, device));
  const refuse = (why: string) =>
    new SvcError("failed-precondition", `Cannot freeze or thaw volume ${volumeId}: ${why}`);
  if (fileSystems.length === 0) throw refuse("it is a raw block volume");
  for (const { id, path } of fileSystems) {
    if ((await mountAt(system, path))?.id === id) return path;
  }
  throw refuse("something else is mounted over its file system");
}

async function freeze(context: NodeContext, volumeId: string): Promise<void> {
  const { system } = context;
  const path = await fileSystemPath(context, volumeId);
  const { code, stderr } = await system.run("fsfreeze", ["--freeze", path], FREEZE_MS);
  if (code === 0 || /busy/i.test(stderr)) return; // EBUSY: frozen already
  const failed = `Cannot run fsfreeze --freeze ${path}: ${stderr.trim() || `exit code ${code}`}`;
  if (code !== null) throw new SvcError("internal", failed);
  // It was ended, but the kernel may have frozen the file system all the same.
  const thaw = await system.run("fsfreeze", ["--unfreeze", path], FREEZE_MS);
  const isThawed = thaw.code === 0 || NOT_FROZEN.test(thaw.stderr);
  const state = isThawed ? "it is not frozen" : "it may be frozen: call UnfreezeFS";
  throw new SvcError("internal", `${failed}; ${state}`);
}

/** Without the guard: a call that hangs on the frozen file system must not keep it frozen. */
async function thaw(context: NodeContext, volumeId: string): Promise<void> {
  const path = await fileSystemPath(context, volumeId);
  const { code, stderr } = await context.system.run("fsfreeze", ["--unfreeze", path], FREEZE_MS);
  if (code === 0 || NOT_FROZEN.test(stderr)) return;
  throw new SvcError("internal", `Cannot run fsfreeze --unfreeze ${path}: ${stderr.trim()}`);
}

export function nodePluginService({ context, guard }: NodePluginParts): GrpcService {
  return makeService(NodePlugin, {
    freezeFS: async ({ volumeId }) => {
      await guard.run(volumeId.toLowerCase(), "FreezeFS", () => freeze(context, volumeId));
      return {};
    },
    unfreezeFS: async ({ volumeId }) => {
      await thaw(context, volumeId);
      return {};
    },
    findVolume: async ({ volumeId }) => {
      const { device, mounts } = await find(context, volumeId);
      const isBlock = mounts.every((mount) => isNodeOf(mount, device));
      return {
        volumeType: isBlock ? VolumeType.RAWBLOCK : VolumeType.FILESYSTEM,
        devicePath: device.node,
      };
    },
  });
}
