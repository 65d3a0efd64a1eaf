/** Volumes: list, read, create, destroy, replica count, target (publish, republish, unpublish), share. */
import { Type } from "typebox";
import {
  CreateVolumeBodySchema,
  PublishVolumeBodySchema,
  ReplicaCountSchema,
  VolumeSchema,
  VolumeShareProtocolSchema,
  VolumesSchema,
} from "#common/openapi/model.ts";
import { type Route, type RouteContext, route } from "../route.ts";
import { frontend_host, volume_id } from "./params.ts";

const tag = "Volumes";
const one = { volume_id };

async function unshare(
  { params }: { params: { volume_id: string } },
  { core, signal }: RouteContext,
): Promise<void> {
  await core.UnshareVolume({ volume: params.volume_id }, { signal });
}

export const volumeRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/volumes",
    operationId: "get_volumes",
    tag,
    query: {
      volume_id: Type.Optional(volume_id),
      // Published as required with a default, which is to say: optional.
      max_entries: Type.Optional(Type.Integer({ default: 0 })),
      starting_token: Type.Optional(Type.Integer()),
    },
    response: VolumesSchema,
    handle: ({ query }, { core, signal }) =>
      core.GetVolumes(
        {
          ...(query.volume_id === undefined ? {} : { volume: query.volume_id }),
          maxEntries: Math.max(0, query.max_entries ?? 0),
          startingToken: Math.max(0, query.starting_token ?? 0),
        },
        { signal },
      ),
  }),
  route({
    method: "GET",
    path: "/volumes/{volume_id}",
    operationId: "get_volume",
    tag,
    params: one,
    response: VolumeSchema,
    handle: ({ params }, { core, signal }) =>
      core.GetVolume({ volume: params.volume_id }, { signal }),
  }),
  route({
    method: "PUT",
    path: "/volumes/{volume_id}",
    operationId: "put_volume",
    tag,
    params: one,
    body: CreateVolumeBodySchema,
    response: VolumeSchema,
    handle: ({ params, body }, { core, signal }) =>
      core.CreateVolume({ volume: params.volume_id, body }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/volumes/{volume_id}",
    operationId: "del_volume",
    tag,
    params: one,
    handle: async ({ params }, { core, signal }) => {
      await core.DestroyVolume({ volume: params.volume_id }, { signal });
    },
  }),
  route({
    method: "PUT",
    path: "/volumes/{volume_id}/replica_count/{replica_count}",
    operationId: "put_volume_replica_count",
    tag,
    params: { volume_id, replica_count: ReplicaCountSchema },
    response: VolumeSchema,
    handle: ({ params }, { core, signal }) =>
      core.SetVolumeReplicaCount(
        { volume: params.volume_id, replicas: params.replica_count },
        { signal },
      ),
  }),
  route({
    method: "PUT",
    path: "/volumes/{volume_id}/target",
    operationId: "put_volume_target",
    tag,
    params: one,
    body: PublishVolumeBodySchema,
    response: VolumeSchema,
    handle: ({ params, body }, { core, signal }) => {
      const where = {
        volume: params.volume_id,
        protocol: body.protocol,
        ...(body.node === undefined ? {} : { node: body.node }),
      };
      if (body.republish === true) {
        const reuseExisting = body.reuse_existing ?? true;
        const frontendNode = body.frontend_node ?? "";
        return core.RepublishVolume({ ...where, reuseExisting, frontendNode }, { signal });
      }
      const frontendNodes = body.frontend_node ? [body.frontend_node] : [];
      const publishContext = body.publish_context;
      return core.PublishVolume({ ...where, publishContext, frontendNodes }, { signal });
    },
  }),
  route({
    method: "DELETE",
    path: "/volumes/{volume_id}/target",
    operationId: "del_volume_target",
    tag,
    params: one,
    query: { force: Type.Optional(Type.Boolean({ default: false })) },
    response: VolumeSchema,
    handle: ({ params, query: { force = false } }, { core, signal }) =>
      core.UnpublishVolume({ volume: params.volume_id, force }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/volumes/{volume_id}/shutdown_targets",
    operationId: "del_volume_shutdown_targets",
    tag,
    params: one,
    handle: async ({ params }, { core, signal }) => {
      await core.ShutdownVolumeTargets({ volume: params.volume_id }, { signal });
    },
  }),
  route({
    method: "PUT",
    path: "/volumes/{volume_id}/share/{protocol}",
    operationId: "put_volume_share",
    tag,
    params: { volume_id, protocol: VolumeShareProtocolSchema },
    query: { frontend_host },
    response: Type.String(),
    handle: async ({ params, query }, { core, signal }) => {
      const frontendHosts = query.frontend_host ? [query.frontend_host] : [];
      const { volume_id: volume, protocol } = params;
      return (await core.ShareVolume({ volume, protocol, frontendHosts }, { signal })).uri;
    },
  }),
  // The slash is missing in the published document and so in what clients call.
  route({
    method: "DELETE",
    path: "/volumes{volume_id}/share",
    operationId: "del_share",
    tag,
    params: one,
    handle: unshare,
  }),
  route({
    method: "DELETE",
    path: "/volumes/{volume_id}/share",
    operationId: "del_volume_share",
    tag,
    params: one,
    published: false,
    handle: unshare,
  }),
];
