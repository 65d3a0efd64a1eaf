/**
 * REST v0 bodies at 2.2: one TypeBox schema each, from which the static type, the validation on both sides of
 * every hop and the published OpenAPI document all come.
 *
 * Invariants: field names are the published ones, letter by letter (`child-status`, `deviceUri`, `num_replicas`);
 * an absent optional is omitted, never null; a 64-bit size is a whole number that JavaScript holds exactly;
 * a schema with a `title` is a named component of the OpenAPI document (agents/rest/document.ts) and names are unique.
 */
import { type Static, Type } from "typebox";

// ---- scalars -------------------------------------------------------------------------------------------------

/** Bytes: 64-bit on the wire, held to what a JavaScript number keeps exactly (8 PiB and a bit). */
const bytes = () => Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, format: "int64" });
const int32 = (minimum?: number) =>
  Type.Integer({
    ...(minimum === undefined ? {} : { minimum }),
    maximum: 0x7fff_ffff,
    format: "int32",
  });
const uint8 = (minimum: number) => Type.Integer({ minimum, maximum: 255, format: "uint8" });
const percent = () => Type.Integer({ minimum: 0, maximum: 100 });
const uuid = () => Type.String({ format: "uuid" });
const stringMap = () => Type.Record(Type.String(), Type.String());

export const VolumeIdSchema = Type.String({ title: "VolumeId", format: "uuid" });
export const NodeIdSchema = Type.String({ title: "NodeId", minLength: 1 });
export const PoolIdSchema = Type.String({ title: "PoolId", minLength: 1 });
export const PoolUuidSchema = Type.String({ title: "PoolUuid", format: "uuid" });
export const HostNqnSchema = Type.String({ title: "HostNqn" });
export const UuidSchema = uuid();

// ---- enums ---------------------------------------------------------------------------------------------------

/** Where an object is between "wanted" and "gone". */
export const SpecStatusSchema = Type.Enum(["Creating", "Created", "Deleting", "Deleted"], {
  title: "SpecStatus",
});
export type SpecStatus = Static<typeof SpecStatusSchema>;
export const ProtocolSchema = Type.Enum(["none", "nvmf", "iscsi", "nbd"], { title: "Protocol" });
export type Protocol = Static<typeof ProtocolSchema>;
export const VolumeShareProtocolSchema = Type.Enum(["nvmf", "iscsi"], {
  title: "VolumeShareProtocol",
});
export type VolumeShareProtocol = Static<typeof VolumeShareProtocolSchema>;
export const NexusShareProtocolSchema = Type.Enum(["nvmf", "iscsi"], {
  title: "NexusShareProtocol",
});
export type NexusShareProtocol = Static<typeof NexusShareProtocolSchema>;
export const ReplicaShareProtocolSchema = Type.Enum(["nvmf"], { title: "ReplicaShareProtocol" });
export type ReplicaShareProtocol = Static<typeof ReplicaShareProtocolSchema>;
export const NodeStatusSchema = Type.Enum(["Unknown", "Online", "Offline"], {
  title: "NodeStatus",
});
export type NodeStatus = Static<typeof NodeStatusSchema>;
export const PoolStatusSchema = Type.Enum(["Unknown", "Online", "Degraded", "Faulted"], {
  title: "PoolStatus",
});
export type PoolStatus = Static<typeof PoolStatusSchema>;
export const ReplicaStateSchema = Type.Enum(["Unknown", "Online", "Degraded", "Faulted"], {
  title: "ReplicaState",
});
export type ReplicaState = Static<typeof ReplicaStateSchema>;
export const ChildStateSchema = Type.Enum(["Unknown", "Online", "Degraded", "Faulted"], {
  title: "ChildState",
});
export type ChildState = Static<typeof ChildStateSchema>;
/** The only reason that is shown: the child ran out of space. */
export const ChildStateReasonSchema = Type.Enum(["OutOfSpace"], { title: "ChildStateReason" });
export type ChildStateReason = Static<typeof ChildStateReasonSchema>;
export const NexusStateSchema = Type.Enum(
  ["Unknown", "Online", "Degraded", "Faulted", "Shutdown"],
  { title: "NexusState" },
);
export type NexusState = Static<typeof NexusStateSchema>;
export const VolumeStatusSchema = Type.Enum(
  ["Unknown", "Online", "Degraded", "Faulted", "Shutdown"],
  { title: "VolumeStatus" },
);
export type VolumeStatus = Static<typeof VolumeStatusSchema>;

