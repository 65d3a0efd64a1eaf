/** Every operation of REST v0, and the few that concern no single resource. */
import { Type } from "typebox";
import { RestWatchSchema, SpecsSchema, StatesSchema } from "#common/openapi/model.ts";
import { type Route, route } from "../route.ts";
import { childRoutes } from "./children.ts";
import { nexusRoutes } from "./nexuses.ts";
import { nodeRoutes } from "./nodes.ts";
import { callback, volume_id } from "./params.ts";
import { poolRoutes } from "./pools.ts";
import { replicaRoutes } from "./replicas.ts";
import { volumeRoutes } from "./volumes.ts";

const wholeRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/specs",
    operationId: "get_specs",
    tag: "Specs",
    response: SpecsSchema,
    handle: (_, { core, signal }) => core.GetSpecs({}, { signal }),
  }),
  route({
    method: "GET",
    path: "/states",
    operationId: "get_states",
    tag: "States",
    published: false,
    response: StatesSchema,
    handle: (_, { core, signal }) => core.GetStates({}, { signal }),
  }),
];

const watch = { tag: "Watches", path: "/watches/volumes/{volume_id}", params: { volume_id } };

const watchRoutes: readonly Route[] = [
  route({
    ...watch,
    method: "GET",
    operationId: "get_watch_volume",
    response: Type.Array(RestWatchSchema),
    handle: ({ params }, { core, signal }) =>
      core.GetVolumeWatches({ volume: params.volume_id }, { signal }),
  }),
  route({
    ...watch,
    method: "PUT",
    operationId: "put_watch_volume",
    query: { callback },
    handle: async ({ params, query }, { core, signal }) => {
      await core.CreateVolumeWatch(
        { volume: params.volume_id, callback: query.callback },
        { signal },
      );
    },
  }),
  route({
    ...watch,
    method: "DELETE",
    operationId: "del_watch_volume",
    query: { callback },
    handle: async ({ params, query }, { core, signal }) => {
      await core.DeleteVolumeWatch(
        { volume: params.volume_id, callback: query.callback },
        { signal },
      );
    },
  }),
];

export const routes: readonly Route[] = [
  ...nodeRoutes,
  ...poolRoutes,
  ...replicaRoutes,
  ...nexusRoutes,
  ...childRoutes,
  ...volumeRoutes,
  ...wholeRoutes,
  ...watchRoutes,
];
