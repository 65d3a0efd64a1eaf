/**
 * The command line of node-prep, parsed and checked before any node is touched.
 *
 * Invariant: every value that leaves here is safe to hand to ssh and to write into a node's files.
 */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { parseArgs } from "node:util";
import { SvcError } from "#common/errors.ts";
import { type Host, parseHost } from "../lib/ssh.ts";
import { parseCpuList } from "./facts.ts";

export const USAGE = `Prepares Linux nodes for Mayastor over ssh: shows what it would do, does it with --apply.
Usage: node-prep --host=[user@]host[:port][=node-name] ... [options]

  --host=HOST               a node (repeat it for more); node-name is its name in Kubernetes
  --hosts-file=FILE         a node per line, # starts a comment
  --apply                   make the changes (without it: a dry run)
  --undo                    take back what earlier runs changed (with --apply; alone: show it);
                            refused while pools or volume targets are on the node
  --hugepages=PAGES         2 MiB pages to reserve, now and at boot (documented minimum: 1024)
  --isolate-cpus=LIST       CPUs for io-engine alone, such as 2,3 or 4-7 (isolcpus; needs a reboot)
  --open-firewall=CIDR      let this network reach ports 10124, 8420, 4421, 9502 and 10199
  --install-packages        install xfsprogs where it is missing
  --kubectl=PROGRAM         label the nodes with it (without it: the command is printed)
  --kubeconfig=FILE         for kubectl
  --context=NAME            for kubectl
  --ssh-config=FILE         ssh configuration to use instead of yours
  --identity=FILE           ssh key
  --parallel=COUNT          nodes worked on at once (8)
  --plain                   lines instead of a live table
  --talos                   print the machine-config patch for Talos Linux instead (Talos has no ssh)
  --namespace=NAME          for --talos: where Mayastor is installed (mayastor)

Exit code: 0 every node is as wanted or would be, 1 a node is not, 2 wrong use.
`;

/** gRPC and NVMe of io-engine (replicas, targets), its metrics, csi-node. */
export const PORTS = [10124, 8420, 4421, 9502, 10199] as const;
/** More would need the memory of a machine nobody has; catches a size given in bytes. */
const HUGEPAGES_MAX = 8 << 20;
const PARALLEL_MAX = 64;
const HOSTS_MAX = 5000;

export interface Wanted {
  readonly hugepages: number | undefined;
  readonly isolateCpus: readonly number[] | undefined;
  readonly openFirewall: string | undefined;
  readonly installPackages: boolean;
}

export interface Options extends Wanted {
  readonly hosts: readonly Host[];
  readonly mode: "check" | "apply" | "show-undo" | "undo" | "talos" | "help";
  readonly kubectl: { program: string; args: readonly string[] } | undefined;
  readonly ssh: { config: string | undefined; identity: string | undefined };
  readonly parallel: number;
  readonly plain: boolean;
  readonly namespace: string;
}

const text = { type: "string" } as const;
const flag = { type: "boolean", default: false } as const;

/** Parses the arguments. @throws {SvcError} `invalid-argument`, naming the bad one */
export function parseOptions(argv: readonly string[]): Options {
  const { values } = readArgs(argv);
  if (values.help) return { ...options(values, []), mode: "help" };
  const named = [
    ...(values.host ?? []),
    ...(values["hosts-file"] === undefined ? [] : hostsOf(values["hosts-file"])),
  ];
  const hosts = named.map(parseHost);
  const seen = new Set<string>();
  for (const host of hosts) {
    const key = `${host.address}:${host.port ?? 22}`;
    if (seen.has(key)) throw invalid(`Cannot use host ${host.name}: it is given twice`);
    seen.add(key);
  }
  if (hosts.length > HOSTS_MAX) {
    throw invalid(`Cannot prepare ${hosts.length} hosts: at most ${HOSTS_MAX} in one run`);
  }
  const parsed = options(values, hosts);
  if (hosts.length === 0 && parsed.mode !== "talos") {
    throw invalid("Cannot start: no host is given; use --host or --hosts-file");
  }
  return parsed;
}

function readArgs(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        host: { type: "string", multiple: true },
        "hosts-file": text,
        apply: flag,
        undo: flag,
        hugepages: text,
        "isolate-cpus": text,
        "open-firewall": text,
        "install-packages": flag,
        kubectl: text,
        kubeconfig: text,
        context: text,
        "ssh-config": text,
        identity: text,
        parallel: text,
        plain: flag,
        talos: flag,
        namespace: text,
        help: { type: "boolean", default: false, short: "h" },
      },
    });
  } catch (cause) {
    throw new SvcError("invalid-argument", cause instanceof Error ? cause.message : String(cause), {
      cause,
    });
  }
}