/**
 * Why an object is not healthy, and what comes next. `code` is one of a bounded set; `since` is RFC 3339. Absent while
 * healthy, and from peers that do not know it.
 */
export const StatusReasonSchema = Type.Object(
  {
    code: Type.String(),
    message: Type.String(),
    since: Type.Optional(Type.String()),
    next_step: Type.String(),
  },
  { title: "StatusReason" },
);
export type StatusReason = Static<typeof StatusReasonSchema>;

// ---- purge ---------------------------------------------------------------------------------------------------

/** Of one volume: what giving up pools leaves of it. */
export const PurgeVolumeSchema = Type.Object(
  {
    volume: Type.String(),
    /** Those that go. */
    replicas: Type.Array(Type.String()),
    /** How many it should have. */
    wanted: Type.Integer(),
    /** Complete copies elsewhere that can be seen now. */
    left: Type.Integer(),
    /** No other copy can be seen, or none is sure to stay one. */
    last_copy: Type.Boolean(),
    /** Its target is published and cannot be seen: it may be going on without any of the others. */
    target_unseen: Type.Optional(Type.Boolean()),
  },
  { title: "PurgeVolume" },
);
export type PurgeVolume = Static<typeof PurgeVolumeSchema>;

/** What giving up a pool or a node for good costs. */
export const PurgeCostSchema = Type.Object(
  {
    kind: Type.Enum(["pool", "node"]),
    id: Type.String(),
    pools: Type.Array(Type.String()),
    /** All that go, of volumes or not. */
    replicas: Type.Integer(),
    /** Those of them that no volume owns. */
    unowned: Type.Integer(),
    volumes: Type.Array(PurgeVolumeSchema),
    /** Volumes whose target is on the node. */
    targets: Type.Array(Type.String()),
    last_copies: Type.Integer(),
    /** Why it cannot be purged now; absent: it can. */
    refused: Type.Optional(Type.String()),
  },
  { title: "PurgeCost" },
);
export type PurgeCost = Static<typeof PurgeCostSchema>;

// ---- errors --------------------------------------------------------------------------------------------------

/** Every error kind that a REST client may see; ERROR_STATUS in errors.ts gives the HTTP status of each. */
export const REST_ERROR_KINDS = [
  "Timeout",
  "Deserialize",
  "Internal",
  "InvalidArgument",
  "DeadlineExceeded",
  "NotFound",
  "AlreadyExists",
  "PermissionDenied",
  "ResourceExhausted",
  "FailedPrecondition",
  "NotShared",
  "NotPublished",
  "AlreadyPublished",
  "AlreadyShared",
  "Aborted",
  "OutOfRange",
  "Unimplemented",
  "Unavailable",
  "Unauthenticated",
  "Unauthorized",
  "Conflict",
  "FailedPersist",
  "Deleting",
  "InUse",
] as const;
export type RestErrorKind = (typeof REST_ERROR_KINDS)[number];

/** `details`: the long story; `message`: the last source of the failure. */
export const RestJsonErrorSchema = Type.Object(
  {
    details: Type.String(),
    message: Type.String(),
    kind: Type.Enum([...REST_ERROR_KINDS]),
  },
  { title: "RestJsonError" },
);
export type RestJsonError = Static<typeof RestJsonErrorSchema>;

// ---- nodes ---------------------------------------------------------------------------------------------------

