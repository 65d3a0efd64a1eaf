/**
 * The private node service: freezing a volume's file system and finding what a volume is on this node.
 *
 * Invariants: a freeze that finds the file system frozen, and a thaw that finds it thawed, succeed; a volume without
 * a file system is refused. A freeze holds the volume's guard, so that nobody unmounts the path it was found at: fsfreeze
 * takes any folder, and would freeze the node's own file system. A freeze that does not end in time is thawed again, and
 * every freeze is thawed after a limit, when the plugin ends, and when it starts after it was killed: whoever asked for it
 * may have died, and a pod that waits for a frozen file system cannot even be ended.
 */
import type { VolumeGuard } from "#common/csi/guard.ts";
import { isKind, SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { NQN_PREFIX } from "#common/nqn.ts";
import { NodePlugin, VolumeType } from "#common/proto/generated/csi/node_service_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { volumeOfName } from "#common/types/publication.ts";
import type { NodeContext } from "./context.ts";
import { isNodeOf, type Mount, mountAt, mountsOf } from "./mounts.ts";
import { findDevice, type NvmeDevice, subsystemNqns } from "./nvme.ts";
import { presentPublication } from "./publications.ts";

const FREEZE_MS = 30_000;
/** How long a file system stays frozen without being asked for again: a snapshot takes a moment. */
const FROZEN_MS_MAX = 60_000;
/** Between attempts to thaw what has been frozen too long. */
const THAW_AGAIN_MS = 5_000;
/** EINVAL of the thaw. */
const NOT_FROZEN = /invalid argument/i;

export type NodePluginParts = {
  readonly context: NodeContext;
  /** The one that the CSI node service takes. */
  readonly guard: VolumeGuard;
  readonly freezer: Freezer;
  /** Off where anybody on the network may call: a freeze stops the applications. */
  readonly mayFreeze: boolean;
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

/** False when it was not frozen. */
async function thaw(context: NodeContext, volumeId: string): Promise<boolean> {
  const path = await fileSystemPath(context, volumeId);
  const { code, stderr } = await context.system.run("fsfreeze", ["--unfreeze", path], FREEZE_MS);
  if (code === 0) return true;
  if (NOT_FROZEN.test(stderr)) return false;
  throw new SvcError("internal", `Cannot run fsfreeze --unfreeze ${path}: ${stderr.trim()}`);
}

/** Who has frozen what, for how long. One for all the ways that the service is reached. */
export class Freezer {
  readonly #context: NodeContext;
  readonly #guard: VolumeGuard;
  /** By volume, lower case; aborted: the limit is called off. */
  readonly #limits = new Map<string, AbortController>();
  readonly #running = new Set<Promise<void>>();

  constructor({ context, guard }: Pick<NodePluginParts, "context" | "guard">) {
    this.#context = context;
    this.#guard = guard;
  }

  async freeze(volumeId: string): Promise<void> {
    const uuid = volumeId.toLowerCase();
    await this.#guard.run(uuid, "FreezeFS", async () => {
      await freeze(this.#context, volumeId);
      this.#limit(uuid);
    });
  }

  /** Without the guard: a call that hangs on the frozen file system must not keep it frozen. */
  async thaw(volumeId: string): Promise<void> {
    await thaw(this.#context, volumeId);
    this.#limits.get(volumeId.toLowerCase())?.abort();
  }

  /** After a start: what an instance that was killed has left frozen. */
  async thawLeft(): Promise<void> {
    const { system, log } = this.#context;
    const names = (await subsystemNqns(system)).filter((nqn) => nqn.startsWith(`${NQN_PREFIX}:`));
    const uuids = new Set(names.map((nqn) => volumeOfName(nqn.slice(NQN_PREFIX.length + 1))));
    for (const uuid of uuids) {
      if (!isUuid(uuid)) continue;
      try {
        if (await thaw(this.#context, uuid)) {
          log.warn("file system was frozen: it is thawed", { "volume.uuid": uuid });
        }
      } catch (error) {
        if (isKind(error, "not-found", "failed-precondition")) continue; // nothing of it can be frozen by us
        log.warn("file system may be frozen: call UnfreezeFS", { "volume.uuid": uuid, error });
      }
    }
  }

  /** Nothing stays frozen behind it. */
  async close(): Promise<void> {
    const uuids = [...this.#limits.keys()];
    for (const limit of this.#limits.values()) limit.abort();
    await Promise.all(this.#running);
    for (const uuid of uuids) {
      await thaw(this.#context, uuid).catch((error: unknown) => {
        this.#context.log.error("file system stays frozen", { "volume.uuid": uuid, error });
      });
    }
  }

  #limit(uuid: string): void {
    this.#limits.get(uuid)?.abort();
    const limit = new AbortController();
    this.#limits.set(uuid, limit);
    const work = this.#thawLate(uuid, limit.signal).finally(() => {
      if (this.#limits.get(uuid) === limit) this.#limits.delete(uuid);
      this.#running.delete(work);
    });
    this.#running.add(work);
  }

  async #thawLate(uuid: string, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#context;
    const fields = { "volume.uuid": uuid, limitMs: FROZEN_MS_MAX };
    for (let pauseMs = FROZEN_MS_MAX; !signal.aborted; pauseMs = THAW_AGAIN_MS) {
      await clock.sleep(pauseMs, signal).catch(() => {}); // called off
      if (signal.aborted) return;
      try {
        if (await thaw(this.#context, uuid)) {
          log.warn("file system was frozen too long: it is thawed", fields);
        }
        return;
      } catch (error) {
        if (isKind(error, "not-found")) return; // detached
        log.warn("file system is frozen too long and cannot be thawed yet", { ...fields, error });
      }
    }
  }
}

export function nodePluginService({ context, freezer, mayFreeze }: NodePluginParts): GrpcService {
  const checkAllowed = (what: string) => {
    if (mayFreeze) return;
    throw new SvcError(
      "permission-denied",
      `Cannot ${what}: it is served on the CSI socket alone; --network-freeze allows it here`,
    );
  };
  return makeService(NodePlugin, {
    freezeFS: async ({ volumeId }) => {
      checkAllowed("freeze a file system");
      await freezer.freeze(volumeId);
      return {};
    },
    unfreezeFS: async ({ volumeId }) => {
      checkAllowed("thaw a file system");
      await freezer.thaw(volumeId);
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
