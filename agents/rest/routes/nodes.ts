/** Nodes and their block devices: list, read, cordon, uncordon, drain. */
import { Type } from "typebox";
import { SvcError } from "#common/errors.ts";
import {
  BlockDeviceSchema,
  JsonGenericSchema,
  NodeSchema,
  PurgeCostSchema,
} from "#common/openapi/model.ts";
import { type Route, route } from "../route.ts";
import { name, node_id } from "./params.ts";

const node = { tag: "Nodes", response: NodeSchema } as const;
const labelled = { id: name, label: name };

export const nodeRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/nodes",
    operationId: "get_nodes",
    tag: "Nodes",
    response: Type.Array(NodeSchema),
    handle: (_, { core, signal }) => core.GetNodes({}, { signal }),
  }),
  route({
    ...node,
    method: "GET",
    path: "/nodes/{id}",
    operationId: "get_node",
    params: { id: name },
    handle: ({ params: { id } }, { core, signal }) => core.GetNode({ node: id }, { signal }),
  }),
  route({
    ...node,
    method: "PUT",
    path: "/nodes/{id}/cordon/{label}",
    operationId: "put_node_cordon",
    params: labelled,
    handle: ({ params: { id, label } }, { core, signal }) =>
      core.CordonNode({ node: id, label }, { signal }),
  }),
  route({
    ...node,
    method: "DELETE",
    path: "/nodes/{id}/cordon/{label}",
    operationId: "delete_node_cordon",
    params: labelled,
    handle: ({ params: { id, label } }, { core, signal }) =>
      core.UncordonNode({ node: id, label }, { signal }),
  }),
  route({
    ...node,
    method: "PUT",
    path: "/nodes/{id}/drain/{label}",
    operationId: "put_node_drain",
    params: labelled,
    handle: ({ params: { id, label } }, { core, signal }) =>
      core.DrainNode({ node: id, label }, { signal }),
  }),
  // Our own, so not in the published document.
  route({
    method: "GET",
    path: "/nodes/{id}/purge",
    operationId: "get_node_purge",
    tag: "Nodes",
    published: false,
    params: { id: name },
    response: PurgeCostSchema,
    handle: ({ params: { id } }, { core, signal }) => core.GetNodePurge({ node: id }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/nodes/{id}/purge",
    operationId: "del_node_purge",
    tag: "Nodes",
    published: false,
    params: { id: name },
    query: { last_copies: Type.Optional(Type.Boolean()) },
    response: PurgeCostSchema,
    handle: ({ params: { id }, query: { last_copies: lastCopies = false } }, { core, signal }) =>
      core.PurgeNode({ node: id, lastCopies }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{node}/block_devices",
    operationId: "get_node_block_devices",
    tag: "BlockDevices",
    params: { node: node_id },
    query: { all: Type.Optional(Type.Boolean()) },
    response: Type.Array(BlockDeviceSchema),
    handle: ({ params, query: { all = true } }, { core, signal }) =>
      core.GetBlockDevices({ node: params.node, all }, { signal }),
  }),
  route({
    method: "PUT",
    path: "/nodes/{node}/jsongrpc/{method}",
    operationId: "put_node_jsongrpc",
    tag: "JsonGrpc",
    params: { node: node_id, method: name },
    body: JsonGenericSchema,
    response: JsonGenericSchema,
    // The agent that would pass these on is optional and not part of an installation.
    handle: async ({ params }) => {
      throw new SvcError(
        "unavailable",
        `Cannot call ${params.method} on ${params.node}: the JSON gRPC service is not part of this; --json-grpc changes nothing`,
      );
    },
  }),
];