const CordonLabelsSchema = Type.Array(Type.String(), { title: "CordonLabels" });
const DrainLabelsSchema = Type.Array(Type.String(), { title: "DrainLabels" });
export const CordonedStateSchema = Type.Object(
  { cordonlabels: CordonLabelsSchema },
  { title: "CordonedState" },
);
export const DrainStateSchema = Type.Object(
  { cordonlabels: CordonLabelsSchema, drainlabels: DrainLabelsSchema },
  { title: "DrainState" },
);
/** Exactly one of the three keys. */
export const CordonDrainStateSchema = Type.Union(
  [
    Type.Object({ cordonedstate: CordonedStateSchema }, { additionalProperties: false }),
    Type.Object({ drainingstate: DrainStateSchema }, { additionalProperties: false }),
    Type.Object({ drainedstate: DrainStateSchema }, { additionalProperties: false }),
  ],
  { title: "CordonDrainState" },
);
export type CordonDrainState = Static<typeof CordonDrainStateSchema>;

/** `grpcEndpoint` is `ip:port`; `node_nqn` is the host NQN that the node's initiator uses. */
export const NodeSpecSchema = Type.Object(
  {
    grpcEndpoint: Type.String(),
    id: NodeIdSchema,
    cordondrainstate: Type.Optional(CordonDrainStateSchema),
    node_nqn: Type.Optional(HostNqnSchema),
  },
  { title: "NodeSpec", additionalProperties: false },
);
export type NodeSpec = Static<typeof NodeSpecSchema>;
export const NodeStateSchema = Type.Object(
  {
    grpcEndpoint: Type.String(),
    id: NodeIdSchema,
    status: NodeStatusSchema,
    node_nqn: Type.Optional(HostNqnSchema),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "NodeState" },
);
export type NodeState = Static<typeof NodeStateSchema>;
/** `state` only when the node has registered since the control plane started; without it `status_reason` says why. */
export const NodeSchema = Type.Object(
  {
    id: NodeIdSchema,
    spec: Type.Optional(NodeSpecSchema),
    state: Type.Optional(NodeStateSchema),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "Node" },
);
export type Node = Static<typeof NodeSchema>;

/** `size` counts 512-byte sectors; empty strings and 0 where a part does not apply. */
export const BlockDeviceSchema = Type.Object(
  {
    available: Type.Boolean(),
    devlinks: Type.Array(Type.String()),
    devmajor: int32(),
    devminor: int32(),
    devname: Type.String(),
    devpath: Type.String(),
    devtype: Type.String(),
    filesystem: Type.Object({
      fstype: Type.String(),
      label: Type.String(),
      mountpoint: Type.String(),
      uuid: Type.String(),
    }),
    model: Type.String(),
    partition: Type.Object({
      name: Type.String(),
      number: int32(),
      parent: Type.String(),
      scheme: Type.String(),
      typeid: Type.String(),
      uuid: Type.String(),
    }),
    size: bytes(),
  },
  { title: "BlockDevice" },
);
export type BlockDevice = Static<typeof BlockDeviceSchema>;

// ---- pools and replicas --------------------------------------------------------------------------------------

export const CreatePoolBodySchema = Type.Object(
  { disks: Type.Array(Type.String()), labels: Type.Optional(stringMap()) },
  { title: "CreatePoolBody" },
);
export type CreatePoolBody = Static<typeof CreatePoolBodySchema>;
export const PoolSpecSchema = Type.Object(
  {
    disks: Type.Array(Type.String()),
    id: PoolIdSchema,
    labels: Type.Optional(stringMap()),
    node: NodeIdSchema,
    status: SpecStatusSchema,
  },
  { title: "PoolSpec" },
);
export type PoolSpec = Static<typeof PoolSpecSchema>;
/** `committed`: the sum of the sizes of all replicas on the pool, thin ones in full. */
export const PoolStateSchema = Type.Object(
  {
    capacity: bytes(),
    disks: Type.Array(Type.String()),
    id: PoolIdSchema,
    node: NodeIdSchema,
    status: PoolStatusSchema,
    used: bytes(),
    committed: Type.Optional(bytes()),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "PoolState" },
);
export type PoolState = Static<typeof PoolStateSchema>;
/** `spec` alone: wanted, not seen (`status_reason` says why). `state` alone: seen, not managed by the control plane. */
export const PoolSchema = Type.Object(
  {
    id: PoolIdSchema,
    spec: Type.Optional(PoolSpecSchema),
    state: Type.Optional(PoolStateSchema),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "Pool" },
);
export type Pool = Static<typeof PoolSchema>;

