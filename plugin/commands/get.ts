/** `get …`: read resources and print them. */
import type { Node, Pool, StatusReason, Volume } from "#common/openapi/model.ts";
import {
  blockDevicesTable,
  cordonDrainOf,
  cordonTable,
  drainTable,
  nodesTable,
  poolsTable,
  topologiesTable,
  topologyTable,
  volumesTable,
} from "../output/tables.ts";
import { attempt, type CommandContext } from "./context.ts";

type Explained = readonly [what: string, reason: StatusReason | undefined];

/** The reasons of what is not healthy: on stderr, so that the published tables stay what programs read. */
function explain({ terminal, form }: CommandContext, objects: readonly Explained[]): void {
  if (form !== "none") return; // JSON and YAML carry them
  for (const [what, reason] of objects) {
    if (reason === undefined) continue;
    const since = reason.since === undefined ? "" : ` (since ${reason.since})`;
    terminal.err(`${what}: ${reason.message}${since} Next step: ${reason.next_step}\n`);
  }
}

const volumeReason = ({ state }: Volume): Explained => [
  `volume ${state.uuid} ${state.status}`,
  state.status_reason,
];
const replicaReasons = (topology: Volume["state"]["replica_topology"]): Explained[] =>
  Object.entries(topology).map(([id, { state, status_reason }]) => [
    `replica ${id} ${state}`,
    status_reason,
  ]);
const poolReason = ({ id, state, status_reason }: Pool): Explained => [
  `pool ${id} ${state?.status ?? "Unknown"}`,
  state?.status_reason ?? status_reason,
];
const nodeReason = ({ id, state, status_reason }: Node): Explained => [
  `node ${id} ${state?.status ?? "Unknown"}`,
  state?.status_reason ?? status_reason,
];

export async function getVolumes(context: CommandContext): Promise<void> {
  const { rest, printer } = context;
  const volumes = await attempt("list volumes", () => rest.volumes());
  await printer.result(volumes, () => volumesTable(volumes));
  explain(context, volumes.map(volumeReason));
}

export async function getVolume(context: CommandContext, id: string): Promise<void> {
  const { rest, printer } = context;
  const volume = await attempt(`get volume ${id}`, () => rest.volume(id));
  await printer.result(volume, () => volumesTable([volume]));
  explain(context, [volumeReason(volume)]);
}

/** JSON and YAML give the whole volumes, as published. */
export async function getTopologies(context: CommandContext): Promise<void> {
  const { rest, printer } = context;
  const volumes = await attempt("list volumes", () => rest.volumes());
  await printer.result(volumes, () => topologiesTable(volumes));
  explain(
    context,
    volumes.flatMap(({ state }) => replicaReasons(state.replica_topology)),
  );
}

export async function getTopology(context: CommandContext, id: string): Promise<void> {
  const { rest, printer } = context;
  const { state } = await attempt(`get volume ${id}`, () => rest.volume(id));
  await printer.result(state.replica_topology, () => topologyTable(state.replica_topology));
  explain(context, replicaReasons(state.replica_topology));
}

export async function getPools(context: CommandContext): Promise<void> {
  const { rest, printer } = context;
  const pools = await attempt("list pools", () => rest.pools());
  await printer.result(pools, () => poolsTable(pools));
  explain(context, pools.map(poolReason));
}

export async function getPool(context: CommandContext, id: string): Promise<void> {
  const { rest, printer } = context;
  const pool = await attempt(`get pool ${id}`, () => rest.pool(id));
  await printer.result(pool, () => poolsTable([pool]));
  explain(context, [poolReason(pool)]);
}

export async function getNodes(context: CommandContext): Promise<void> {
  const { rest, printer } = context;
  const nodes = await attempt("list nodes", () => rest.nodes());
  await printer.result(nodes, () => nodesTable(nodes));
  explain(context, nodes.map(nodeReason));
}

export async function getNode(context: CommandContext, id: string): Promise<void> {
  const { rest, printer } = context;
  const node = await attempt(`get node ${id}`, () => rest.node(id));
  await printer.result(node, () => nodesTable([node]));
  explain(context, [nodeReason(node)]);
}

export async function getBlockDevices(
  { rest, printer }: CommandContext,
  { node, all }: { node: string; all: boolean },
): Promise<void> {
  const pools = await attempt(`list pools for node ${node}`, () => rest.nodePools(node));
  const devices = await attempt(`list block devices for node ${node}`, () =>
    rest.blockDevices(node, all),
  );
  await printer.result(devices, () => blockDevicesTable(devices, { pools, all }));
}

const isCordoned = ({ spec }: Node): boolean => spec?.cordondrainstate !== undefined;
const isDraining = ({ spec }: Node): boolean =>
  cordonDrainOf(spec?.cordondrainstate).drainState !== "Not draining";

export async function getCordonNodes({ rest, printer }: CommandContext): Promise<void> {
  const nodes = (await attempt("list nodes", () => rest.nodes())).filter(isCordoned);
  await printer.result(nodes, () => cordonTable(nodes));
}

/** An array of one in JSON and YAML, as published. */
export async function getCordonNode({ rest, printer }: CommandContext, id: string): Promise<void> {
  const nodes = [await attempt(`get node ${id}`, () => rest.node(id))];
  await printer.result(nodes, () => cordonTable(nodes));
}

export async function getDrainNodes({ rest, printer }: CommandContext): Promise<void> {
  const nodes = (await attempt("list nodes", () => rest.nodes())).filter(isDraining);
  await printer.result(nodes, () => drainTable(nodes));
}

/** An array of one in JSON and YAML, as published. */
export async function getDrainNode({ rest, printer }: CommandContext, id: string): Promise<void> {
  const nodes = [await attempt(`get node ${id}`, () => rest.node(id))];
  await printer.result(nodes, () => drainTable(nodes));
}
