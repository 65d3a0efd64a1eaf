/** Pools: list, read, create, destroy. */
import { Type } from "typebox";
import { CreatePoolBodySchema, PoolSchema, PurgeCostSchema } from "#common/openapi/model.ts";
import { type Route, route } from "../route.ts";
import { node_id, pool_id } from "./params.ts";

const tag = "Pools";
const onNode = { node_id, pool_id };

export const poolRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/pools",
    operationId: "get_pools",
    tag,
    response: Type.Array(PoolSchema),
    handle: (_, { core, signal }) => core.GetPools({}, { signal }),
  }),
  route({
    method: "GET",
    path: "/pools/{pool_id}",
    operationId: "get_pool",
    tag,
    params: { pool_id },
    response: PoolSchema,
    handle: ({ params }, { core, signal }) => core.GetPool({ pool: params.pool_id }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/pools/{pool_id}",
    operationId: "del_pool",
    tag,
    params: { pool_id },
    handle: async ({ params }, { core, signal }) => {
      await core.DestroyPool({ pool: params.pool_id }, { signal });
    },
  }),
  // Our own, so not in the published document. A path of its own: an older server must not take it for a deletion.
  route({
    method: "GET",
    path: "/pools/{pool_id}/purge",
    operationId: "get_pool_purge",
    tag,
    published: false,
    params: { pool_id },
    response: PurgeCostSchema,
    handle: ({ params }, { core, signal }) =>
      core.GetPoolPurge({ pool: params.pool_id }, { signal }),
  }),
  route({
    method: "DELETE",
    path: "/pools/{pool_id}/purge",
    operationId: "del_pool_purge",
    tag,
    published: false,
    params: { pool_id },
    query: { last_copies: Type.Optional(Type.Boolean()) },
    response: PurgeCostSchema,
    handle: ({ params, query: { last_copies: lastCopies = false } }, { core, signal }) =>
      core.PurgePool({ pool: params.pool_id, lastCopies }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{id}/pools",
    operationId: "get_node_pools",
    tag,
    params: { id: node_id },
    response: Type.Array(PoolSchema),
    handle: ({ params }, { core, signal }) => core.GetPools({ node: params.id }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/pools/{pool_id}",
    operationId: "get_node_pool",
    tag,
    params: onNode,
    response: PoolSchema,
    handle: ({ params }, { core, signal }) =>
      core.GetPool({ node: params.node_id, pool: params.pool_id }, { signal }),
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/pools/{pool_id}",
    operationId: "put_node_pool",
    tag,
    params: onNode,
    body: CreatePoolBodySchema,
    response: PoolSchema,
    handle: ({ params, body }, { core, signal }) =>
      core.CreatePool(
        {
          node: params.node_id,
          pool: params.pool_id,
          disks: body.disks,
          ...(body.labels ? { labels: body.labels } : {}),
        },
        { signal },
      ),
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/pools/{pool_id}",
    operationId: "del_node_pool",
    tag,
    params: onNode,
    handle: async ({ params }, { core, signal }) => {
      await core.DestroyPool({ node: params.node_id, pool: params.pool_id }, { signal });
    },
  }),
];
