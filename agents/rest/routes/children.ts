/**
 * Children of a nexus: list, read, add (which starts a rebuild), remove. Each exists below the nexus alone and
 * below its node.
 */
import { Type } from "typebox";
import { SvcError } from "#common/errors.ts";
import { type Child, ChildSchema } from "#common/openapi/model.ts";
import { type Route, type RouteContext, route } from "../route.ts";
import { child_id, nexus_id, node_id } from "./params.ts";

const tag = "Children";

type NexusParams = { node_id?: string; nexus_id: string };
type ChildParams = NexusParams & { child_id: string };
type Input<P> = { readonly params: P; readonly rawQuery: string | null };

const nexusOf = ({ node_id: node, nexus_id: nexus }: NexusParams) => ({
  ...(node === undefined ? {} : { node }),
  nexus,
});

/**
 * The URI that a path segment stands for: a raw query belongs to it, and what is no URL is a file or device.
 */
export function childUri(segment: string, rawQuery: string | null): string {
  const uri = rawQuery ? `${segment}?${rawQuery}` : segment;
  return URL.canParse(uri) ? uri : `aio://${uri}`;
}

async function list({ params }: Input<NexusParams>, { core, signal }: RouteContext) {
  return (await core.GetNexus(nexusOf(params), { signal })).children;
}

async function read(input: Input<ChildParams>, context: RouteContext): Promise<Child> {
  const uri = childUri(input.params.child_id, input.rawQuery);
  const found = (await list(input, context)).find((child) => child.uri === uri);
  if (found) return found;
  const { nexus_id: nexus } = input.params;
  throw new SvcError("not-found", `Cannot find child "${uri}": not in nexus ${nexus}`);
}

function add({ params, rawQuery }: Input<ChildParams>, { core, signal }: RouteContext) {
  const uri = childUri(params.child_id, rawQuery);
  return core.AddNexusChild({ ...nexusOf(params), uri }, { signal });
}

async function remove(
  { params, rawQuery }: Input<ChildParams>,
  { core, signal }: RouteContext,
): Promise<void> {
  const uri = childUri(params.child_id, rawQuery);
  await core.RemoveNexusChild({ ...nexusOf(params), uri }, { signal });
}

export const childRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/nexuses/{nexus_id}/children",
    operationId: "get_nexus_children",
    tag,
    params: { nexus_id },
    response: Type.Array(ChildSchema),
    handle: list,
  }),
  route({
    method: "GET",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    operationId: "get_nexus_child",
    tag,
    params: { nexus_id, child_id },
    response: ChildSchema,
    handle: read,
  }),
  route({
    method: "PUT",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    operationId: "put_nexus_child",
    tag,
    params: { nexus_id, child_id },
    response: ChildSchema,
    handle: add,
  }),
  route({
    method: "DELETE",
    path: "/nexuses/{nexus_id}/children/{child_id}",
    operationId: "del_nexus_child",
    tag,
    params: { nexus_id, child_id },
    handle: remove,
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children",
    operationId: "get_node_nexus_children",
    tag,
    params: { node_id, nexus_id },
    response: Type.Array(ChildSchema),
    handle: list,
  }),
  route({
    method: "GET",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    operationId: "get_node_nexus_child",
    tag,
    params: { node_id, nexus_id, child_id },
    response: ChildSchema,
    handle: read,
  }),
  route({
    method: "PUT",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    operationId: "put_node_nexus_child",
    tag,
    params: { node_id, nexus_id, child_id },
    response: ChildSchema,
    handle: add,
  }),
  route({
    method: "DELETE",
    path: "/nodes/{node_id}/nexuses/{nexus_id}/children/{child_id}",
    operationId: "del_node_nexus_child",
    tag,
    params: { node_id, nexus_id, child_id },
    handle: remove,
  }),
];
