/**
 * agent-core's internal API: every operation that api-rest (and the other agents) may ask of it.
 *
 * Why: between our own agents the REST v0 model itself is the message, so that a field exists in one place. Each
 * method is a unary gRPC call `/mayastor.agents.v1.Core/<Method>` whose messages are JSON (json_server.ts and
 * json_client.ts), validated on both sides against the schemas here.
 * Invariants: a request names resources by id only; an optional filter that is absent means "any"; a method that
 * changes something is safe to repeat with the same arguments where its comment says so; sizes are bytes.
 *
 * Errors: every method fails with an SvcError; its kind crosses the wire unchanged (errors of REST, one to one).
 *
 * The floor of a method is the least deadline that a caller may give it: a short configured timeout must not cut
 * an operation that has to touch several engines.
 */
import { type Static, type TSchema, Type } from "typebox";
import {
  BlockDeviceSchema,
  ChildSchema,
  CreateVolumeBodySchema,
  HostNqnSchema,
  NexusSchema,
  NexusShareProtocolSchema,
  NodeIdSchema,
  NodeSchema,
  PoolIdSchema,
  PoolSchema,
  PurgeCostSchema,
  ReplicaCountSchema,
  ReplicaSchema,
  ReplicaShareProtocolSchema,
  RestWatchSchema,
  SpecsSchema,
  StatesSchema,
  UuidSchema,
  VolumeIdSchema,
  VolumeSchema,
  VolumeShareProtocolSchema,
  VolumesSchema,
} from "../openapi/model.ts";
import type { JsonApi, JsonCalls, JsonHandlers, JsonMethod } from "./json_api.ts";

/** The gRPC service that carries the methods below. */
export const CORE_SERVICE = "mayastor.agents.v1.Core";

/** Least deadlines, per kind of work (the published minimum timeouts). */
export const FLOOR_MS = {
  default: 5_000,
  replica: 10_000,
  nexusShutdown: 15_000,
  pool: 20_000,
  nexus: 30_000,
  /** several replicas and a nexus, one after the other */
  volume: 60_000,
} as const;

function method<Req extends TSchema, Res extends TSchema>(
  request: Req,
  response: Res,
  floorMs: number = FLOOR_MS.default,
): JsonMethod<Req, Res> {
  return { request, response, floorMs };
}

const bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Done = Type.Object({});
const ShareUri = Type.Object({ uri: Type.String() });
const None = Type.Object({});
const CordonLabel = Type.Object({ node: NodeIdSchema, label: Type.String({ minLength: 1 }) });
const nodeFilter = { node: Type.Optional(NodeIdSchema) };
const poolFilter = { ...nodeFilter, pool: Type.Optional(PoolIdSchema) };
const OneReplica = Type.Object({ ...poolFilter, replica: UuidSchema });
const OneNexus = Type.Object({ ...nodeFilter, nexus: UuidSchema });
const OneChild = Type.Object({ ...nodeFilter, nexus: UuidSchema, uri: Type.String() });
const OneVolume = Type.Object({ volume: VolumeIdSchema });
const OneWatch = Type.Object({ volume: VolumeIdSchema, callback: Type.String() });

