/**
 * An agent-core for tests: answers every method of the API from a small fixed cluster, over real gRPC.
 *
 * Invariants: answers match the API's schemas (makeJsonService checks); every call is recorded in order; a method
 * may be replaced for one test. Only tests import this.
 */
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import type {
  Child,
  Nexus,
  Node,
  Pool,
  PurgeCost,
  Replica,
  Volume,
} from "#common/openapi/model.ts";
import { CORE_API, type CoreHandlers, type CoreMethod } from "#common/rpc/core_api.ts";
import { startServer } from "#common/rpc/grpc.ts";
import { makeJsonService } from "#common/rpc/json_server.ts";

export const VOLUME = "bf207797-b23d-447a-8d3f-98d378acfa8a";
export const NEXUS = "069feb5e-ec65-4e97-b094-99262dfc9f44";
export const REPLICA = "f65d9888-7699-4c44-8ee2-f6aaa58dead0";
export const UNKNOWN = "00000000-0000-4000-8000-000000000000";
export const CHILD_URI = `nvmf://10.1.0.6:8420/nqn.2019-05.io.openebs:${REPLICA}?uuid=${REPLICA}`;
export const HOST_NQN = "nqn.2019-05.io.openebs:node-name:worker-0";

export const child: Child = { state: "Online", uri: CHILD_URI };
export const nexus: Nexus = {
  children: [child],
  deviceUri: `nvmf://10.1.0.6:4421/nqn.2019-05.io.openebs:${VOLUME}`,
  node: "worker-0",
  rebuilds: 0,
  protocol: "nvmf",
  size: 1_073_741_824,
  state: "Online",
  uuid: NEXUS,
};
export const node: Node = {
  id: "worker-0",
  spec: { grpcEndpoint: "10.1.0.6:10124", id: "worker-0", node_nqn: HOST_NQN },
  state: { grpcEndpoint: "10.1.0.6:10124", id: "worker-0", status: "Online", node_nqn: HOST_NQN },
};
export const pool: Pool = {
  id: "pool-0",
  spec: {
    disks: ["/dev/vdb"],
    id: "pool-0",
    labels: { "openebs.io/created-by": "operator-diskpool" },
    node: "worker-0",
    status: "Created",
  },
  state: {
    capacity: 10_737_418_240,
    disks: ["aio:///dev/vdb?uuid=d8a36b4b-0435-4fee-bf76-f2aef980b833"],
    id: "pool-0",
    node: "worker-0",
    status: "Online",
    used: 1_610_612_736,
    committed: 1_073_741_824,
  },
};
export const replica: Replica = {
  node: "worker-0",
  pool: "pool-0",
  poolUuid: "d8a36b4b-0435-4fee-bf76-f2aef980b833",
  share: "nvmf",
  size: 1_073_741_824,
  space: {
    capacity_bytes: 1_073_741_824,
    allocated_bytes: 1_073_741_824,
    cluster_size: 4_194_304,
    clusters: 256,
    allocated_clusters: 256,
  },
  state: "Online",
  thin: false,
  uri: CHILD_URI,
  uuid: REPLICA,
  "allowed-hosts": [HOST_NQN],
};
export const volume: Volume = {
  spec: {
    labels: { local: "true" },
    num_replicas: 1,
    size: 1_073_741_824,
    status: "Created",
    target: { node: "worker-0", protocol: "nvmf" },
    uuid: VOLUME,
    topology: {
      node_topology: {
        explicit: { allowed_nodes: ["worker-0"], preferred_nodes: ["worker-0"] },
      },
      pool_topology: {
        labelled: { exclusion: {}, inclusion: { "openebs.io/created-by": "operator-diskpool" } },
      },
    },
    policy: { self_heal: true },
    thin: false,
  },
  state: {
    target: nexus,
    size: 1_073_741_824,
    status: "Online",
    uuid: VOLUME,
    replica_topology: {
      [REPLICA]: {
        node: "worker-0",
        pool: "pool-0",
        state: "Online",
        "child-status": "Online",
        usage: { capacity: 1_073_741_824, allocated: 1_073_741_824 },
      },
    },
    usage: { capacity: 1_073_741_824, allocated: 1_073_741_824, total_allocated: 1_073_741_824 },
  },
};

const missing = (what: string, id: string): SvcError =>
  new SvcError("not-found", `Cannot find ${what} "${id}": it does not exist`);

const find = (id: string): Volume => {
  if (id !== VOLUME) throw missing("volume", id);
  return volume;
};

const purge: PurgeCost = {
  ...{ kind: "pool", id: pool.id, pools: [pool.id], replicas: 1, unowned: 0, targets: [] },
  volumes: [{ volume: VOLUME, replicas: [], wanted: 2, left: 1, last_copy: false }],
  last_copies: 0,
};

