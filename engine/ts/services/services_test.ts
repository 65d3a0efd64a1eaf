import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { SvcError } from "#common/errors.ts";
import { ObjectLatencies_Kind as Kind } from "#common/proto/generated/mayastor/extension/v1/latency_pb.ts";
import {
  CreatePoolRequestSchema,
  PoolState,
  PoolType,
} from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { ListReplicaOptionsSchema } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import type { NexusInfo, PoolInfo, ReplicaInfo } from "../native.ts";
import { latenciesToWire } from "./latency.ts";
import { nexusToWire, openPath } from "./nexus.ts";
import { poolRequest, poolToWire } from "./pool.ts";
import { replicaToWire, selectReplicas } from "./replica.ts";
import { allowedHosts, fromTimestamp, toTimestamp } from "./shared.ts";

const replica: ReplicaInfo = {
  name: "r1",
  uuid: "11111111-1111-4111-8111-111111111111",
  poolName: "p1",
  poolUuid: "22222222-2222-4222-8222-222222222222",
  size: 8n << 20n,
  thin: false,
  shared: false,
  isSnapshot: false,
  isClone: false,
  uri: "bdev:///r1",
  usage: {
    capacity: 8n << 20n,
    allocated: 4n << 20n,
    clusterSize: 4n << 20n,
    clusters: 2n,
    allocatedClusters: 1n,
  },
  allowedHosts: [],
  entityId: null,
  snapshotUuid: null,
};
const select = (options: Parameters<typeof create<typeof ListReplicaOptionsSchema>>[1]) =>
  selectReplicas(
    [
      replica,
      { ...replica, name: "s1", isSnapshot: true },
      { ...replica, name: "c1", isClone: true },
    ],
    create(ListReplicaOptionsSchema, options),
  ).map(({ name }) => name);

test("selectReplicas() filters by pool, replica and kind", () => {
  assert.deepEqual(select({}), ["r1", "c1"]);
  assert.deepEqual(select({ name: "r1" }), ["r1"]);
  assert.deepEqual(select({ poolname: "other" }), []);
  assert.deepEqual(select({ pooluuid: replica.poolUuid.toUpperCase() }), ["r1", "c1"]);
  assert.deepEqual(select({ query: { snapshot: true } }), ["s1"]);
  assert.deepEqual(select({ query: { replica: true } }), ["r1"]);
  assert.deepEqual(select({ pooltypes: [PoolType.Lvm] }), []);
});

test("replicaToWire() leaves optional fields out when there is none", () => {
  const wire = replicaToWire(replica);
  assert.equal("entityId" in wire, false);
  assert.equal(replicaToWire({ ...replica, entityId: "v1" }).entityId, "v1");
  assert.equal(wire.usage?.numClusters, 2n);
});

test("poolRequest() refuses a pool type that is not served", () => {
  const request = (pooltype: PoolType) =>
    create(CreatePoolRequestSchema, { name: "p", disks: ["d"], pooltype });
  assert.throws(() => poolRequest(request(PoolType.Lvm), null), { kind: "invalid-argument" });
  assert.equal(poolRequest(request(PoolType.Lvs), null).uuid, null);
});

test("poolToWire() reports a pool whose disk has gone as faulted", () => {
  const pool: PoolInfo = {
    name: "p1",
    uuid: replica.poolUuid,
    disks: ["aio:///f"],
    capacity: 1n,
    used: 0n,
    committed: 0n,
    diskCapacity: 2n,
    clusterSize: 4 << 20,
    pageSize: 4096,
    blockSize: 512,
    faulted: false,
    ...{ readErrors: 0n, writeErrors: 0n, slowRequests: 0n, waitingMs: 0n },
    ...{ sinceLastErrorMs: null, sinceLastSlowMs: null },
    ...{ lastErrorOffset: 0n, lastErrorLength: 0n, lastErrorNumber: 0, lastErrorWasRead: false },
  };
  assert.equal(poolToWire(pool).state, PoolState.POOL_ONLINE);
  assert.equal(poolToWire({ ...pool, faulted: true }).state, PoolState.POOL_FAULTED);
});

