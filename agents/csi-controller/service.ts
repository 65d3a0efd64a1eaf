/**
 * The CSI controller service: check the request, take the volume's guard, do the work, encode the answer.
 *
 * Invariants: one operation a volume at a time (a second one is `aborted`); at most so many calls at once, the rest
 * wait; RPCs whose capability is not offered are `unimplemented`.
 */
import { NODE_NAME_TOPOLOGY_KEY } from "#common/csi/driver.ts";
import { Limiter, type VolumeGuard } from "#common/csi/guard.ts";
import { unknownParameters } from "#common/csi/parameters.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid, parseNodeId } from "#common/ids.ts";
import type { Log } from "#common/log.ts";
import type { Volume } from "#common/openapi/model.ts";
import {
  ControllerServiceCapability_RPC_Type as Capability,
  Controller,
} from "#common/proto/generated/csi/v1/csi_pb.ts";
import { type GrpcService, type Handlers, makeService } from "#common/rpc/grpc.ts";
import {
  checkCapability,
  checkParameters,
  checkProtocol,
  isCompatible,
  isSupported,
  parseCreateVolume,
  parseToken,
  required,
  whyUnconfirmed,
} from "./parse.ts";
import type { RestApi } from "./rest.ts";
import {
  createVolume,
  deleteVolume,
  poolCapacity,
  publishVolume,
  unpublishVolume,
} from "./volumes.ts";

const CAPABILITIES = [
  Capability.CREATE_DELETE_VOLUME,
  Capability.PUBLISH_UNPUBLISH_VOLUME,
  Capability.LIST_VOLUMES,
  Capability.GET_CAPACITY,
] as const;

export type ControllerParts = {
  readonly rest: RestApi;
  /** Shared with whatever else changes volumes in this process. */
  readonly guard: VolumeGuard;
  readonly log: Log;
  /** Topology of every volume: the nodes that run a node plugin. */
  readonly nodeSegments: Readonly<Record<string, string>>;
  readonly concurrentMax: number;
  /** Called with the uuid of a volume that is asked for, before anything else, even if the call is then refused. */
  readonly onCreate?: (uuid: string) => void;
};

type ControllerHandlers = Handlers<(typeof Controller)["method"]>;

const unimplemented = (name: string) => async (): Promise<never> => {
  throw new SvcError("unimplemented", `${name} is not offered by this driver`);
};

/** @throws {SvcError} `not-found`: what is no uuid cannot name a volume */
function volumeUuid(what: string, id: string): string {
  required(what, "volume_id", id);
  if (!isUuid(id)) throw new SvcError("not-found", `Cannot ${what}: there is no volume "${id}"`);
  return id.toLowerCase();
}

/** @throws {SvcError} `not-found`: what cannot be a node's name is no node; any other may be an application's */
function checkNode(what: string, id: string): void {
  try {
    parseNodeId(id);
  } catch (cause) {
    throw new SvcError("not-found", `Cannot ${what}: there is no node "${id}"`, { cause });
  }
}

