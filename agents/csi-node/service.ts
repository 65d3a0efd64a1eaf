/**
 * The CSI node service: check the request, take the volume's guard, do the work.
 *
 * Invariants: one operation a volume at a time (a second one is `aborted`); nothing is touched before the whole request
 * has been checked.
 */
import { NODE_NAME_TOPOLOGY_KEY, PARAMETER, parseFileSystem } from "#common/csi/driver.ts";
import type { VolumeGuard } from "#common/csi/guard.ts";
import { normalParameters } from "#common/csi/parameters.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import {
  NodeServiceCapability_RPC_Type as Capability,
  VolumeCapability_AccessMode_Mode as Mode,
  Node,
  type VolumeCapability,
} from "#common/proto/generated/csi/v1/csi_pb.ts";
import { type GrpcService, type Handlers, makeService } from "#common/rpc/grpc.ts";
import { type NodeContext, parseAttachment, publishedName } from "./context.ts";
import { presentPublication } from "./publications.ts";
import { publish, unpublish } from "./publish.ts";
import { type Access, stage, unstage } from "./stage.ts";
import { volumeStats } from "./stats.ts";

const CAPABILITIES = [
  Capability.STAGE_UNSTAGE_VOLUME,
  Capability.GET_VOLUME_STATS,
  Capability.VOLUME_CONDITION,
] as const;

const MAY_WRITE: readonly Mode[] = [Mode.SINGLE_NODE_WRITER, Mode.MULTI_NODE_SINGLE_WRITER];
const READERS: readonly Mode[] = [Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY];

function nameOfMode(mode: number): string {
  const known = Object.entries(Mode).find(([, value]) => value === mode);
  return known?.[0] ?? String(mode);
}

function required(what: string, field: string, value: string): string {
  if (value !== "") return value;
  throw new SvcError("invalid-argument", `Cannot ${what}: ${field} is missing`);
}

const isPath = (value: string): boolean => value.startsWith("/") && !value.includes("\0");

function requiredPath(what: string, field: string, value: string): string {
  required(what, field, value);
  if (isPath(value)) return value;
  throw new SvcError("invalid-argument", `Cannot ${what}: ${field} is not an absolute path`);
}

/** @throws {SvcError} `not-found`: what is no uuid cannot name a volume */
function volumeUuid(what: string, id: string): string {
  required(what, "volume_id", id);
  if (isUuid(id)) return id.toLowerCase();
  throw new SvcError("not-found", `Cannot ${what}: there is no volume "${id}"`);
}

type AccessHints = {
  readonly readOnly?: boolean;
  /** The StorageClass's parameters: its file system counts where the capability names none. */
  readonly volumeContext?: Readonly<Record<string, string>>;
};

/** @throws {SvcError} `invalid-argument` */
export function parseAccess(
  what: string,
  capability: VolumeCapability | undefined,
  { readOnly = false, volumeContext = {} }: AccessHints = {},
): Access {
  const refuse = (why: string) => new SvcError("invalid-argument", `Cannot ${what}: ${why}`);
  if (capability === undefined) throw refuse("volume capability is missing");
  const mode = capability.accessMode?.mode ?? Mode.UNKNOWN;
  if (mode === Mode.UNKNOWN) throw refuse("access mode is missing");
  const isReader = READERS.includes(mode);
  if (!isReader && !MAY_WRITE.includes(mode))
    throw refuse(`access mode ${nameOfMode(mode)} is not supported`);
  const { accessType } = capability;
  switch (accessType.case) {
    case "block":
      // The kernel has no read-only bind mount of a device, and a device is read-only for all or none.
      if (isReader || readOnly) throw refuse("a raw block volume cannot be read-only");
      return { type: "block" };
    case "mount": {
      const flags = accessType.value.mountFlags.flatMap((flag) => flag.split(",")).filter(Boolean);
      if (isReader && !readOnly && !flags.includes("ro")) {
        throw refuse(
          `access mode ${nameOfMode(mode)} is for reading only: mount flag ro is missing`,
        );
      }
      const ofClass = normalParameters(volumeContext)[PARAMETER.fsType] ?? "";
      return { type: "mount", fsType: parseFileSystem(accessType.value.fsType || ofClass), flags };
    }
    default:
      throw refuse("access type is missing: neither block nor mount");
  }
}

type NodeHandlers = Handlers<(typeof Node)["method"]>;