const answers: CoreHandlers = {
  GetNodes: async () => [node],
  GetNode: async ({ node: id }) => {
    if (id !== node.id) throw missing("node", id);
    return node;
  },
  CordonNode: async ({ label }) => ({
    ...node,
    spec: {
      grpcEndpoint: "10.1.0.6:10124",
      id: node.id,
      cordondrainstate: { cordonedstate: { cordonlabels: [label] } },
    },
  }),
  UncordonNode: async () => node,
  DrainNode: async ({ label }) => ({
    ...node,
    spec: {
      grpcEndpoint: "10.1.0.6:10124",
      id: node.id,
      cordondrainstate: { drainingstate: { cordonlabels: [], drainlabels: [label] } },
    },
  }),
  GetBlockDevices: async () => [
    {
      available: true,
      devlinks: ["/dev/disk/by-id/virtio-1"],
      devmajor: 252,
      devminor: 16,
      devname: "/dev/vdb",
      devpath: "/devices/pci0000:00/virtio1/block/vdb",
      devtype: "disk",
      filesystem: { fstype: "", label: "", mountpoint: "", uuid: "" },
      model: "",
      partition: { name: "", number: 0, parent: "", scheme: "", typeid: "", uuid: "" },
      size: 20_971_520,
    },
  ],
  GetPools: async () => [pool],
  GetPool: async ({ pool: id }) => {
    if (id !== pool.id) throw missing("pool", id);
    return pool;
  },
  CreatePool: async () => pool,
  DestroyPool: async () => ({}),
  GetPoolPurge: async ({ pool: id }) => ({ ...purge, id }),
  PurgePool: async ({ pool: id }) => ({ ...purge, id }),
  GetNodePurge: async ({ node: id }) => ({ ...purge, kind: "node" as const, id }),
  PurgeNode: async ({ node: id }) => ({ ...purge, kind: "node" as const, id }),
  GetReplicas: async () => [replica],
  GetReplica: async () => replica,
  CreateReplica: async () => replica,
  DestroyReplica: async () => ({}),
  ShareReplica: async () => ({ uri: CHILD_URI }),
  UnshareReplica: async () => ({}),
  GetNexuses: async () => [nexus],
  GetNexus: async () => nexus,
  CreateNexus: async () => nexus,
  DestroyNexus: async () => ({}),
  ShareNexus: async () => ({ uri: nexus.deviceUri }),
  UnshareNexus: async () => ({}),
  AddNexusChild: async ({ uri }) => ({ state: "Degraded", rebuildProgress: 0, uri }),
  RemoveNexusChild: async () => ({}),
  GetVolumes: async ({ volume: id }) => ({
    entries: id === undefined || id === VOLUME ? [volume] : [],
  }),
  GetVolume: async ({ volume: id }) => find(id),
  CreateVolume: async () => volume,
  DestroyVolume: async () => ({}),
  SetVolumeReplicaCount: async () => volume,
  PublishVolume: async () => volume,
  RepublishVolume: async () => volume,
  UnpublishVolume: async () => volume,
  ShutdownVolumeTargets: async () => ({}),
  ShareVolume: async () => ({ uri: nexus.deviceUri }),
  UnshareVolume: async () => ({}),
  GetSpecs: async () => ({
    nexuses: [],
    pools: pool.spec ? [pool.spec] : [],
    replicas: [],
    volumes: [volume.spec],
  }),
  GetStates: async () => ({
    nexuses: [{ nexus }],
    pools: pool.state ? [{ pool: pool.state }] : [],
    replicas: [{ replica }],
  }),
  GetVolumeWatches: async ({ volume: id }) => [
    { callback: "http://10.1.0.9/changed", resource: `volume/${id}` },
  ],
  CreateVolumeWatch: async () => ({}),
  DeleteVolumeWatch: async () => ({}),
};

export type RecordedCall = { readonly method: CoreMethod; readonly request: unknown };

export type FakeCore = {
  readonly port: number;
  /** Every call so far, in order. */
  readonly calls: RecordedCall[];
  /** Answers of single methods, instead of the fixed ones. */
  readonly instead: { -readonly [M in CoreMethod]?: CoreHandlers[M] };
  close(): Promise<void>;
};

/** Starts the fake on a free port of loopback. */
export async function startFakeCore(): Promise<FakeCore> {
  const calls: RecordedCall[] = [];
  const instead: FakeCore["instead"] = {};
  type AnyHandler = (request: unknown, context: unknown) => Promise<unknown>;
  const handlers: Record<string, AnyHandler> = {};
  for (const [name, answer] of Object.entries(answers)) {
    const method = name as CoreMethod; // the keys of CoreHandlers are the methods
    handlers[method] = (request, context) => {
      calls.push({ method, request });
      // Both take what the schema of this very method has parsed.
      return ((instead[method] ?? answer) as AnyHandler)(request, context);
    };
  }
  // One handler for each method was put in above.
  const service = makeJsonService(CORE_API, handlers as CoreHandlers, { log: silentLog });
  const server = await startServer("127.0.0.1:0", [service]);
  return { port: server.port, calls, instead, close: () => server.close() };
}
