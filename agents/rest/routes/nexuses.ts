/** Nexuses: list, read, create, destroy, share. */
import { Type } from "typebox";
import {
  CreateNexusBodySchema,
  NexusSchema,
  NexusShareProtocolSchema,
} from "#common/openapi/model.ts";
import { type Route, route } from "../route.ts";
import { name, nexus_id, node_id } from "./params.ts";

const tag = "Nexuses";
const onNode = { node_id, nexus_id };

export const nexusRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/nexuses",
    operationId: "get_nexuses",
    tag,
    response: Type.Array(NexusSchema),
    handle: (_, { core, signal }) => core.GetNexuses({}, { signal }),
  }),
  route({
    method: "GET",
    path: "/nexuses/{nexus_id}",
    operationId: "get_nexus",
    tag,
    params: { nexus_id },
    response: NexusSchema,
    handle: ({ params }, { core, signal }) => core.GetNexus({ nexus: params.nexus_id }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/nexuses/{nexus_id}",
    operationId: "del_nexus",
    tag,
    params: { nexus_id },
    handle: async ({ params }, { core, signal }) => {
      await core.DestroyNexus({ nexus: params.nexus_id }, { signal });
    },
  }),
  route({
    method: "GET",
    path: "/nodes/{id}/nexuses",
    operationId: "get_node_nexuses",
    tag,
    params: { id: name },
    response: Type.Array(NexusSchema),
    handle: ({ params }, { core, signal }) => core.GetNexuses({ node: params.id }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    operationId: "get_node_nexus",
    tag,
    params: onNode,
    response: NexusSchema,
    handle: ({ params }, { core, signal }) =>
      core.GetNexus({ node: params.node_id, nexus: params.nexus_id }, { signal }),
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    operationId: "put_node_nexus",
    tag,
    params: onNode,
    body: CreateNexusBodySchema,
    response: NexusSchema,
    handle: ({ params, body }, { core, signal }) =>
      core.CreateNexus(
        {
          node: params.node_id,
          nexus: params.nexus_id,
          children: body.children,
          size: body.size,
        },
        { signal },
      ),
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/nexuses/{nexus_id}",
    operationId: "del_node_nexus",
    tag,
    params: onNode,
    handle: async ({ params }, { core, signal }) => {
      await core.DestroyNexus({ node: params.node_id, nexus: params.nexus_id }, { signal });
    },
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/share/{protocol}",
    operationId: "put_node_nexus_share",
    tag,
    params: { ...onNode, protocol: NexusShareProtocolSchema },
    response: Type.String(),
    handle: async ({ params: { node_id: node, nexus_id: nexus, protocol } }, { core, signal }) =>
      (await core.ShareNexus({ node, nexus, protocol }, { signal })).uri,
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/share",
    operationId: "del_node_nexus_share",
    tag,
    params: onNode,
    handle: async ({ params }, { core, signal }) => {
      await core.UnshareNexus({ node: params.node_id, nexus: params.nexus_id }, { signal });
    },
  }),
];
