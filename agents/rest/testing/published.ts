/**
 * REST v0 as the document published with 2.2 has it: what clients that were generated from it rely on. Only tests
 * import this.
 * Invariant: never made from our own schemas or routes; a change here is a change of the interface.
 */

/** Method, path below /v0 | operation and tag | parameters | body | answer (204: none). */
export const PUBLISHED_OPERATIONS = `
GET /nexuses | get_nexuses Nexuses | - | - | array<Nexus>
GET /nexuses/{nexus_id} | get_nexus Nexuses | nexus_id (path): string(uuid) | - | Nexus
DELETE /nexuses/{nexus_id} | del_nexus Nexuses | nexus_id (path): string(uuid) | - | 204
GET /nexuses/{nexus_id}/children | get_nexus_children Children | nexus_id (path): string(uuid) | - | array<Child>
GET /nexuses/{nexus_id}/children/{child_id} | get_nexus_child Children | nexus_id (path): string(uuid); child_id (path): string(url) | - | Child
PUT /nexuses/{nexus_id}/children/{child_id} | put_nexus_child Children | nexus_id (path): string(uuid); child_id (path): string(url) | - | Child
DELETE /nexuses/{nexus_id}/children/{child_id} | del_nexus_child Children | nexus_id (path): string(uuid); child_id (path): string(url) | - | 204
GET /nodes | get_nodes Nodes | - | - | array<Node>
GET /nodes/{id} | get_node Nodes | id (path): string | - | Node
PUT /nodes/{id}/cordon/{label} | put_node_cordon Nodes | id (path): string; label (path): string | - | Node
DELETE /nodes/{id}/cordon/{label} | delete_node_cordon Nodes | id (path): string; label (path): string | - | Node
PUT /nodes/{id}/drain/{label} | put_node_drain Nodes | id (path): string; label (path): string | - | Node
GET /nodes/{id}/nexuses | get_node_nexuses Nexuses | id (path): string | - | array<Nexus>
GET /nodes/{id}/pools | get_node_pools Pools | id (path): NodeId | - | array<Pool>
GET /nodes/{id}/replicas | get_node_replicas Replicas | id (path): NodeId | - | array<Replica>
GET /nodes/{node_id}/nexuses/{nexus_id} | get_node_nexus Nexuses | node_id (path): NodeId; nexus_id (path): string(uuid) | - | Nexus
PUT /nodes/{node_id}/nexuses/{nexus_id} | put_node_nexus Nexuses | node_id (path): NodeId; nexus_id (path): string(uuid) | CreateNexusBody | Nexus
DELETE /nodes/{node_id}/nexuses/{nexus_id} | del_node_nexus Nexuses | node_id (path): NodeId; nexus_id (path): string(uuid) | - | 204
GET /nodes/{node_id}/nexuses/{nexus_id}/children | get_node_nexus_children Children | node_id (path): NodeId; nexus_id (path): string(uuid) | - | array<Child>
GET /nodes/{node_id}/nexuses/{nexus_id}/children/{child_id} | get_node_nexus_child Children | node_id (path): NodeId; nexus_id (path): string(uuid); child_id (path): string(url) | - | Child
PUT /nodes/{node_id}/nexuses/{nexus_id}/children/{child_id} | put_node_nexus_child Children | node_id (path): NodeId; nexus_id (path): string(uuid); child_id (path): string(url) | - | Child
DELETE /nodes/{node_id}/nexuses/{nexus_id}/children/{child_id} | del_node_nexus_child Children | node_id (path): NodeId; nexus_id (path): string(uuid); child_id (path): string(url) | - | 204
DELETE /nodes/{node_id}/nexuses/{nexus_id}/share | del_node_nexus_share Nexuses | node_id (path): NodeId; nexus_id (path): string(uuid) | - | 204
PUT /nodes/{node_id}/nexuses/{nexus_id}/share/{protocol} | put_node_nexus_share Nexuses | node_id (path): NodeId; nexus_id (path): string(uuid); protocol (path): NexusShareProtocol | - | string
GET /nodes/{node_id}/pools/{pool_id} | get_node_pool Pools | node_id (path): NodeId; pool_id (path): PoolId | - | Pool
PUT /nodes/{node_id}/pools/{pool_id} | put_node_pool Pools | node_id (path): NodeId; pool_id (path): PoolId | CreatePoolBody | Pool
DELETE /nodes/{node_id}/pools/{pool_id} | del_node_pool Pools | node_id (path): NodeId; pool_id (path): PoolId | - | 204
GET /nodes/{node_id}/pools/{pool_id}/replicas | get_node_pool_replicas Replicas | node_id (path): NodeId; pool_id (path): PoolId | - | array<Replica>
GET /nodes/{node_id}/pools/{pool_id}/replicas/{replica_id} | get_node_pool_replica Replicas | node_id (path): NodeId; pool_id (path): PoolId; replica_id (path): string(uuid) | - | Replica
PUT /nodes/{node_id}/pools/{pool_id}/replicas/{replica_id} | put_node_pool_replica Replicas | node_id (path): NodeId; pool_id (path): PoolId; replica_id (path): string(uuid) | CreateReplicaBody | Replica
DELETE /nodes/{node_id}/pools/{pool_id}/replicas/{replica_id} | del_node_pool_replica Replicas | node_id (path): NodeId; pool_id (path): PoolId; replica_id (path): string(uuid) | - | 204
DELETE /nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}/share | del_node_pool_replica_share Replicas | node_id (path): NodeId; pool_id (path): PoolId; replica_id (path): string(uuid) | - | 204
PUT /nodes/{node_id}/pools/{pool_id}/replicas/{replica_id}/share/nvmf | put_node_pool_replica_share Replicas | node_id (path): NodeId; pool_id (path): PoolId; replica_id (path): string(uuid); allowed-hosts (query, optional): array<HostNqn> | - | string
GET /nodes/{node}/block_devices | get_node_block_devices BlockDevices | all (query, optional): boolean; node (path): NodeId | - | array<BlockDevice>
PUT /nodes/{node}/jsongrpc/{method} | put_node_jsongrpc JsonGrpc | node (path): NodeId; method (path): string | JsonGeneric | JsonGeneric
GET /pools | get_pools Pools | - | - | array<Pool>
GET /pools/{pool_id} | get_pool Pools | pool_id (path): PoolId | - | Pool
DELETE /pools/{pool_id} | del_pool Pools | pool_id (path): PoolId | - | 204
PUT /pools/{pool_id}/replicas/{replica_id} | put_pool_replica Replicas | pool_id (path): PoolId; replica_id (path): string(uuid) | CreateReplicaBody | Replica
DELETE /pools/{pool_id}/replicas/{replica_id} | del_pool_replica Replicas | pool_id (path): PoolId; replica_id (path): string(uuid) | - | 204
DELETE /pools/{pool_id}/replicas/{replica_id}/share | del_pool_replica_share Replicas | pool_id (path): PoolId; replica_id (path): string(uuid) | - | 204
PUT /pools/{pool_id}/replicas/{replica_id}/share/nvmf | put_pool_replica_share Replicas | pool_id (path): PoolId; replica_id (path): string(uuid); allowed-hosts (query, optional): array<HostNqn> | - | string
GET /replicas | get_replicas Replicas | - | - | array<Replica>
GET /replicas/{id} | get_replica Replicas | id (path): string(uuid) | - | Replica
GET /specs | get_specs Specs | - | - | Specs
GET /volumes | get_volumes Volumes | volume_id (query, optional): VolumeId; max_entries (query): integer [default 0]; starting_token (query, optional): integer | - | Volumes
GET /volumes/{volume_id} | get_volume Volumes | volume_id (path): VolumeId | - | Volume
PUT /volumes/{volume_id} | put_volume Volumes | volume_id (path): VolumeId | CreateVolumeBody | Volume
DELETE /volumes/{volume_id} | del_volume Volumes | volume_id (path): VolumeId | - | 204
PUT /volumes/{volume_id}/replica_count/{replica_count} | put_volume_replica_count Volumes | volume_id (path): VolumeId; replica_count (path): integer(uint8) [min 1, max 255] | - | Volume
PUT /volumes/{volume_id}/target | put_volume_target Volumes | volume_id (path): VolumeId | PublishVolumeBody | Volume
DELETE /volumes/{volume_id}/target | del_volume_target Volumes | volume_id (path): VolumeId; force (query, optional): boolean [default false] | - | Volume
DELETE /volumes/{volume_id}/shutdown_targets | del_volume_shutdown_targets Volumes | volume_id (path): VolumeId | - | 204
PUT /volumes/{volume_id}/share/{protocol} | put_volume_share Volumes | volume_id (path): VolumeId; protocol (path): VolumeShareProtocol; frontend_host (query, optional): string | - | string
DELETE /volumes{volume_id}/share | del_share Volumes | volume_id (path): VolumeId | - | 204
GET /watches/volumes/{volume_id} | get_watch_volume Watches | volume_id (path): VolumeId | - | array<RestWatch>
PUT /watches/volumes/{volume_id} | put_watch_volume Watches | volume_id (path): VolumeId; callback (query): string(uri) | - | 204
DELETE /watches/volumes/{volume_id} | del_watch_volume Watches | volume_id (path): VolumeId; callback (query): string(uri) | - | 204
`;