test("nexusToWire() turns a fault's time into a timestamp", () => {
  const child = {
    uri: "bdev:///r1",
    state: 3,
    reason: 6,
    rebuildProgress: -1,
    deviceName: null,
    faultTimeNs: 1_500_000_000n,
    hasIoLog: true,
  } as const;
  const wire = nexusToWire({
    name: "v",
    uuid: replica.uuid,
    deviceUri: "",
    infoKey: "",
    size: 1n,
    state: 2,
    anaState: 0,
    rebuilds: 0,
    children: [child],
    allowedHosts: [],
    connectedHosts: 0,
    hosts: [],
    hostsComplete: true,
  });
  assert.deepEqual(wire.children?.[0]?.faultTimestamp, { seconds: 1n, nanos: 500_000_000 });
});

test("openPath() opens no path to a nexus that has ended, before or meanwhile", async () => {
  const nexus = (state: NexusInfo["state"], anaState: NexusInfo["anaState"] = 0): NexusInfo => ({
    ...{
      name: "v",
      uuid: replica.uuid,
      deviceUri: "",
      infoKey: "",
      size: 1n,
      state,
      anaState,
      rebuilds: 0,
    },
    ...{ children: [], allowedHosts: [], connectedHosts: 0, hosts: [], hostsComplete: true },
  });
  const ask = async (before: NexusInfo["state"], after: NexusInfo["state"]) => {
    const calls: string[] = [];
    const engine = {
      nexusList: async () => [nexus(before)],
      nexusSetAnaState: async (_uuid: string, state: number) => {
        calls.push(`ana ${state}`);
        return nexus(after, 3);
      },
    };
    const open = async () => {
      calls.push("open");
      return nexus(after, 1);
    };
    const uuid = replica.uuid.toUpperCase();
    const failed = await openPath(engine, { uuid, what: "publish", open }).then(
      () => null,
      (error: SvcError) => error.kind,
    );
    return { failed, calls };
  };
  for (const state of [1, 2, 3] as const) {
    assert.deepEqual(await ask(state, state), { failed: null, calls: ["open"] });
  }
  for (const state of [4, 5] as const) {
    assert.deepEqual(await ask(state, state), { failed: "failed-precondition", calls: [] });
    const meanwhile = { failed: "failed-precondition", calls: ["open", "ana 3"] };
    assert.deepEqual(await ask(1, state), meanwhile);
  }
});

test("allowedHosts() refuses what is not an NQN", () => {
  assert.throws(() => allowedHosts(["host-1"]), { kind: "invalid-argument" });
  assert.equal(fromTimestamp(toTimestamp(1_234_567_890_123n)), 1_234_567_890_123n);
});

test("latenciesToWire() keeps every bucket, and says the volume of a replica only", () => {
  const none = { sumNs: 0n, zeroCount: 0n, indexes: [], counts: [] };
  const read = { sumNs: 5_000_000n, zeroCount: 1n, indexes: [-80, -79], counts: [3n, 1n] };
  const named = { name: "r1", uuid: replica.uuid, entityId: "v1", schema: 3 };
  const measured = { ...named, zeroThresholdSec: 2 ** -23, read, write: none, unmap: none };
  const wire = latenciesToWire(Kind.REPLICA, measured);
  assert.equal(wire.kind, Kind.REPLICA);
  assert.equal(wire.entityId, "v1");
  assert.deepEqual(wire.read, {
    ...{ schema: 3, zeroThresholdSec: 2 ** -23, zeroCount: 1n, sumNs: 5_000_000n },
    ...{ bucketIndexes: [-80, -79], bucketCounts: [3n, 1n] },
  });
  assert.equal("entityId" in latenciesToWire(Kind.POOL, { ...measured, entityId: null }), false);
});
