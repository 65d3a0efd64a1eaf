/**
 * Statistics and condition of a volume on this node.
 *
 * Invariants: read-only and quick: nothing here waits for the volume's storage; a file system that has given up is a
 * condition of the volume, not a failure of the call.
 */
import { SvcError } from "#common/errors.ts";
import { VolumeUsage_Unit as Unit } from "#common/proto/generated/csi/v1/csi_pb.ts";
import type { NodeContext, VolumeName } from "./context.ts";
import { isDead, isFileSystemOf, isNodeOf, isReadOnly, type Mount, mountAt } from "./mounts.ts";
import { controllersOf, findDevice } from "./nvme.ts";
import type { Space } from "./system.ts";

export type Usage = {
  readonly unit: Unit;
  readonly total: bigint;
  readonly used: bigint;
  readonly available: bigint;
};

export type Stats = {
  readonly usage: readonly Usage[];
  readonly condition: { readonly abnormal: boolean; readonly message: string };
};

const abnormal = (message: string) => ({ abnormal: true, message });

async function conditionOf(
  { system }: NodeContext,
  { nqn }: VolumeName,
  mount: Mount,
): Promise<Stats["condition"]> {
  const paths = await controllersOf(system, nqn);
  const live = paths.filter(({ state }) => state === "live").length;
  if (live === 0) {
    return abnormal(
      `no path to the target works: ${paths.map(({ name, state }) => `${name} is ${state}`).join(", ")}`,
    );
  }
  // The file system gave up after errors: mounted for writing, yet read-only inside.
  if (!isReadOnly(mount) && mount.superOptions.includes("ro")) {
    return abnormal("the file system has become read-only after errors");
  }
  return { abnormal: false, message: "volume is attached and its target is reachable" };
}

/** Null when the file system has shut itself down: xfs then refuses even a look at its root. */
async function spaceOf({ system }: NodeContext, volumePath: string): Promise<Space | null> {
  try {
    await system.kind(volumePath);
    return await system.space(volumePath);
  } catch (error) {
    if (error instanceof SvcError && error.fields["errno"] === "EIO") return null;
    throw error;
  }
}

/** @throws {SvcError} `not-found` when the volume is not at this path */
export async function volumeStats(
  context: NodeContext,
  { volume, volumePath }: { readonly volume: VolumeName; readonly volumePath: string },
): Promise<Stats> {
  const { system } = context;
  const absent = (why: string) =>
    new SvcError("not-found", `Cannot read volume ${volume.uuid} at ${volumePath}: ${why}`);
  const mount = await mountAt(system, volumePath);
  if (mount === null) {
    const isThere = (await system.kind(volumePath)) !== null;
    throw absent(isThere ? "nothing is mounted there" : "the path does not exist");
  }
  const device = await findDevice(system, volume);
  if (device === null) {
    return { usage: [], condition: abnormal("the volume is not attached to this node") };
  }
  if (await isDead(system, mount)) {
    return { usage: [], condition: abnormal("its device was lost: what is mounted gives errors") };
  }
  if (isNodeOf(mount, device)) {
    const usage = { unit: Unit.BYTES, total: device.bytes, used: 0n, available: 0n };
    return { usage: [usage], condition: await conditionOf(context, volume, mount) };
  }
  if (!isFileSystemOf(mount, device)) throw absent(`${mount.source} is mounted there`);
  const space = await spaceOf(context, volumePath);
  if (space === null) {
    return { usage: [], condition: abnormal("the file system does not answer: EIO") };
  }
  return {
    usage: [
      {
        unit: Unit.BYTES,
        total: space.bytesTotal,
        used: space.bytesTotal - space.bytesFree,
        available: space.bytesAvailable,
      },
      {
        unit: Unit.INODES,
        total: space.inodesTotal,
        used: space.inodesTotal - space.inodesFree,
        available: space.inodesFree,
      },
    ],
    condition: await conditionOf(context, volume, mount),
  };
}