/** Name, kind, and the fields with their types; `?` marks an optional one. */
export const PUBLISHED_SCHEMAS = `
VolumeId: string(uuid)
NodeId: string
PoolId: string
PoolUuid: string(uuid)
BlockDevice:
  available: boolean
  devlinks: array<string>
  devmajor: integer(int32)
  devminor: integer(int32)
  devname: string
  devpath: string
  devtype: string
  filesystem: object{fstype: string, label: string, mountpoint: string, uuid: string}
  model: string
  partition: object{name: string, number: integer(int32), parent: string, scheme: string, typeid: string, uuid: string}
  size: integer(int64) [min 0]
ChildState: string enum(Unknown / Online / Degraded / Faulted)
ChildStateReason: string enum(OutOfSpace)
Child:
  rebuildProgress?: integer [min 0, max 100]
  state: ChildState
  state_reason?: ChildStateReason
  uri: string
CreateNexusBody:
  children: array<string>
  size: integer(int64) [min 0]
CreatePoolBody:
  disks: array<string>
  labels?: map<string,string>
HostNqn: string
CreateReplicaBody:
  share?: ReplicaShareProtocol
  allowed-hosts?: array<HostNqn>
  size: integer(int64) [min 0]
  thin: boolean
PoolTopology: one of, closed
  labelled: LabelledTopology
ExplicitNodeTopology:
  allowed_nodes: array<string>
  preferred_nodes: array<string>
LabelledTopology:
  exclusion: map<string,string>
  inclusion: map<string,string>
Topology:
  node_topology?: NodeTopology
  pool_topology?: PoolTopology
NodeTopology: one of, closed
  explicit: ExplicitNodeTopology
  labelled: LabelledTopology
VolumePolicy:
  self_heal: boolean
CreateVolumeBody:
  policy: VolumePolicy
  replicas: integer(uint8) [min 0, max 255]
  size: integer(int64) [min 0]
  thin: boolean
  topology?: Topology
  labels?: map<string,string>
  affinity_group?: AffinityGroup
AffinityGroup:
  id: string
PublishVolumeBody:
  publish_context: map<string,string>
  reuse_existing?: boolean
  node?: NodeId
  protocol: VolumeShareProtocol
  republish?: boolean
  frontend_node?: string
JsonGeneric: object
NexusState: string enum(Unknown / Online / Degraded / Faulted / Shutdown)
Nexus:
  children: array<Child>
  deviceUri: string
  node: string
  rebuilds: integer(int32) [min 0]
  protocol: Protocol
  size: integer(int64) [min 0]
  state: NexusState
  uuid: string(uuid)
NodeStatus: string enum(Unknown / Online / Offline)
NodeSpec: closed
  grpcEndpoint: string
  id: NodeId
  cordondrainstate?: CordonDrainState
  node_nqn?: HostNqn
NodeState:
  grpcEndpoint: string
  id: NodeId
  status: NodeStatus
  node_nqn?: HostNqn
Node:
  id: NodeId
  spec?: NodeSpec
  state?: NodeState
PoolStatus: string enum(Unknown / Online / Degraded / Faulted)
Pool:
  id: PoolId
  spec?: PoolSpec
  state?: PoolState
PoolState:
  capacity: integer(int64) [min 0]
  disks: array<string>
  id: PoolId
  node: NodeId
  status: PoolStatus
  used: integer(int64) [min 0]
  committed?: integer(int64) [min 0]
ReplicaState: string enum(Unknown / Online / Degraded / Faulted)
Replica:
  node: NodeId
  pool: PoolId
  poolUuid?: PoolUuid
  share: Protocol
  size: integer(int64) [min 0]
  space?: ReplicaSpaceUsage
  state: ReplicaState
  thin: boolean
  uri: string
  uuid: string(uuid)
  allowed-hosts?: array<HostNqn>
ReplicaSpaceUsage:
  capacity_bytes: integer(int64) [min 0]
  allocated_bytes: integer(int64) [min 0]
  cluster_size: integer(int64) [min 0]
  clusters: integer(int64) [min 0]
  allocated_clusters: integer(int64) [min 0]
RestJsonError:
  details: string
  message: string
  kind: string enum(Timeout / Deserialize / Internal / InvalidArgument / DeadlineExceeded / NotFound / AlreadyExists / PermissionDenied / ResourceExhausted / FailedPrecondition / NotShared / NotPublished / AlreadyPublished / AlreadyShared / Aborted / OutOfRange / Unimplemented / Unavailable / Unauthenticated / Unauthorized / Conflict / FailedPersist / Deleting / InUse)
RestWatch:
  callback: string
  resource: string
Specs:
  nexuses: array<NexusSpec>
  pools: array<PoolSpec>
  replicas: array<ReplicaSpec>
  volumes: array<VolumeSpec>
NexusSpec:
  children: array<string>
  managed: boolean
  node: string
  operation?: object{operation: string enum(Create / Destroy / Share / Unshare / AddChild / RemoveChild), result?: boolean}
  owner?: string(uuid)
  share: Protocol
  size: integer(int64) [min 0]
  status: SpecStatus
  uuid: string(uuid)
PoolSpec:
  disks: array<string>
  id: PoolId
  labels?: map<string,string>
  node: NodeId
  status: SpecStatus
ReplicaSpec:
  managed: boolean
  operation?: object{operation: string enum(Create / Destroy / Share / Unshare), result?: boolean}
  owners: object{nexuses: array<string(uuid)>, volume?: string(uuid)}
  pool: string
  poolUuid?: PoolUuid
  share: Protocol
  size: integer(int64) [min 0]
  status: SpecStatus
  thin: boolean
  uuid: string(uuid)
VolumeSpec:
  labels?: map<string,string>
  num_replicas: integer(uint8) [min 0, max 255]
  operation?: object{operation: string enum(Create / Destroy / Share / Unshare / SetReplica / RemoveUnusedReplica / Publish / Republish / Unpublish), result?: boolean}
  size: integer(int64) [min 0]
  status: SpecStatus
  target?: VolumeTarget
  uuid: string(uuid)
  topology?: Topology
  policy: VolumePolicy
  thin: boolean
  affinity_group?: AffinityGroup
VolumeTarget:
  node: string
  protocol?: VolumeShareProtocol
SpecStatus: string enum(Creating / Created / Deleting / Deleted)
VolumeStatus: string enum(Unknown / Online / Degraded / Faulted / Shutdown)
VolumeShareProtocol: string enum(nvmf / iscsi)
NexusShareProtocol: string enum(nvmf / iscsi)
ReplicaShareProtocol: string enum(nvmf)
Protocol: string enum(none / nvmf / iscsi / nbd)
WatchCallback: one of, closed
  uri: string
VolumeState:
  target?: Nexus
  size: integer(int64) [min 0]
  status: VolumeStatus
  uuid: string(uuid)
  replica_topology: map<string,ReplicaTopology>
  usage?: VolumeUsage
VolumeUsage:
  capacity: integer(int64) [min 0]
  allocated: integer(int64) [min 0]
  total_allocated: integer(int64) [min 0]
Volumes:
  entries: array<Volume>
  next_token?: integer
Volume:
  spec: VolumeSpec
  state: VolumeState
ReplicaTopology:
  node?: NodeId
  pool?: PoolId
  state: ReplicaState
  child-status?: ChildState
  child-status-reason?: ChildStateReason
  usage?: ReplicaUsage
  rebuild-progress?: integer [min 0, max 100]
ReplicaUsage:
  capacity: integer(int64) [min 0]
  allocated: integer(int64) [min 0]
CordonDrainState: one of
  cordonedstate: CordonedState
  drainingstate: DrainState
  drainedstate: DrainState
CordonLabels: array<string>
DrainLabels: array<string>
CordonedState:
  cordonlabels: CordonLabels
DrainState:
  cordonlabels: CordonLabels
  drainlabels: DrainLabels
`;
