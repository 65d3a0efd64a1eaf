/**
 * EngineClient: what agent-core may ask of one io-engine.
 *
 * Why an interface: decisions are tested and simulated against engines in memory; grpc_client.ts is the only
 * place that speaks gRPC.
 * Invariants: every call has a deadline; failures are SvcErrors with the engine's own kind;
 * a call that makes something returns its state as the engine sees it now.
 */
import type { NvmfConfig } from "#common/types/nexus.ts";
import type { PublicationEnd } from "#common/types/publication.ts";
import type { Answer } from "../node/name.ts";

export type Status = "Unknown" | "Online" | "Degraded" | "Faulted";

export type PoolState = {
  readonly id: string;
  readonly uuid: string;
  readonly node: string;
  readonly disks: readonly string[];
  readonly status: Status;
  readonly capacity: number;
  readonly used: number;
  /** Sum of the sizes of its replicas, thin ones in full. */
  readonly committed: number;
  /** Bytes; 0 or left out: its engine does not tell. */
  readonly clusterSize?: number;
  /** Of its disk, and so of its replicas; left out: not known. */
  readonly blockSize?: number;
  /** Why it is not Online, where its engine says so. */
  readonly trouble?: PoolTrouble;
};

/** In an engine's own words. */
export type PoolTrouble = {
  readonly code: string;
  readonly message: string;
  readonly nextStep: string;
};

export type SpaceUsage = {
  readonly capacity: number;
  readonly allocated: number;
  readonly clusterSize: number;
  readonly clusters: number;
  readonly allocatedClusters: number;
};

export type ReplicaState = {
  readonly uuid: string;
  readonly name: string;
  readonly node: string;
  readonly pool: string;
  readonly poolUuid: string;
  readonly size: number;
  readonly thin: boolean;
  readonly share: "none" | "nvmf" | "iscsi";
  readonly uri: string;
  readonly allowedHosts: readonly string[];
  readonly space: SpaceUsage | null;
  readonly status: Status;
};

export type ChildReason =
  | "None"
  | "Init"
  | "Closed"
  | "CannotOpen"
  | "ConfigInvalid"
  | "RebuildFailed"
  | "IoFailure"
  | "ByClient"
  | "OutOfSync"
  | "NoSpace"
  | "TimedOut"
  | "AdminFailed";

export type ChildState = {
  readonly uri: string;
  readonly status: Status;
  readonly reason: ChildReason;
  /** Percent while a rebuild of it runs. */
  readonly rebuildProgress: number | null;
  readonly faultedAtMs: number | null;
  /** What it missed is known: it can come back by a partial rebuild. */
  readonly hasIoLog: boolean;
};

export type NexusStatus = Status | "ShuttingDown" | "Shutdown";

export type NexusState = {
  readonly uuid: string;
  readonly name: string;
  readonly node: string;
  readonly size: number;
  readonly status: NexusStatus;
  readonly children: readonly ChildState[];
  /** Empty while not shared. */
  readonly deviceUri: string;
  readonly share: "none" | "nvmf";
  readonly rebuilds: number;
  readonly allowedHosts: readonly string[];
};

export type TargetHosts = {
  /** Controllers that hosts have now. */
  readonly connected: number;
  /** The key that its record was asked to be kept under; null: not told. */
  readonly infoKey: string | null;
};

export type BlockDevice = {
  readonly available: boolean;
  readonly devlinks: readonly string[];
  readonly devmajor: number;
  readonly devminor: number;
  readonly devname: string;
  readonly devpath: string;
  readonly devtype: string;
  readonly model: string;
  readonly sectors: number;
  readonly filesystem: {
    readonly fstype: string;
    readonly label: string;
    readonly mountpoint: string;
    readonly uuid: string;
  };
  readonly partition: {
    readonly name: string;
    readonly number: number;
    readonly parent: string;
    readonly scheme: string;
    readonly typeid: string;
    readonly uuid: string;
  };
};

export type Snapshot = {
  readonly pools: readonly PoolState[];
  readonly replicas: readonly ReplicaState[];
  readonly nexuses: readonly NexusState[];
};

export type CreatePool = { readonly id: string; readonly disks: readonly string[] };
export type CreateReplica = {
  readonly uuid: string;
  readonly name: string;
  readonly pool: string;
  readonly size: number;
  readonly thin: boolean;
  readonly share: "none" | "nvmf";
  readonly allowedHosts: readonly string[];
  /** The volume it belongs to: what the engine names its statistics by. */
  readonly entityId: string | null;
};
export type CreateNexus = {
  readonly uuid: string;
  readonly name: string;
  readonly size: number;
  readonly children: readonly string[];
  /** null: neither reservations nor a controller id range. */
  readonly config: NvmfConfig | null;
  readonly infoKey: string;
};
export type OfPool = { readonly uuid: string; readonly pool: string };
export type OfChild = { readonly nexus: string; readonly uri: string };

export interface EngineClient {
  /** Answers when the engine lives; with what it says of itself, null where it does not tell. */
  probe(): Promise<Answer>;
  /** Everything it has. */
  load(): Promise<Snapshot>;
  /** What it tells of each of its nexuses beyond its state; null: it does not tell. */
  targetHosts(): Promise<ReadonlyMap<string, TargetHosts> | null>;
  blockDevices(options: { readonly all: boolean }): Promise<BlockDevice[]>;
  createPool(request: CreatePool): Promise<PoolState>;
  importPool(request: CreatePool): Promise<PoolState>;
  destroyPool(id: string): Promise<void>;
  /** Closes it; what is on its disk stays. */
  exportPool(id: string): Promise<void>;
  createReplica(request: CreateReplica): Promise<ReplicaState>;
  destroyReplica(request: OfPool): Promise<void>;
  shareReplica(request: {
    readonly uuid: string;
    readonly allowedHosts: readonly string[];
  }): Promise<ReplicaState>;
  unshareReplica(uuid: string): Promise<ReplicaState>;
  createNexus(request: CreateNexus): Promise<NexusState>;
  destroyNexus(uuid: string): Promise<void>;
  shutdownNexus(uuid: string): Promise<NexusState>;
  shareNexus(request: {
    readonly uuid: string;
    readonly allowedHosts: readonly string[];
  }): Promise<NexusState>;
  unshareNexus(uuid: string): Promise<NexusState>;
  /** Unshares it and tells how its hosts had left; null: this engine cannot tell, and nothing was done. */
  endPublication(nexus: string): Promise<PublicationEnd | null>;
  /** Adds a child and starts its rebuild. */
  addChild(request: OfChild): Promise<NexusState>;
  removeChild(request: OfChild): Promise<NexusState>;
  /** Brings a faulted child back, by a partial rebuild when the write log exists. */
  onlineChild(request: OfChild): Promise<NexusState>;
  close(): void;
}

/** Makes the client of an engine at `ip:port`. */
export type EngineConnector = (options: {
  readonly node: string;
  readonly endpoint: string;
}) => EngineClient;
