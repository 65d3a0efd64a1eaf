/** `get …`: read resources and print them. */
import type { Node } from "#common/openapi/model.ts";
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

export async function getVolumes({ rest, printer }: CommandContext): Promise<void> {
  const volumes = await attempt("list volumes", () => rest.volumes());
  await printer.result(volumes, () => volumesTable(volumes));
}

export async function getVolume({ rest, printer }: CommandContext, id: string): Promise<void> {
  const volume = await attempt(`get volume ${id}`, () => rest.volume(id));
  await printer.result(volume, () => volumesTable([volume]));
}

/** JSON and YAML give the whole volumes, as published. */
export async function getTopologies({ rest, printer }: CommandContext): Promise<void> {
  const volumes = await attempt("list volumes", () => rest.volumes());
  await printer.result(volumes, () => topologiesTable(volumes));
}

export async function getTopology({ rest, printer }: CommandContext, id: string): Promise<void> {
  const { state } = await attempt(`get volume ${id}`, () => rest.volume(id));
  await printer.result(state.replica_topology, () => topologyTable(state.replica_topology));
}

export async function getPools({ rest, printer }: CommandContext): Promise<void> {
  const pools = await attempt("list pools", () => rest.pools());
  await printer.result(pools, () => poolsTable(pools));
}

export async function getPool({ rest, printer }: CommandContext, id: string): Promise<void> {
  const pool = await attempt(`get pool ${id}`, () => rest.pool(id));
  await printer.result(pool, () => poolsTable([pool]));
}

export async function getNodes({ rest, printer }: CommandContext): Promise<void> {
  const nodes = await attempt("list nodes", () => rest.nodes());
  await printer.result(nodes, () => nodesTable(nodes));
}

export async function getNode({ rest, printer }: CommandContext, id: string): Promise<void> {
  const node = await attempt(`get node ${id}`, () => rest.node(id));
  await printer.result(node, () => nodesTable([node]));
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
