/**
 * What each kind of resource looks like as a table: the published columns and cell rules.
 *
 * Invariants: pure functions of REST objects; an absent optional is `<none>`; sizes go through formatSize().
 */
import type {
  CordonDrainState,
  Node,
  Pool,
  ReplicaTopology,
  Volume,
} from "#common/openapi/model.ts";
import type { BlockDeviceShown } from "../rest_client.ts";
import { formatSize } from "./size.ts";
import { type Cells, NONE, type Table } from "./table.ts";

const SECTOR_BYTES = 512;

function optional<T>(value: T | undefined, show: (value: T) => string = String): string {
  return value === undefined ? NONE : show(value);
}

// ---- volumes ---------------------------------------------------------------------------------------------------

export function volumesTable(volumes: readonly Volume[]): Table {
  return {
    head: [
      "ID",
      "REPLICAS",
      "TARGET-NODE",
      "ACCESSIBILITY",
      "STATUS",
      "SIZE",
      "THIN-PROVISIONED",
      "ALLOCATED",
    ],
    rows: volumes.map(({ spec, state }) => [
      state.uuid,
      String(spec.num_replicas),
      optional(state.target?.node),
      state.target && state.target.protocol !== "none" ? state.target.protocol : NONE,
      state.status,
      formatSize(state.size),
      String(spec.thin),
      optional(state.usage, ({ allocated }) => formatSize(allocated)),
    ]),
  };
}

const TOPOLOGY_HEAD = [
  "ID",
  "NODE",
  "POOL",
  "STATUS",
  "CAPACITY",
  "ALLOCATED",
  "CHILD-STATUS",
  "CHILD-STATUS-REASON",
  "REBUILD",
];

function topologyCells(id: string, replica: ReplicaTopology): Cells {
  return [
    id,
    optional(replica.node),
    optional(replica.pool),
    replica.state,
    optional(replica.usage, ({ capacity }) => formatSize(capacity)),
    optional(replica.usage, ({ allocated }) => formatSize(allocated)),
    optional(replica["child-status"]),
    optional(replica["child-status-reason"]),
    optional(replica["rebuild-progress"], (percent) => `${percent}%`),
  ];
}

export function topologyTable(topology: Volume["state"]["replica_topology"]): Table {
  const rows = Object.entries(topology).map(([id, replica]) => topologyCells(id, replica));
  return { head: TOPOLOGY_HEAD, rows };
}

/** All volumes: the id leads its first replica, branches lead the others. */
export function topologiesTable(volumes: readonly Volume[]): Table {
  const rows = volumes.flatMap(({ state }) => {
    const replicas = Object.entries(state.replica_topology);
    return replicas.map(([id, replica], index) => {
      const branch = index === replicas.length - 1 ? "└─" : "├─";
      return [index === 0 ? state.uuid : branch, ...topologyCells(id, replica)];
    });
  });
  return { head: ["VOLUME-ID", ...TOPOLOGY_HEAD], rows };
}

// ---- pools -----------------------------------------------------------------------------------------------------

function poolCells({ id, spec, state }: Pool): Cells {
  const managed = String(spec !== undefined);
  if (state) {
    return [
      id,
      state.disks.join(", "),
      managed,
      state.node,
      state.status,
      formatSize(state.capacity),
      formatSize(state.used),
      formatSize(Math.max(0, state.capacity - state.used)),
      optional(state.committed, formatSize),
    ];
  }
  const zero = formatSize(0);
  const disks = optional(spec, (wanted) => wanted.disks.join(", "));
  return [id, disks, managed, optional(spec?.node), "Unknown", zero, zero, zero, NONE];
}

export function poolsTable(pools: readonly Pool[]): Table {
  return {
    head: [
      "ID",
      "DISKS",
      "MANAGED",
      "NODE",
      "STATUS",
      "CAPACITY",
      "ALLOCATED",
      "AVAILABLE",
      "COMMITTED",
    ],
    rows: pools.map(poolCells),
  };
}

// ---- nodes -----------------------------------------------------------------------------------------------------

export type CordonDrain = {
  readonly cordon: readonly string[];
  readonly drain: readonly string[];
  readonly drainState: "Not draining" | "Draining" | "Drained";
};

