/**
 * Replicas: list, read, create, destroy, share. Each operation on one replica exists twice: below its node and
 * pool, and below the pool alone (the node is then the pool's own).
 */
import { type Static, Type } from "typebox";
import { parseNqn } from "#common/nqn.ts";
import { CreateReplicaBodySchema, HostNqnSchema, ReplicaSchema } from "#common/openapi/model.ts";
import { type Route, type RouteContext, route } from "../route.ts";
import { node_id, pool_id, replica_id } from "./params.ts";

const tag = "Replicas";
const onPool = { pool_id, replica_id };
const onNode = { node_id, ...onPool };
const hosts = { "allowed-hosts": Type.Optional(Type.Array(HostNqnSchema)) };
type Hosts = { "allowed-hosts"?: string[] };

type Place = { node?: string; pool: string; replica: string };
const place = (params: { node_id?: string; pool_id: string; replica_id: string }): Place => ({
  ...(params.node_id === undefined ? {} : { node: params.node_id }),
  pool: params.pool_id,
  replica: params.replica_id,
});

/** @throws {SvcError} `invalid-argument` for what is no NQN */
function allowedHosts({ "allowed-hosts": given = [] }: Hosts): string[] {
  return given.map(parseNqn);
}

const create = (
  at: Place,
  body: Static<typeof CreateReplicaBodySchema>,
  { core, signal }: RouteContext,
) =>
  core.CreateReplica(
    {
      ...at,
      size: body.size,
      thin: body.thin,
      allowedHosts: allowedHosts(body),
      ...(body.share ? { share: body.share } : {}),
    },
    { signal },
  );
const destroy = async (at: Place, { core, signal }: RouteContext): Promise<void> => {
  await core.DestroyReplica(at, { signal });
};
const share = async (at: Place, query: Hosts, { core, signal }: RouteContext) =>
  (await core.ShareReplica({ ...at, allowedHosts: allowedHosts(query) }, { signal })).uri;
const unshare = async (at: Place, { core, signal }: RouteContext): Promise<void> => {
  await core.UnshareReplica(at, { signal });
};

export const replicaRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/replicas",
    operationId: "get_replicas",
    tag,
    response: Type.Array(ReplicaSchema),
    handle: (_, { core, signal }) => core.GetReplicas({}, { signal }),
  }),
  route({
    method: "GET",
    path: "/replicas/{id}",
    operationId: "get_replica",
    tag,
    params: { id: replica_id },
    response: ReplicaSchema,
    handle: ({ params }, { core, signal }) => core.GetReplica({ replica: params.id }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{id}/replicas",
    operationId: "get_node_replicas",
    tag,
    params: { id: node_id },
    response: Type.Array(ReplicaSchema),
    handle: ({ params }, { core, signal }) => core.GetReplicas({ node: params.id }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas",
    operationId: "get_node_pool_replicas",
    tag,
    params: { node_id, pool_id },
    response: Type.Array(ReplicaSchema),
    handle: ({ params }, { core, signal }) =>
      core.GetReplicas({ node: params.node_id, pool: params.pool_id }, { signal }),
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}",
    operationId: "get_node_pool_replica",
    tag,
    params: onNode,
    response: ReplicaSchema,
    handle: ({ params }, { core, signal }) => core.GetReplica(place(params), { signal }),
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}",
    operationId: "put_node_pool_replica",
    tag,
    params: onNode,
    body: CreateReplicaBodySchema,
    response: ReplicaSchema,
    handle: ({ params, body }, context) => create(place(params), body, context),
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}",
    operationId: "del_node_pool_replica",
    tag,
    params: onNode,
    handle: ({ params }, context) => destroy(place(params), context),
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}/share/nvmf",
    operationId: "put_node_pool_replica_share",
    tag,
    params: onNode,
    query: hosts,
    response: Type.String(),
    handle: ({ params, query }, context) => share(place(params), query, context),
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}/share",
    operationId: "del_node_pool_replica_share",
    tag,
    params: onNode,
    handle: ({ params }, context) => unshare(place(params), context),
  }),
  route({
    method: "PUT",
    path: "/pools/{pool_id}/replicas/{replica_id}",
    operationId: "put_pool_replica",
    tag,
    params: onPool,
    body: CreateReplicaBodySchema,
    response: ReplicaSchema,
    handle: ({ params, body }, context) => create(place(params), body, context),
  }),
  route({
    method: "DELETE",
    path: "/pools/{pool_id}/replicas/{replica_id}",
    operationId: "del_pool_replica",
    tag,
    params: onPool,
    handle: ({ params }, context) => destroy(place(params), context),
  }),
  route({
    method: "PUT",
    path: "/pools/{pool_id}/replicas/{replica_id}/share/nvmf",
    operationId: "put_pool_replica_share",
    tag,
    params: onPool,
    query: hosts,
    response: Type.String(),
    handle: ({ params, query }, context) => share(place(params), query, context),
  }),
  route({
    method: "DELETE",
    path: "/pools/{pool_id}/replicas/{replica_id}/share",
    operationId: "del_pool_replica_share",
    tag,
    params: onPool,
    handle: ({ params }, context) => unshare(place(params), context),
  }),
];
