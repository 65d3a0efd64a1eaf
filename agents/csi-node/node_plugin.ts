/**
 * The private node service: freezing a volume's file system and finding what a volume is on this node.
 *
 * Invariants: a freeze that finds the file system frozen, and a thaw that finds it thawed, succeed; a volume without
 * a file system is refused.
 */
import { SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { NodePlugin, VolumeType } from "#common/proto/generated/csi/node_service_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { type NodeContext, volumeNameOf } from "./context.ts";
import { isNodeOf, type Mount, mountsOf } from "./mounts.ts";
import { findDevice, type NvmeDevice } from "./nvme.ts";

const FREEZE_MS = 30_000;

async function find(
  { system }: NodeContext,
  volumeId: string,
): Promise<{ device: NvmeDevice; mounts: Mount[] }> {
  if (!isUuid(volumeId)) {
    throw new SvcError("invalid-argument", `Cannot find volume "${volumeId}": it is not a uuid`);
  }
  const device = await findDevice(system, volumeNameOf(volumeId.toLowerCase()));
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

async function fsfreeze(
  context: NodeContext,
  volumeId: string,
  how: "--freeze" | "--unfreeze",
): Promise<Record<string, never>> {
  const { device, mounts } = await find(context, volumeId);
  const mount = mounts.find((one) => !isNodeOf(one, device));
  if (mount === undefined) {
    throw new SvcError(
      "failed-precondition",
      `Cannot freeze volume ${volumeId}: it is a raw block volume`,
    );
  }
  const { code, stderr } = await context.system.run("fsfreeze", [how, mount.path], FREEZE_MS);
  // EBUSY: frozen already; EINVAL: not frozen.
  const isDone = how === "--freeze" ? /busy/i.test(stderr) : /invalid argument/i.test(stderr);
  if (code === 0 || isDone) return {};
  throw new SvcError("internal", `Cannot run fsfreeze ${how} ${mount.path}: ${stderr.trim()}`);
}

export function nodePluginService(context: NodeContext): GrpcService {
  return makeService(NodePlugin, {
    freezeFS: ({ volumeId }) => fsfreeze(context, volumeId, "--freeze"),
    unfreezeFS: ({ volumeId }) => fsfreeze(context, volumeId, "--unfreeze"),
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
