/**
 * The network of one cluster: a bridge in the control plane's own network namespace, a link to the host.
 *
 * Addresses of cluster K (0 to 9): 10.77.K.1 control plane, .11 and up nodes, .254 host; pods 10.(244+K).NODE.0/24;
 * Services 10.96.0.0/16, inside the nodes only. So clusters on one machine do not meet, and the host's own
 * namespace reaches control plane, nodes and pods.
 * Invariant: nothing but the host's end of the link and its routes is in the host's namespace, and these go with it.
 */
import { networkInterfaces } from "node:os";
import { until } from "../local.ts";
import type { ProcessTable } from "../process.ts";
import { namespaceOf, run } from "./run.ts";
import { hostLink } from "./state.ts";

export const CLUSTERS_MAX = 10;
/** Node addresses and pod ranges hold this many. */
export const NODES_MAX = 200;
const HOLDER = "network";
const BRIDGE = "br0";
const LINK_NAME_CHARS_MAX = 15;

export interface Addresses {
  readonly controlPlane: string;
  readonly host: string;
  /** Of all pods. */
  readonly podCidr: string;
  node(number: number): string;
  nodePodCidr(number: number): string;
}

export function addressesOf(cluster: number): Addresses {
  if (!Number.isInteger(cluster) || cluster < 0 || cluster >= CLUSTERS_MAX)
    throw new Error(`Cannot place cluster ${cluster}: there is room for ${CLUSTERS_MAX}`);
  return {
    controlPlane: `10.77.${cluster}.1`,
    host: `10.77.${cluster}.254`,
    podCidr: `10.${244 + cluster}.0.0/16`,
    node: (number) => `10.77.${cluster}.${10 + number}`,
    nodePodCidr: (number) => `10.${244 + cluster}.${number}.0/24`,
  };
}

/** Is one of this cluster's ranges in use on the host already, by somebody else? */
export function isTaken(cluster: number): boolean {
  const prefixes = [`10.77.${cluster}.`, `10.${244 + cluster}.`];
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .some(({ address }) => prefixes.some((prefix) => address.startsWith(prefix)));
}

/** Waits until a process that was started to hold a namespace is in one of its own. */
export async function untilInside(pid: () => number | null, kind: "net" | "mnt"): Promise<number> {
  const outside = namespaceOf("self", kind);
  return await until(
    "a namespace of its own",
    async () => {
      const found = pid();
      if (found === null) throw new Error("the process that holds the namespace has ended");
      const inside = namespaceOf(found, kind);
      return inside !== null && inside !== outside ? found : null;
    },
    { seconds: 20, everyMs: 10 },
  );
}

export class Network {
  readonly addresses: Addresses;
  readonly #holder: number;

  private constructor(cluster: number, holder: number) {
    this.#holder = holder;
    this.addresses = addressesOf(cluster);
  }

  /** Command prefix that runs a program in the control plane's network namespace; the program keeps its process id. */
  get enter(): readonly string[] {
    return ["nsenter", `--net=/proc/${this.#holder}/ns/net`, "--"];
  }

  static async create(cluster: number, processes: ProcessTable): Promise<Network> {
    processes.start(HOLDER, ["unshare", "--net", "sleep", "infinity"], { cwd: "/" });
    const holder = await untilInside(() => processes.pid(HOLDER), "net");
    const network = new Network(cluster, holder);
    const { addresses } = network;
    const link = hostLink(cluster);
    const here = String(process.pid);
    await network.#ip(["link", "set", "lo", "up"]);
    await network.#ip(["link", "add", BRIDGE, "type", "bridge"]);
    await network.#ip(["addr", "add", `${addresses.controlPlane}/24`, "dev", BRIDGE]);
    await network.#ip(["link", "set", BRIDGE, "up"]);
    const pair = ["link", "add", "host", "type", "veth", "peer", "name", link, "netns", here];
    await network.#ip(pair);
    await network.#ip(["link", "set", "host", "master", BRIDGE, "up"]);
    await run(["ip", "addr", "add", `${addresses.host}/24`, "dev", link]);
    await run(["ip", "link", "set", link, "up"]);
    return network;
  }

  async #ip(args: readonly string[]): Promise<void> {
    await run([...this.enter, "ip", ...args]);
  }

  #linkOf(node: string): string {
    return node.slice(-LINK_NAME_CHARS_MAX);
  }

  /** Gives a node its link, address and routes. `pid` is a process in the node's network namespace. */
  async attach(node: string, number: number, pid: number): Promise<void> {
    const { addresses } = this;
    const link = this.#linkOf(node);
    const inNode = (args: readonly string[]) =>
      run(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ip", ...args]);
    const peer = ["peer", "name", "eth0", "netns", String(pid)];
    await this.#ip(["link", "add", link, "type", "veth", ...peer]);
    await this.#ip(["link", "set", link, "master", BRIDGE, "up"]);
    await inNode(["link", "set", "lo", "up"]);
    await inNode(["addr", "add", `${addresses.node(number)}/24`, "dev", "eth0"]);
    await inNode(["link", "set", "eth0", "up"]);
    await inNode(["route", "add", "default", "via", addresses.controlPlane]);
    const pods = ["route", "replace", addresses.nodePodCidr(number), "via", addresses.node(number)];
    await this.#ip(pods);
    await run(["ip", ...pods]);
  }

  /** Pods of `other` are reached through it, with no address translation between. */
  async routePods(pid: number, other: number): Promise<void> {
    const { addresses } = this;
    const route = ["replace", addresses.nodePodCidr(other), "via", addresses.node(other)];
    await run(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ip", "route", ...route]);
  }

  /** Pulls or plugs a node's cable: what runs on it goes on, unseen. */
  async setLink(node: string, state: "up" | "down"): Promise<void> {
    await this.#ip(["link", "set", this.#linkOf(node), state]);
  }

  /** Takes the link away; peers of the node see silence, as after a loss of power. */
  async detach(node: string): Promise<void> {
    await this.#ip(["link", "del", this.#linkOf(node)]);
  }
}
