/**
 * From the engine's protobuf messages to what agent-core thinks in.
 *
 * Invariants: every 64-bit size is checked to fit a number; an enum value we do not know becomes Unknown,
 * never an error, because a newer engine may have more of them.
 */
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { PoolHealth } from "#common/proto/generated/mayastor/ext/v1/pool_health_pb.ts";
import type { Bdev } from "#common/proto/generated/mayastor/v1/bdev_pb.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import type { BlockDevice as WireDevice } from "#common/proto/generated/mayastor/v1/host_pb.ts";
import {
  type Child,
  ChildStateReason,
  type Nexus,
  ChildState as WireChildState,
  NexusState as WireNexusState,
} from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import {
  type Pool,
  PoolState as WirePoolState,
} from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import type { Replica } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { toSafeNumber } from "#common/units.ts";
import type {
  BlockDevice,
  ChildReason,
  ChildState,
  NexusState,
  NexusStatus,
  PoolState,
  PoolTrouble,
  ReplicaState,
  Status,
} from "./client.ts";

const CODE_LENGTH_MAX = 64;
const TEXT_LENGTH_MAX = 500;

const POOL_STATUS: ReadonlyMap<number, Status> = new Map<number, Status>([
  [WirePoolState.POOL_ONLINE, "Online"],
  [WirePoolState.POOL_DEGRADED, "Degraded"],
  [WirePoolState.POOL_FAULTED, "Faulted"],
]);

const CHILD_STATUS: ReadonlyMap<number, Status> = new Map<number, Status>([
  [WireChildState.ONLINE, "Online"],
  [WireChildState.DEGRADED, "Degraded"],
  [WireChildState.FAULTED, "Faulted"],
]);

const NEXUS_STATUS: ReadonlyMap<number, NexusStatus> = new Map<number, NexusStatus>([
  [WireNexusState.NEXUS_ONLINE, "Online"],
  [WireNexusState.NEXUS_DEGRADED, "Degraded"],
  [WireNexusState.NEXUS_FAULTED, "Faulted"],
  [WireNexusState.NEXUS_SHUTTING_DOWN, "ShuttingDown"],
  [WireNexusState.NEXUS_SHUTDOWN, "Shutdown"],
]);

const CHILD_REASON: ReadonlyMap<number, ChildReason> = new Map<number, ChildReason>([
  [ChildStateReason.INIT, "Init"],
  [ChildStateReason.CLOSED, "Closed"],
  [ChildStateReason.CANNOT_OPEN, "CannotOpen"],
  [ChildStateReason.CONFIG_INVALID, "ConfigInvalid"],
  [ChildStateReason.REBUILD_FAILED, "RebuildFailed"],
  [ChildStateReason.IO_FAILURE, "IoFailure"],
  [ChildStateReason.BY_CLIENT, "ByClient"],
  [ChildStateReason.OUT_OF_SYNC, "OutOfSync"],
  [ChildStateReason.NO_SPACE, "NoSpace"],
  [ChildStateReason.TIMED_OUT, "TimedOut"],
  [ChildStateReason.ADMIN_FAILED, "AdminFailed"],
]);

/** Of a pool, beside what the published message says. */
export type PoolExtra = { readonly trouble?: PoolTrouble; readonly blockSize?: number };
export type PoolExtras = (pools: readonly Pool[]) => Promise<ReadonlyMap<string, PoolExtra>>;

/** What an engine of ours tells, by pool; texts are bounded, since they are shown to people. */
export function toPoolExtras(health: readonly PoolHealth[]): PoolExtras {
  const extras = new Map(
    health.map(({ name, reasonCode, reason, nextStep, blockSize }): [string, PoolExtra] => {
      const trouble = {
        code: reasonCode.slice(0, CODE_LENGTH_MAX),
        message: reason.slice(0, TEXT_LENGTH_MAX),
        nextStep: nextStep.slice(0, TEXT_LENGTH_MAX),
      };
      const size = blockSize > 0 ? { blockSize } : {};
      return [name, reasonCode === "" ? size : { ...size, trouble }];
    }),
  );
  return async () => extras;
}

/** The device in a disk's URI. */
function devicePath(disk: string): string {
  return disk.replace(/^[a-z]+:\/\/(?=\/)/, "").replace(/\?.*$/, "");
}

