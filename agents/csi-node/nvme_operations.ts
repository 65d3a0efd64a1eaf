/**
 * The private service on the CSI socket that gives an attached volume one more path: its target has moved, and I/O waits
 * for the new address.
 *
 * Invariants: a volume that is not attached is never attached here; former paths stay, whoever asked removes them. No
 * guard of the CSI calls is taken: a mount or unmount that hangs on the dead path is what the new one sets free.
 */
import { VolumeGuard } from "#common/csi/guard.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { NQN_PREFIX } from "#common/nqn.ts";
import { NvmeOperations } from "#common/proto/generated/csi/nvme_operations_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { volumeOfName } from "#common/types/publication.ts";
import { type Attachment, type NodeContext, parseAttachment, type VolumeName } from "./context.ts";
import {
  connect,
  controllersOf,
  dropPath,
  findDevice,
  isAt,
  setIoTimeout,
  waitForPath,
} from "./nvme.ts";
import { generationOfNqn } from "./publications.ts";
import { parseNvmfUri } from "./uri.ts";

/** @throws {SvcError} `invalid-argument` when the URI leads to something else than a volume */
function volumeOf(uri: string): VolumeName {
  const { nqn } = parseNvmfUri(uri);
  const uuid = volumeOfName(nqn.slice(NQN_PREFIX.length + 1));
  if (isUuid(uuid) && uuid === uuid.toLowerCase() && generationOfNqn(uuid, nqn) !== null) {
    return { uuid, nqn };
  }
  throw new SvcError("invalid-argument", `Cannot connect to ${nqn}: it is not the NQN of a volume`);
}

async function addPath(
  context: NodeContext,
  { volume, attachment }: { readonly volume: VolumeName; readonly attachment: Attachment },
): Promise<void> {
  const { system, clock, machineId, log } = context;
  const { uuid, nqn } = volume;
  const { address, port } = attachment.connect;
  const absent = (when: string) =>
    new SvcError("not-found", `Cannot add a path to volume ${uuid}: it is not attached ${when}`);
  const present = async () =>
    (await controllersOf(system, nqn)).filter(({ state }) => !state.startsWith("delet"));
  if ((await present()).length === 0) throw absent("to this node");
  if (await connect(system, attachment.connect, machineId)) {
    if ((await present()).every((path) => isAt(path, attachment.connect))) {
      // The volume was detached meanwhile: nothing may come back behind its back.
      await dropPath(system, attachment.connect);
      throw absent("any more");
    }
    log.info("volume has a new path", { "volume.uuid": uuid, address, port });
  }
  if (attachment.ioTimeout === null) return;
  if (!(await waitForPath(system, attachment.connect, clock))) {
    log.warn("new path shows no namespace yet: its I/O timeout is the driver's default", {
      ...{ "volume.uuid": uuid, address, port },
    });
  }
  const device = await findDevice(system, volume);
  if (device === null) return; // lost meanwhile: no queue to set
  await setIoTimeout(system, { nqn, device, seconds: attachment.ioTimeout });
}

export function nvmeOperationsService(context: NodeContext): GrpcService {
  const guard = new VolumeGuard();
  return makeService(NvmeOperations, {
    nvmeConnect: async ({ uri, publishContext }) => {
      const volume = volumeOf(uri);
      const attachment = parseAttachment(volume, { ...publishContext?.map, uri }, context);
      await guard.run(volume.uuid, "NvmeConnect", () => addPath(context, { volume, attachment }));
      return {};
    },
  });
}