export function controllerHandlers(parts: ControllerParts): ControllerHandlers {
  const { rest, guard, log, nodeSegments, onCreate } = parts;
  const limiter = new Limiter(parts.concurrentMax);
  const guarded = <T>(uuid: string, operation: string, work: () => Promise<T>): Promise<T> =>
    guard.run(uuid, operation, () => limiter.run(work));
  const entry = (
    { spec }: Volume,
    volumeContext: Readonly<Record<string, string>> = {},
    topologies: readonly Readonly<Record<string, string>>[] = [nodeSegments],
  ) => ({
    volumeId: spec.uuid,
    capacityBytes: BigInt(spec.size),
    volumeContext: { ...volumeContext },
    accessibleTopology: topologies.map((segments) => ({ segments: { ...segments } })),
  });

  return {
    createVolume: async (request) => {
      const wish = parseCreateVolume(request, nodeSegments);
      onCreate?.(wish.uuid);
      return await guarded(wish.uuid, "CreateVolume", async () => {
        const volume = await createVolume(rest, wish);
        log.info("volume created", { "volume.uuid": wish.uuid, size: volume.spec.size });
        return { volume: entry(volume, request.parameters, wish.topologies) };
      });
    },

    deleteVolume: async ({ volumeId }) => {
      required("delete volume", "volume_id", volumeId);
      if (!isUuid(volumeId)) {
        log.warn("volume cannot be one of ours: nothing to delete", { "volume.uuid": volumeId });
        return {};
      }
      const uuid = volumeId.toLowerCase();
      await guarded(uuid, "DeleteVolume", () => deleteVolume(rest, uuid));
      log.info("volume deleted", { "volume.uuid": uuid });
      return {};
    },

    controllerPublishVolume: async (request) => {
      const what = "publish volume";
      required(what, "volume_id", request.volumeId);
      const nodeId = required(what, "node_id", request.nodeId);
      if (request.readonly) {
        throw new SvcError("invalid-argument", `Cannot ${what}: read-only is not supported`);
      }
      checkCapability(what, request.volumeCapability);
      const parameters = request.volumeContext;
      checkProtocol(what, parameters);
      const uuid = volumeUuid(what, request.volumeId);
      // Attributes never change: a volume that an earlier driver made with more of them must stay usable.
      const unknown = unknownParameters(parameters);
      if (unknown.length > 0) {
        log.warn("volume has attributes without effect", { "volume.uuid": uuid, unknown });
      }
      checkNode(what, nodeId);
      const publishContext = await guarded(uuid, "ControllerPublishVolume", () =>
        publishVolume(rest, { uuid, nodeId, parameters }),
      );
      log.info("volume published", { "volume.uuid": uuid, "node.id": nodeId });
      return { publishContext };
    },

    controllerUnpublishVolume: async ({ volumeId, nodeId }) => {
      required("unpublish volume", "volume_id", volumeId);
      if (!isUuid(volumeId)) return {}; // cannot be one of ours: not published
      const uuid = volumeId.toLowerCase();
      await guarded(uuid, "ControllerUnpublishVolume", () =>
        unpublishVolume(rest, { uuid, nodeId, log }),
      );
      log.info("volume unpublished", { "volume.uuid": uuid, "node.id": nodeId });
      return {};
    },

    validateVolumeCapabilities: async (request) => {
      const what = "validate volume capabilities";
      required(what, "volume_id", request.volumeId);
      if (request.volumeCapabilities.length === 0) {
        throw new SvcError("invalid-argument", `Cannot ${what}: it has no capabilities`);
      }
      const uuid = volumeUuid(what, request.volumeId);
      await limiter.run(() => rest.getVolume(uuid));
      const message = whyUnconfirmed(what, request);
      if (message !== null) return { message };
      const { volumeContext, volumeCapabilities, parameters } = request;
      return { confirmed: { volumeContext, volumeCapabilities, parameters } };
    },

    listVolumes: async ({ maxEntries, startingToken }, { signal }) => {
      if (maxEntries < 0) {
        throw new SvcError("invalid-argument", "Cannot list volumes: max_entries is negative");
      }
      const first = parseToken(startingToken);
      const page = { maxEntries, startingToken: first };
      const { entries, next_token: next } = await limiter.run(() => rest.listVolumes(page, signal));
      // Asked for all, REST begins at the first one whatever the token.
      const wanted = maxEntries === 0 ? entries.slice(first) : entries;
      return {
        entries: wanted.map((volume) => ({ volume: entry(volume) })),
        nextToken: next === undefined ? "" : String(next),
      };
    },

    getCapacity: async ({ volumeCapabilities, accessibleTopology, parameters }) => {
      checkParameters("read capacity", parameters);
      const isWithin = !accessibleTopology || isCompatible(accessibleTopology, nodeSegments);
      // Volumes that could not be made, or not be used there, have no capacity.
      if (!isWithin || !volumeCapabilities.every(isSupported)) return { availableCapacity: 0n };
      const node = accessibleTopology?.segments[NODE_NAME_TOPOLOGY_KEY] ?? null;
      const capacity = await limiter.run(() => poolCapacity(rest, node));
      return { availableCapacity: BigInt(capacity) };
    },

    controllerGetCapabilities: async () => ({
      capabilities: CAPABILITIES.map((type) => ({
        type: { case: "rpc" as const, value: { type } },
      })),
    }),

    createSnapshot: unimplemented("CreateSnapshot"),
    deleteSnapshot: unimplemented("DeleteSnapshot"),
    listSnapshots: unimplemented("ListSnapshots"),
    controllerExpandVolume: unimplemented("ControllerExpandVolume"),
    controllerGetVolume: unimplemented("ControllerGetVolume"),
  };
}

export function controllerService(parts: ControllerParts): GrpcService {
  return makeService(Controller, controllerHandlers(parts));
}