/** Other makes of engine tell the block size of their pools' disks only among all their bdevs. */
export function bdevBlockSizes(
  pools: readonly Pick<Pool, "name" | "disks">[],
  bdevs: readonly Pick<Bdev, "name" | "uri" | "blkSize">[],
): ReadonlyMap<string, PoolExtra> {
  const sizes = new Map<string, number>();
  for (const { name, uri, blkSize } of bdevs) {
    for (const path of [name, devicePath(uri)]) if (path !== "") sizes.set(path, blkSize);
  }
  return new Map(
    pools.flatMap(({ name, disks }): [string, PoolExtra][] => {
      const blockSize = sizes.get(devicePath(disks[0] ?? ""));
      return blockSize ? [[name, { blockSize }]] : [];
    }),
  );
}

export function toPool(node: string, pool: Pool, extra: PoolExtra = {}): PoolState {
  return {
    ...extra,
    id: pool.name,
    uuid: pool.uuid,
    node,
    disks: pool.disks,
    status: POOL_STATUS.get(pool.state) ?? "Unknown",
    capacity: toSafeNumber(pool.capacity),
    used: toSafeNumber(pool.used),
    committed: toSafeNumber(pool.committed),
    clusterSize: pool.clusterSize,
  };
}

/** A replica is as well as its pool: none can be used whose disk is gone or does not answer. */
export function statusOnPool(pool: Status | undefined): Status {
  return pool === "Faulted" || pool === "Unknown" ? pool : "Online";
}

export function toReplica(
  node: string,
  replica: Replica,
  { pool = "Online" }: { readonly pool?: Status | undefined } = {},
): ReplicaState {
  const { usage } = replica;
  const share =
    replica.share === ShareProtocol.NVMF
      ? "nvmf"
      : replica.share === ShareProtocol.ISCSI
        ? "iscsi"
        : "none";
  return {
    uuid: replica.uuid,
    name: replica.name,
    node,
    pool: replica.poolname,
    poolUuid: replica.pooluuid,
    size: toSafeNumber(replica.size),
    thin: replica.thin,
    share,
    uri: replica.uri,
    allowedHosts: replica.allowedHosts,
    space: usage
      ? {
          capacity: toSafeNumber(usage.capacityBytes),
          allocated: toSafeNumber(usage.allocatedBytes),
          clusterSize: toSafeNumber(usage.clusterSize),
          clusters: toSafeNumber(usage.numClusters),
          allocatedClusters: toSafeNumber(usage.numAllocatedClusters),
        }
      : null,
    status: statusOnPool(pool), // the engine lists a replica only while its pool is loaded
  };
}

function toTimeMs(timestamp: Timestamp | undefined): number | null {
  return timestamp ? timestampMs(timestamp) : null;
}

function toChild(child: Child): ChildState {
  const progress = child.rebuildProgress;
  return {
    uri: child.uri,
    status: CHILD_STATUS.get(child.state) ?? "Unknown",
    reason: CHILD_REASON.get(child.stateReason) ?? "None",
    rebuildProgress: progress >= 0 && progress <= 100 ? progress : null,
    faultedAtMs: toTimeMs(child.faultTimestamp),
    hasIoLog: child.hasIoLog,
  };
}

export function toNexus(node: string, nexus: Nexus): NexusState {
  return {
    uuid: nexus.uuid,
    name: nexus.name,
    node,
    size: toSafeNumber(nexus.size),
    status: NEXUS_STATUS.get(nexus.state) ?? "Unknown",
    children: nexus.children.map(toChild),
    deviceUri: nexus.deviceUri,
    share: nexus.deviceUri.startsWith("nvmf") ? "nvmf" : "none",
    rebuilds: nexus.rebuilds,
    allowedHosts: nexus.allowedHosts,
  };
}

export function toDevice(device: WireDevice): BlockDevice {
  const { filesystem, partition } = device;
  return {
    available: device.available,
    devlinks: device.devlinks,
    devmajor: device.devmajor,
    devminor: device.devminor,
    devname: device.devname,
    devpath: device.devpath,
    devtype: device.devtype,
    model: device.model,
    sectors: toSafeNumber(device.size),
    filesystem: {
      fstype: filesystem?.fstype ?? "",
      label: filesystem?.label ?? "",
      mountpoint: filesystem?.mountpoints[0] ?? "",
      uuid: filesystem?.uuid ?? "",
    },
    partition: {
      name: partition?.name ?? "",
      number: partition?.number ?? 0,
      parent: partition?.parent ?? "",
      scheme: partition?.scheme ?? "",
      typeid: partition?.typeid ?? "",
      uuid: partition?.uuid ?? "",
    },
  };
}