type Values = ReturnType<typeof readArgs>["values"];

function options(values: Values, hosts: readonly Host[]): Options {
  const namespace = values.namespace ?? "mayastor";
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(namespace)) {
    throw invalid(`Cannot use namespace "${namespace}": it is no Kubernetes name`);
  }
  if (values.kubectl === undefined && (values.kubeconfig ?? values.context) !== undefined) {
    throw invalid("Cannot use --kubeconfig or --context: give --kubectl too");
  }
  if (values.talos && (values.undo || values.apply)) {
    throw invalid("Cannot apply to Talos: --talos prints a patch for talosctl");
  }
  return {
    hosts,
    mode: modeOf(values),
    hugepages: count("hugepages", values.hugepages, HUGEPAGES_MAX),
    isolateCpus: cpusOf(values["isolate-cpus"]),
    openFirewall: networkOf(values["open-firewall"]),
    installPackages: values["install-packages"],
    kubectl:
      values.kubectl === undefined
        ? undefined
        : {
            program: values.kubectl,
            args: [
              ...(values.kubeconfig === undefined ? [] : [`--kubeconfig=${values.kubeconfig}`]),
              ...(values.context === undefined ? [] : [`--context=${values.context}`]),
            ],
          },
    ssh: { config: values["ssh-config"], identity: values.identity },
    parallel: count("parallel", values.parallel, PARALLEL_MAX) ?? 8,
    plain: values.plain,
    namespace,
  };
}

function modeOf(values: Values): Options["mode"] {
  if (values.talos) return "talos";
  if (values.undo) return values.apply ? "undo" : "show-undo";
  return values.apply ? "apply" : "check";
}

function count(name: string, given: string | undefined, max: number): number | undefined {
  if (given === undefined) return undefined;
  const value = /^[0-9]{1,9}$/.test(given) ? Number(given) : 0;
  if (value < 1 || value > max) {
    throw invalid(`Cannot use --${name}=${given}: give a whole number from 1 to ${max}`);
  }
  return value;
}

function cpusOf(list: string | undefined): number[] | undefined {
  if (list === undefined) return undefined;
  const cpus = parseCpuList(list);
  if (cpus.length === 0) throw invalid("Cannot isolate CPUs: the list is empty");
  return cpus;
}

/** A network in CIDR form whose host part is zero, in the spelling that ufw, firewalld and nft list. */
function networkOf(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  const [address = "", bits = "", ...rest] = given.split("/");
  const family = isIP(address);
  const max = family === 4 ? 32 : 128;
  const scoped = address.includes("%");
  if (family === 0 || scoped || rest.length > 0 || !/^[0-9]{1,3}$/.test(bits) || +bits > max) {
    throw invalid(`Cannot open the firewall to "${given}": give a network such as 10.0.0.0/24`);
  }
  const value = addressBits(address, family);
  const host = BigInt(max - Number(bits));
  const network = `${addressText((value >> host) << host, family)}/${Number(bits)}`;
  if ((value >> host) << host !== value) {
    throw invalid(
      `Cannot open the firewall to "${given}": that is one address of the network ${network}; give the network`,
    );
  }
  return network;
}

function addressBits(address: string, family: number): bigint {
  if (family === 4) {
    return address.split(".").reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const [head = "", tail] = shortened(address).split("::");
  const [first, last] = [groups(head), groups(tail ?? "")];
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => "0");
  return [...first, ...zeros, ...last].reduce(
    (sum, group) => (sum << 16n) | BigInt(`0x${group}`),
    0n,
  );
}

function addressText(value: bigint, family: number): string {
  const parts = (count: number, bits: bigint) =>
    Array.from(
      { length: count },
      (_, index) => (value >> (bits * BigInt(count - 1 - index))) & ((1n << bits) - 1n),
    );
  if (family === 4) return parts(4, 8n).join(".");
  return shortened(
    parts(8, 16n)
      .map((group) => group.toString(16))
      .join(":"),
  );
}

/** RFC 5952, as URLs write it. */
const shortened = (address: string): string => new URL(`http://[${address}]`).hostname.slice(1, -1);

function hostsOf(file: string): string[] {
  let lines: string[];
  try {
    lines = readFileSync(file, "utf8").split("\n");
  } catch (cause) {
    throw new SvcError("invalid-argument", `Cannot read --hosts-file=${file}`, { cause });
  }
  return lines.map((line) => line.replace(/#.*/, "").trim()).filter(Boolean);
}

const invalid = (message: string) => new SvcError("invalid-argument", message);