export const CORE_METHODS = {
  // ---- nodes
  /** Every node, by spec and by state. */
  GetNodes: method(None, Type.Array(NodeSchema)),
  /** @throws not-found */
  GetNode: method(Type.Object({ node: NodeIdSchema }), NodeSchema),
  /** Adds the label. @throws failed-precondition when a label of that name is there (as cordon or drain), not-found */
  CordonNode: method(CordonLabel, NodeSchema),
  /** Removes the label from cordon and drain labels (so it also cancels a drain). @throws failed-precondition when absent */
  UncordonNode: method(CordonLabel, NodeSchema),
  /** Adds a drain label; targets move away in the background. @throws failed-precondition when already there */
  DrainNode: method(CordonLabel, NodeSchema),
  /** Devices of a node; `all: false` gives only the usable ones. @throws not-found, failed-precondition (offline) */
  GetBlockDevices: method(
    Type.Object({ node: NodeIdSchema, all: Type.Boolean() }),
    Type.Array(BlockDeviceSchema),
  ),

  /** What giving up the node for good costs. @throws not-found */
  GetNodePurge: method(Type.Object({ node: NodeIdSchema }), PurgeCostSchema),
  /** Gives it up; safe to repeat. @throws not-found, failed-precondition (it answers; last copies not confirmed) */
  PurgeNode: method(
    Type.Object({ node: NodeIdSchema, lastCopies: Type.Boolean() }),
    PurgeCostSchema,
    FLOOR_MS.volume,
  ),

  // ---- pools
  /** Union of specs and states, of one node when given; an unknown node is not-found. */
  GetPools: method(Type.Object({ ...nodeFilter }), Type.Array(PoolSchema)),
  /** @throws not-found, also when the pool is on another node than the one given */
  GetPool: method(Type.Object({ ...nodeFilter, pool: PoolIdSchema }), PoolSchema),
  /** Safe to repeat with the same arguments; others are conflict. More than one disk is invalid-argument. */
  CreatePool: method(
    Type.Object({
      node: NodeIdSchema,
      pool: PoolIdSchema,
      disks: Type.Array(Type.String()),
      labels: Type.Optional(Type.Record(Type.String(), Type.String())),
    }),
    PoolSchema,
    FLOOR_MS.pool,
  ),
  /** @throws not-found, in-use (replicas on it) */
  DestroyPool: method(Type.Object({ ...nodeFilter, pool: PoolIdSchema }), Done, FLOOR_MS.pool),
  /** What giving up the pool for good costs. @throws not-found */
  GetPoolPurge: method(Type.Object({ pool: PoolIdSchema }), PurgeCostSchema),
  /** Gives it up; safe to repeat. @throws not-found, failed-precondition (it is alive; last copies not confirmed) */
  PurgePool: method(
    Type.Object({ pool: PoolIdSchema, lastCopies: Type.Boolean() }),
    PurgeCostSchema,
    FLOOR_MS.pool,
  ),

  // ---- replicas
  /** Observed replicas, of one node and/or pool when given. */
  GetReplicas: method(Type.Object({ ...poolFilter }), Type.Array(ReplicaSchema)),
  /** @throws not-found */
  GetReplica: method(OneReplica, ReplicaSchema),
  /** An unmanaged replica (named by its uuid, no owner); without a node the pool's own node is used. Safe to repeat. */
  CreateReplica: method(
    Type.Object({
      ...nodeFilter,
      pool: PoolIdSchema,
      replica: UuidSchema,
      size: bytes,
      thin: Type.Boolean(),
      share: Type.Optional(ReplicaShareProtocolSchema),
      allowedHosts: Type.Array(HostNqnSchema),
    }),
    ReplicaSchema,
    FLOOR_MS.replica,
  ),
  /** @throws not-found, in-use (owned by a volume or nexus) */
  DestroyReplica: method(OneReplica, Done, FLOOR_MS.replica),
  /** The share URI. @throws not-found, already-shared */
  ShareReplica: method(
    Type.Object({ ...poolFilter, replica: UuidSchema, allowedHosts: Type.Array(HostNqnSchema) }),
    ShareUri,
    FLOOR_MS.replica,
  ),
  /** @throws not-found, not-shared */
  UnshareReplica: method(OneReplica, Done, FLOOR_MS.replica),

  // ---- nexuses
  /** Observed nexuses, of one node when given. */
  GetNexuses: method(Type.Object({ ...nodeFilter }), Type.Array(NexusSchema)),
  /** @throws not-found */
  GetNexus: method(OneNexus, NexusSchema),
  /** An unmanaged nexus over the given child URIs, without reservations. Safe to repeat. */
  CreateNexus: method(
    Type.Object({
      node: NodeIdSchema,
      nexus: UuidSchema,
      children: Type.Array(Type.String()),
      size: bytes,
    }),
    NexusSchema,
    FLOOR_MS.nexus,
  ),
  /** @throws not-found, in-use (a volume's target) */
  DestroyNexus: method(OneNexus, Done, FLOOR_MS.nexus),
  /** The device URI. @throws already-shared, invalid-argument (protocol), not-found */
  ShareNexus: method(
    Type.Object({ ...nodeFilter, nexus: UuidSchema, protocol: NexusShareProtocolSchema }),
    ShareUri,
    FLOOR_MS.nexus,
  ),
  /** @throws not-shared, not-found */
  UnshareNexus: method(OneNexus, Done, FLOOR_MS.nexus),
  /** Adds a child and starts its rebuild. @throws already-exists, not-found */
  AddNexusChild: method(OneChild, ChildSchema, FLOOR_MS.nexus),
  /** @throws not-found, failed-precondition (the last healthy child) */
  RemoveNexusChild: method(OneChild, Done, FLOOR_MS.nexus),

  // ---- volumes
  /**
   * Volumes in a stable order. `maxEntries` 0: all at once, no `next_token`. Else the page that starts at
   * `startingToken` (an index); `next_token` = start + maxEntries, absent on the last page; a start past the end
   * gives an empty last page. With `volume`: that one alone, or an empty list when it is missing.
   */
  GetVolumes: method(
    Type.Object({
      volume: Type.Optional(VolumeIdSchema),
      maxEntries: Type.Integer({ minimum: 0 }),
      startingToken: Type.Integer({ minimum: 0 }),
    }),
    VolumesSchema,
  ),
  /** @throws not-found */
  GetVolume: method(OneVolume, VolumeSchema),
  /** Safe to repeat with an identical body; another body is conflict. @throws resource-exhausted, failed-precondition */
  CreateVolume: method(
    Type.Object({ volume: VolumeIdSchema, body: CreateVolumeBodySchema }),
    VolumeSchema,
    FLOOR_MS.volume,
  ),
  /** Also a published volume: its target goes first. @throws not-found */
  DestroyVolume: method(OneVolume, Done, FLOOR_MS.volume),
  /** By one up or down. @throws failed-precondition (present value, more than one step, state does not allow it) */
  SetVolumeReplicaCount: method(
    Type.Object({ volume: VolumeIdSchema, replicas: ReplicaCountSchema }),
    VolumeSchema,
    FLOOR_MS.volume,
  ),
  /** `frontendNodes`: app nodes whose host NQN may connect; none: no ACL. @throws already-published, failed-precondition */
  PublishVolume: method(
    Type.Object({
      volume: VolumeIdSchema,
      node: Type.Optional(NodeIdSchema),
      protocol: VolumeShareProtocolSchema,
      publishContext: Type.Record(Type.String(), Type.String()),
      frontendNodes: Type.Array(Type.String()),
    }),
    VolumeSchema,
    FLOOR_MS.volume,
  ),
  /**
   * Moves the target of a published volume to a new nexus. `reuseExisting`: keep the present target if it is
   * healthy and on the wanted node. `frontendNode`: the node that asks, checked against the ACL; "" is nobody.
   * @throws not-published, permission-denied
   */
  RepublishVolume: method(
    Type.Object({
      volume: VolumeIdSchema,
      node: Type.Optional(NodeIdSchema),
      protocol: VolumeShareProtocolSchema,
      reuseExisting: Type.Boolean(),
      frontendNode: Type.String(),
    }),
    VolumeSchema,
    FLOOR_MS.volume,
  ),
  /** `force`: forget the target although its node is offline. @throws not-published */
  UnpublishVolume: method(
    Type.Object({ volume: VolumeIdSchema, force: Type.Boolean() }),
    VolumeSchema,
    FLOOR_MS.volume,
  ),
  /** Destroys the shut-down nexuses that earlier switch-overs left behind. @throws not-found */
  ShutdownVolumeTargets: method(OneVolume, Done, FLOOR_MS.nexus),
  /** The device URI of the published volume. @throws not-published, already-shared */
  ShareVolume: method(
    Type.Object({
      volume: VolumeIdSchema,
      protocol: VolumeShareProtocolSchema,
      frontendHosts: Type.Array(Type.String()),
    }),
    ShareUri,
    FLOOR_MS.nexus,
  ),
  /** @throws not-published, not-shared */
  UnshareVolume: method(OneVolume, Done, FLOOR_MS.nexus),

  // ---- whole picture, watches
  /** Everything wanted. */
  GetSpecs: method(None, SpecsSchema),
  /** Everything observed. */
  GetStates: method(None, StatesSchema),
  /** @throws not-found (no such volume) */
  GetVolumeWatches: method(OneVolume, Type.Array(RestWatchSchema)),
  /** Calls the URL when the volume's spec changes. @throws already-exists, invalid-argument (no URL) */
  CreateVolumeWatch: method(OneWatch, Done),
  /** @throws not-found */
  DeleteVolumeWatch: method(OneWatch, Done),
} as const;

/** The API as json_server.ts and json_client.ts take it. */
export const CORE_API = {
  service: CORE_SERVICE,
  methods: CORE_METHODS,
} as const satisfies JsonApi;

export type CoreMethod = keyof typeof CORE_METHODS;
export type CoreRequest<M extends CoreMethod> = Static<(typeof CORE_METHODS)[M]["request"]>;
export type CoreResponse<M extends CoreMethod> = Static<(typeof CORE_METHODS)[M]["response"]>;

/** What agent-core implements: one handler a method. Throw SvcError to fail. See json_server.ts. */
export type CoreHandlers = JsonHandlers<typeof CORE_METHODS>;

/** What api-rest holds: the same methods, called over the wire. See json_client.ts. */
export type CoreClient = JsonCalls<typeof CORE_METHODS>;