export const CreateReplicaBodySchema = Type.Object(
  {
    share: Type.Optional(ReplicaShareProtocolSchema),
    "allowed-hosts": Type.Optional(Type.Array(HostNqnSchema)),
    size: bytes(),
    thin: Type.Boolean(),
  },
  { title: "CreateReplicaBody" },
);
export type CreateReplicaBody = Static<typeof CreateReplicaBodySchema>;
export const ReplicaSpaceUsageSchema = Type.Object(
  {
    capacity_bytes: bytes(),
    allocated_bytes: bytes(),
    cluster_size: bytes(),
    clusters: bytes(),
    allocated_clusters: bytes(),
  },
  { title: "ReplicaSpaceUsage" },
);
export type ReplicaSpaceUsage = Static<typeof ReplicaSpaceUsageSchema>;
export const ReplicaSchema = Type.Object(
  {
    node: NodeIdSchema,
    pool: PoolIdSchema,
    poolUuid: Type.Optional(PoolUuidSchema),
    share: ProtocolSchema,
    size: bytes(),
    space: Type.Optional(ReplicaSpaceUsageSchema),
    state: ReplicaStateSchema,
    thin: Type.Boolean(),
    uri: Type.String(),
    uuid: uuid(),
    "allowed-hosts": Type.Optional(Type.Array(HostNqnSchema)),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "Replica" },
);
export type Replica = Static<typeof ReplicaSchema>;
export const ReplicaSpecSchema = Type.Object(
  {
    managed: Type.Boolean(),
    operation: Type.Optional(
      Type.Object({
        operation: Type.Enum(["Create", "Destroy", "Share", "Unshare"]),
        result: Type.Optional(Type.Boolean()),
      }),
    ),
    owners: Type.Object({ nexuses: Type.Array(uuid()), volume: Type.Optional(uuid()) }),
    pool: Type.String(),
    poolUuid: Type.Optional(PoolUuidSchema),
    share: ProtocolSchema,
    size: bytes(),
    status: SpecStatusSchema,
    thin: Type.Boolean(),
    uuid: uuid(),
  },
  { title: "ReplicaSpec" },
);
export type ReplicaSpec = Static<typeof ReplicaSpecSchema>;

// ---- nexuses -------------------------------------------------------------------------------------------------

export const ChildSchema = Type.Object(
  {
    rebuildProgress: Type.Optional(percent()),
    state: ChildStateSchema,
    state_reason: Type.Optional(ChildStateReasonSchema),
    status_reason: Type.Optional(StatusReasonSchema),
    uri: Type.String(),
  },
  { title: "Child" },
);
export type Child = Static<typeof ChildSchema>;
/** `deviceUri` is empty while not shared; `rebuilds` counts the rebuilds running now. */
export const NexusSchema = Type.Object(
  {
    children: Type.Array(ChildSchema),
    deviceUri: Type.String(),
    node: Type.String(),
    rebuilds: int32(0),
    protocol: ProtocolSchema,
    size: bytes(),
    state: NexusStateSchema,
    status_reason: Type.Optional(StatusReasonSchema),
    uuid: uuid(),
  },
  { title: "Nexus" },
);
export type Nexus = Static<typeof NexusSchema>;
export const CreateNexusBodySchema = Type.Object(
  { children: Type.Array(Type.String()), size: bytes() },
  { title: "CreateNexusBody" },
);
export type CreateNexusBody = Static<typeof CreateNexusBodySchema>;
export const NexusSpecSchema = Type.Object(
  {
    children: Type.Array(Type.String()),
    managed: Type.Boolean(),
    node: Type.String(),
    operation: Type.Optional(
      Type.Object({
        operation: Type.Enum(["Create", "Destroy", "Share", "Unshare", "AddChild", "RemoveChild"]),
        result: Type.Optional(Type.Boolean()),
      }),
    ),
    owner: Type.Optional(uuid()),
    share: ProtocolSchema,
    size: bytes(),
    status: SpecStatusSchema,
    uuid: uuid(),
  },
  { title: "NexusSpec" },
);
export type NexusSpec = Static<typeof NexusSpecSchema>;