/** The labels and the drain state, whichever of the published forms they come in. */
export function cordonDrainOf(state: CordonDrainState | undefined): CordonDrain {
  if (state === undefined) return { cordon: [], drain: [], drainState: "Not draining" };
  if ("drainedstate" in state) {
    const { cordonlabels, drainlabels } = state.drainedstate;
    return { cordon: cordonlabels, drain: drainlabels, drainState: "Drained" };
  }
  if ("drainingstate" in state) {
    const { cordonlabels, drainlabels } = state.drainingstate;
    return { cordon: cordonlabels, drain: drainlabels, drainState: "Draining" };
  }
  return { cordon: state.cordonedstate.cordonlabels, drain: [], drainState: "Not draining" };
}

const NODE_HEAD = ["ID", "GRPC ENDPOINT", "STATUS", "CORDONED"];

function nodeCells({ id, spec, state }: Node): Cells {
  return [
    id,
    optional(spec?.grpcEndpoint ?? state?.grpcEndpoint),
    state?.status ?? "Unknown",
    String(spec?.cordondrainstate !== undefined),
  ];
}

export function nodesTable(nodes: readonly Node[]): Table {
  return { head: NODE_HEAD, rows: nodes.map(nodeCells) };
}

export function cordonTable(nodes: readonly Node[]): Table {
  const rows = nodes.map((node) => {
    const { cordon, drain } = cordonDrainOf(node.spec?.cordondrainstate);
    return [...nodeCells(node), [...cordon, ...drain].join(", ")];
  });
  return { head: [...NODE_HEAD, "CORDON LABELS"], rows };
}

export function drainTable(nodes: readonly Node[]): Table {
  const rows = nodes.map((node) => {
    const { drain, drainState } = cordonDrainOf(node.spec?.cordondrainstate);
    return [...nodeCells(node), drainState, drain.join(", ")];
  });
  return { head: [...NODE_HEAD, "DRAIN STATE", "DRAIN LABELS"], rows };
}

// ---- block devices ---------------------------------------------------------------------------------------------

/** The device that a pool's disk URI stands for: scheme and query stripped. */
function diskPath(disk: string): string {
  return disk.replace(/^[a-z]+:\/\//, "").replace(/\?.*$/, "");
}

function usable(device: BlockDeviceShown, poolDisks: ReadonlySet<string>): string {
  const taken = [device.devname, ...device.devlinks].some((name) => poolDisks.has(name));
  return device.available && !taken ? "yes" : "no";
}

/**
 * Devices of a node; a device that one of the node's pools uses is not available. `all` adds what is on them; nothing
 * on a device is an empty cell.
 * The columns MAJOR and MINOR stand under their own heads in both forms.
 */
export function blockDevicesTable(
  devices: readonly BlockDeviceShown[],
  { pools, all }: { pools: readonly Pool[]; all: boolean },
): Table {
  const disks = new Set(
    pools
      .flatMap(({ spec, state }) => [...(spec?.disks ?? []), ...(state?.disks ?? [])])
      .map(diskPath),
  );
  const content = all ? ["FSTYPE", "FSUUID", "MOUNTPOINT", "PARTTYPE"] : [];
  const rows = devices.map((device) => {
    const { filesystem, partition } = device;
    const parttype = partition?.scheme ? `${partition.scheme}:${partition.typeid}` : "";
    const { fstype = "", uuid = "", mountpoint = "" } = filesystem ?? {};
    return [
      device.devname,
      device.devtype,
      formatSize(device.size * SECTOR_BYTES),
      usable(device, disks),
      device.model,
      device.devpath,
      ...(all ? [fstype, uuid, mountpoint, parttype] : []),
      String(device.devmajor),
      String(device.devminor),
      device.devlinks.map((link) => `"${link}"`).join(", "),
    ];
  });
  const head = ["DEVNAME", "DEVTYPE", "SIZE", "AVAILABLE", "MODEL", "DEVPATH"];
  return { head: [...head, ...content, "MAJOR", "MINOR", "DEVLINKS"], rows };
}
