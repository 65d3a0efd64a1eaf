/**
 * Publications of a volume on this node: which of them the kernel still has, and how earlier ones go.
 *
 * Why: a node that was cut off keeps the controllers, the file system and the dirty pages of a publication that ended without
 * it. They must be gone before a later one is attached, and nothing of them may be taken for the later one.
 * Invariants: a publication is its subsystem's name; what belongs to an earlier one is disconnected before anything of it is
 * unmounted, so that its file system writes nothing any more, not even on its way out; one that may be the present one is
 * never taken away for a stale request.
 */
import { SvcError } from "#common/errors.ts";
import { NQN_PREFIX } from "#common/nqn.ts";
import { generationOf } from "#common/types/publication.ts";
import { type NodeContext, type VolumeName, volumeNameOf } from "./context.ts";
import { detach, mountsOf } from "./mounts.ts";
import { controllersOf, disconnect, findDevice, type NvmeDevice, subsystemNqns } from "./nvme.ts";
import type { NodeSystem } from "./system.ts";
import { parseNvmfUri } from "./uri.ts";

/** The generation of a subsystem of this volume; null: it is not one of this volume. */
export function generationOfNqn(uuid: string, nqn: string): number | null {
  return nqn.startsWith(`${NQN_PREFIX}:`)
    ? generationOf(uuid, nqn.slice(NQN_PREFIX.length + 1))
    : null;
}

/** Every publication of the volume that the kernel has, the earliest first. */
export async function publicationsOnNode(system: NodeSystem, uuid: string): Promise<VolumeName[]> {
  const found = (await subsystemNqns(system)).flatMap((nqn) => {
    const generation = generationOfNqn(uuid, nqn);
    return generation === null ? [] : [{ uuid, nqn, generation }];
  });
  return found.toSorted((a, b) => a.generation - b.generation).map(({ nqn }) => ({ uuid, nqn }));
}

const isLive = async (system: NodeSystem, { nqn }: VolumeName): Promise<boolean> =>
  (await controllersOf(system, nqn)).some(({ state }) => state === "live");

/** The publication that a request without a publish context is about: the one that works, else the latest. */
export async function presentPublication(system: NodeSystem, uuid: string): Promise<VolumeName> {
  const all = await publicationsOnNode(system, uuid);
  for (const one of all.toReversed()) if (await isLive(system, one)) return one;
  return all.at(-1) ?? volumeNameOf(uuid);
}

/** The devices of all publications of the volume. */
export async function devicesOf(system: NodeSystem, uuid: string): Promise<NvmeDevice[]> {
  const names = await publicationsOnNode(system, uuid);
  const devices = await Promise.all(names.map((name) => findDevice(system, name)));
  return devices.filter((device) => device !== null);
}

/** Takes a publication away, whatever it still has to write. @throws {SvcError} `internal` when the kernel keeps it */
export async function removePublication(context: NodeContext, name: VolumeName): Promise<void> {
  const { system, clock, log } = context;
  const device = await findDevice(system, name);
  const mounts = device === null ? [] : await mountsOf(system, device);
  const fields = { "volume.uuid": name.uuid, "subsystem.nqn": name.nqn };
  await disconnect(system, name.nqn, clock);
  for (const { path } of mounts.toReversed()) {
    await detach(system, path);
    log.warn("mount of an earlier publication removed", { ...fields, path });
  }
  log.warn("earlier publication of the volume removed", fields);
}

/** The name under which the volume is served now, by the control plane; null: nobody knows. */
async function servedNqn({ readVolume, log }: NodeContext, uuid: string): Promise<string | null> {
  if (readVolume === null) return null;
  try {
    const uri = (await readVolume(uuid)).state.target?.deviceUri;
    return uri ? parseNvmfUri(uri).nqn : null;
  } catch (error) {
    log.warn("the volume's present publication cannot be asked for", {
      "volume.uuid": uuid,
      error,
    });
    return null;
  }
}

/**
 * Before `wanted` is attached: whatever the node has of earlier publications goes.
 * @throws {SvcError} `failed-precondition` when `wanted` itself is an earlier one, `unavailable` when that cannot be told yet
 */
export async function removeEarlier(context: NodeContext, wanted: VolumeName): Promise<void> {
  const { system } = context;
  const generation = generationOfNqn(wanted.uuid, wanted.nqn) ?? 0;
  for (const other of await publicationsOnNode(system, wanted.uuid)) {
    if (other.nqn === wanted.nqn) continue;
    const theirs = generationOfNqn(other.uuid, other.nqn) ?? 0;
    if (theirs > generation)
      await checkLater(context, { wanted, other, isNumbered: generation > 0 });
    await removePublication(context, other);
  }
}

/** The documented name comes back after numbered ones, once no host holds any: so it can be the later one. */
async function checkLater(
  context: NodeContext,
  { wanted, other, isNumbered }: { wanted: VolumeName; other: VolumeName; isNumbered: boolean },
): Promise<void> {
  const refused = (kind: "failed-precondition" | "unavailable", why: string) =>
    new SvcError(kind, `Cannot attach ${wanted.nqn}: ${other.nqn} is on this node, ${why}`);
  if (isNumbered) throw refused("failed-precondition", "which is a later publication");
  const served = await servedNqn(context, wanted.uuid);
  if (served === wanted.nqn) return;
  if (served === other.nqn)
    throw refused("failed-precondition", "which is the present publication");
  if (await isLive(context.system, other)) {
    throw refused("unavailable", "and nobody can tell now which is the later one; ask again");
  }
}