// ---- volumes -------------------------------------------------------------------------------------------------

export const ExplicitNodeTopologySchema = Type.Object(
  { allowed_nodes: Type.Array(Type.String()), preferred_nodes: Type.Array(Type.String()) },
  { title: "ExplicitNodeTopology" },
);
export const LabelledTopologySchema = Type.Object(
  { exclusion: stringMap(), inclusion: stringMap() },
  { title: "LabelledTopology" },
);
export type LabelledTopology = Static<typeof LabelledTopologySchema>;
/** Exactly one key. */
export const NodeTopologySchema = Type.Union(
  [
    Type.Object({ explicit: ExplicitNodeTopologySchema }, { additionalProperties: false }),
    Type.Object({ labelled: LabelledTopologySchema }, { additionalProperties: false }),
  ],
  { title: "NodeTopology" },
);
export type NodeTopology = Static<typeof NodeTopologySchema>;
export const PoolTopologySchema = Type.Object(
  { labelled: LabelledTopologySchema },
  { title: "PoolTopology", additionalProperties: false },
);
export type PoolTopology = Static<typeof PoolTopologySchema>;
export const TopologySchema = Type.Object(
  {
    node_topology: Type.Optional(NodeTopologySchema),
    pool_topology: Type.Optional(PoolTopologySchema),
  },
  { title: "Topology" },
);
export type Topology = Static<typeof TopologySchema>;
export const VolumePolicySchema = Type.Object(
  { self_heal: Type.Boolean() },
  { title: "VolumePolicy" },
);
export const AffinityGroupSchema = Type.Object({ id: Type.String() }, { title: "AffinityGroup" });
export const CreateVolumeBodySchema = Type.Object(
  {
    policy: VolumePolicySchema,
    replicas: uint8(0),
    size: bytes(),
    thin: Type.Boolean(),
    topology: Type.Optional(TopologySchema),
    labels: Type.Optional(stringMap()),
    affinity_group: Type.Optional(AffinityGroupSchema),
  },
  { title: "CreateVolumeBody" },
);
export type CreateVolumeBody = Static<typeof CreateVolumeBodySchema>;
export const PublishVolumeBodySchema = Type.Object(
  {
    publish_context: stringMap(),
    reuse_existing: Type.Optional(Type.Boolean()),
    node: Type.Optional(NodeIdSchema),
    protocol: VolumeShareProtocolSchema,
    republish: Type.Optional(Type.Boolean()),
    frontend_node: Type.Optional(Type.String()),
  },
  { title: "PublishVolumeBody" },
);
export type PublishVolumeBody = Static<typeof PublishVolumeBodySchema>;
/** `replicas` of a volume: whole-number path parameter of the replica count operation. */
export const ReplicaCountSchema = uint8(1);