export type NodeParts = {
  readonly context: NodeContext;
  readonly guard: VolumeGuard;
  readonly nodeSegments: Readonly<Record<string, string>>;
};

export function nodeHandlers({ context, guard, nodeSegments }: NodeParts): NodeHandlers {
  const { nodeName } = context;
  return {
    nodeStageVolume: async (request) => {
      const what = "stage volume";
      required(what, "volume_id", request.volumeId);
      const stagingPath = requiredPath(what, "staging_target_path", request.stagingTargetPath);
      const { volumeContext } = request;
      const access = parseAccess(what, request.volumeCapability, { volumeContext });
      required(what, "uri of publish_context", request.publishContext["uri"] ?? "");
      const uuid = volumeUuid(what, request.volumeId);
      const attachment = parseAttachment({ uuid }, request.publishContext, context);
      const volume = { uuid, nqn: attachment.connect.nqn };
      await guard.run(uuid, "NodeStageVolume", () =>
        stage(context, { volume, stagingPath, attachment, access }),
      );
      return {};
    },

    nodeUnstageVolume: async (request) => {
      const what = "unstage volume";
      required(what, "volume_id", request.volumeId);
      const stagingPath = requiredPath(what, "staging_target_path", request.stagingTargetPath);
      if (!isUuid(request.volumeId)) return {}; // cannot be one of ours: not staged
      const uuid = request.volumeId.toLowerCase();
      await guard.run(uuid, "NodeUnstageVolume", () => unstage(context, { uuid, stagingPath }));
      return {};
    },

    nodePublishVolume: async (request) => {
      const what = "publish volume";
      required(what, "volume_id", request.volumeId);
      const targetPath = requiredPath(what, "target_path", request.targetPath);
      const { readonly: readOnly, volumeContext } = request;
      const access = parseAccess(what, request.volumeCapability, { readOnly, volumeContext });
      if (request.stagingTargetPath === "") {
        // The one missing field for which the specification has a code of its own.
        throw new SvcError(
          "failed-precondition",
          `Cannot ${what}: staging_target_path is missing; stage the volume first`,
        );
      }
      const stagingPath = requiredPath(what, "staging_target_path", request.stagingTargetPath);
      const uuid = volumeUuid(what, request.volumeId);
      const uri = request.publishContext["uri"] ?? "";
      const named = uri === "" ? null : publishedName(what, uuid, uri);
      await guard.run(uuid, "NodePublishVolume", async () => {
        const volume = named ?? (await presentPublication(context.system, uuid));
        await publish(context, { volume, stagingPath, targetPath, readOnly, access });
      });
      return {};
    },

    nodeUnpublishVolume: async (request) => {
      const what = "unpublish volume";
      required(what, "volume_id", request.volumeId);
      const targetPath = requiredPath(what, "target_path", request.targetPath);
      if (!isUuid(request.volumeId)) return {}; // cannot be one of ours: not published
      const uuid = request.volumeId.toLowerCase();
      await guard.run(uuid, "NodeUnpublishVolume", () => unpublish(context, { uuid, targetPath }));
      return {};
    },

    nodeGetVolumeStats: async (request) => {
      const what = "read volume";
      required(what, "volume_id", request.volumeId);
      const volumePath = required(what, "volume_path", request.volumePath);
      const uuid = volumeUuid(what, request.volumeId);
      if (!isPath(volumePath)) {
        // As the specification's own test has it: a volume is never at such a path.
        throw new SvcError(
          "not-found",
          `Cannot ${what}: it is not at ${JSON.stringify(volumePath)}, which is no absolute path`,
        );
      }
      const volume = await presentPublication(context.system, uuid);
      const { usage, condition } = await volumeStats(context, { volume, volumePath });
      return { usage: [...usage], volumeCondition: condition };
    },

    nodeExpandVolume: async () => {
      throw new SvcError("unimplemented", "NodeExpandVolume is not offered by this driver");
    },

    nodeGetCapabilities: async () => ({
      capabilities: CAPABILITIES.map((type) => ({
        type: { case: "rpc" as const, value: { type } },
      })),
    }),

    nodeGetInfo: async () => ({
      nodeId: nodeName,
      maxVolumesPerNode: 0n,
      accessibleTopology: { segments: { ...nodeSegments, [NODE_NAME_TOPOLOGY_KEY]: nodeName } },
    }),
  };
}

export function nodeService(parts: NodeParts): GrpcService {
  return makeService(Node, nodeHandlers(parts));
}