export const NodeAccessInfoSchema = Type.Object(
  { name: Type.String(), nqn: Type.String() },
  { title: "NodeAccessInfo" },
);
/** `frontend_nodes`, from later versions: the nodes that the volume is published to; absent: to any. */
export const VolumeTargetSchema = Type.Object(
  {
    node: Type.String(),
    protocol: Type.Optional(VolumeShareProtocolSchema),
    frontend_nodes: Type.Optional(Type.Array(NodeAccessInfoSchema)),
  },
  { title: "VolumeTarget" },
);
export type VolumeTarget = Static<typeof VolumeTargetSchema>;
/** `target` only while the target is active. */
export const VolumeSpecSchema = Type.Object(
  {
    labels: Type.Optional(stringMap()),
    num_replicas: uint8(0),
    operation: Type.Optional(
      Type.Object({
        operation: Type.Enum([
          "Create",
          "Destroy",
          "Share",
          "Unshare",
          "SetReplica",
          "RemoveUnusedReplica",
          "Publish",
          "Republish",
          "Unpublish",
        ]),
        result: Type.Optional(Type.Boolean()),
      }),
    ),
    size: bytes(),
    status: SpecStatusSchema,
    target: Type.Optional(VolumeTargetSchema),
    uuid: VolumeIdSchema,
    topology: Type.Optional(TopologySchema),
    policy: VolumePolicySchema,
    thin: Type.Boolean(),
    affinity_group: Type.Optional(AffinityGroupSchema),
  },
  { title: "VolumeSpec" },
);
export type VolumeSpec = Static<typeof VolumeSpecSchema>;
export const ReplicaUsageSchema = Type.Object(
  { capacity: bytes(), allocated: bytes() },
  { title: "ReplicaUsage" },
);
/** One replica of a volume; just `state: Unknown` when nothing is known of it. */
export const ReplicaTopologySchema = Type.Object(
  {
    node: Type.Optional(NodeIdSchema),
    pool: Type.Optional(PoolIdSchema),
    state: ReplicaStateSchema,
    "child-status": Type.Optional(ChildStateSchema),
    "child-status-reason": Type.Optional(ChildStateReasonSchema),
    usage: Type.Optional(ReplicaUsageSchema),
    "rebuild-progress": Type.Optional(percent()),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "ReplicaTopology" },
);
export type ReplicaTopology = Static<typeof ReplicaTopologySchema>;
/** `allocated`: the largest replica's; `total_allocated`: all replicas together. */
export const VolumeUsageSchema = Type.Object(
  { capacity: bytes(), allocated: bytes(), total_allocated: bytes() },
  { title: "VolumeUsage" },
);
/** `replica_topology` is keyed by replica uuid. */
export const VolumeStateSchema = Type.Object(
  {
    target: Type.Optional(NexusSchema),
    size: bytes(),
    status: VolumeStatusSchema,
    uuid: VolumeIdSchema,
    replica_topology: Type.Record(Type.String(), ReplicaTopologySchema),
    usage: Type.Optional(VolumeUsageSchema),
    status_reason: Type.Optional(StatusReasonSchema),
  },
  { title: "VolumeState" },
);
export type VolumeState = Static<typeof VolumeStateSchema>;
export const VolumeSchema = Type.Object(
  { spec: VolumeSpecSchema, state: VolumeStateSchema },
  { title: "Volume" },
);
export type Volume = Static<typeof VolumeSchema>;
/** One page; `next_token` is absent on the last one. */
export const VolumesSchema = Type.Object(
  {
    entries: Type.Array(VolumeSchema),
    next_token: Type.Optional(Type.Integer({ minimum: 0 })),
  },
  { title: "Volumes" },
);
export type Volumes = Static<typeof VolumesSchema>;

// ---- the rest ------------------------------------------------------------------------------------------------

export const SpecsSchema = Type.Object(
  {
    nexuses: Type.Array(NexusSpecSchema),
    pools: Type.Array(PoolSpecSchema),
    replicas: Type.Array(ReplicaSpecSchema),
    volumes: Type.Array(VolumeSpecSchema),
  },
  { title: "Specs" },
);
export type Specs = Static<typeof SpecsSchema>;
/** Observed states as the agents pass them on (`GET /states` is not part of the published document). */
export const StatesSchema = Type.Object({
  nexuses: Type.Array(Type.Object({ nexus: NexusSchema })),
  pools: Type.Array(Type.Object({ pool: PoolStateSchema })),
  replicas: Type.Array(Type.Object({ replica: ReplicaSchema })),
});
export type States = Static<typeof StatesSchema>;
export const RestWatchSchema = Type.Object(
  { callback: Type.String(), resource: Type.String() },
  { title: "RestWatch" },
);
export type RestWatch = Static<typeof RestWatchSchema>;
export const JsonGenericSchema = Type.Unknown({ title: "JsonGeneric", type: "object" });
