/**
 * What a node is, as its probe (node/probe.sh) printed it.
 *
 * Invariant: a probe that didn't reach its end is an error, never a node with fewer facts.
 */
import { SvcError } from "#common/errors.ts";

export const DISK_STATES = [
  "empty",
  "data",
  "pool",
  "partitioned",
  "held",
  "mounted",
  "swap",
  "removable",
  "read-only",
  "unreadable",
] as const;
export type DiskState = (typeof DISK_STATES)[number];

export interface Disk {
  readonly name: string;
  readonly state: DiskState;
  readonly sizeMib: number;
  /** A /dev/disk/by-id link where there is one: names such as /dev/sdb move between boots. */
  readonly path: string;
}

/** changed: a file of ours that somebody wrote to since; leftover: half made or half undone. */
export type EntryState = "done" | "pending" | "changed" | "leftover";

export interface Facts {
  readonly os: { id: string; like: readonly string[]; version: string; ostree: boolean };
  readonly kernel: string;
  readonly hostname: string;
  readonly arch: string;
  readonly cmdline: string;
  readonly cpuFlags: ReadonlySet<string>;
  readonly cpusPossible: string;
  readonly cpusIsolated: string;
  readonly memoryKib: number;
  readonly hugepages: { total: number; free: number } | undefined;
  /** vm.nr_hugepages by the file that sets it. */
  readonly sysctlPages: ReadonlyMap<string, number>;
  readonly nvmeTcp: "loaded" | "builtin" | "available" | "missing";
  /** Those of ext4 and xfs that the kernel has, loaded or as modules. */
  readonly fileSystems: ReadonlySet<string>;
  readonly nvmeCoreLoaded: boolean;
  /** The parameter as the kernel shows it; `builtin` where multipath is always on and has none. */
  readonly multipath: string | undefined;
  readonly files: ReadonlyMap<string, Buffer | undefined>;
  readonly dirs: ReadonlySet<string>;
  readonly grubConfig: string | undefined;
  /** A configuration of GRUB that was cut off while it was written. */
  readonly grubTorn: string | undefined;
  readonly tools: ReadonlySet<string>;
  /** The command lines of the next boot's kernels. */
  readonly bootArgs: readonly string[];
  /** The boot entries take their arguments from GRUB's environment block. */
  readonly bootArgsInGrubenv: boolean;
  readonly isolcpusFiles: readonly string[];
  /** `free`, or the command line of who listens. */
  readonly ports: ReadonlyMap<number, string>;
  readonly firewall:
    | { kind: "none" }
    | { kind: "ufw" | "firewalld" | "nftables"; place: string; config: string; rules: string[] };
  readonly firewallTarget: string;
  /** firewalld's zones in use besides the default one. */
  readonly firewallZones: readonly string[];
  /** Rules of iptables' older kind drop input. */
  readonly firewallLegacy: boolean;
  readonly disks: readonly Disk[];
  readonly xfsprogs: boolean;
  readonly packageTool: string | undefined;
  readonly journal: ReadonlyMap<string, EntryState>;
  /** The Kubernetes node labelled by an earlier run. */
  readonly labelledNode: string | undefined;
}

/** Parses the probe's lines. @throws {SvcError} `internal` when they are cut off or malformed */
export function parseFacts(lines: readonly string[]): Facts {
  const values = new Map<string, string>();
  for (const line of lines) {
    const at = line.indexOf("=");
    if (at > 0) values.set(line.slice(0, at), line.slice(at + 1));
  }
  if (values.get("end") !== "yes") {
    throw new SvcError("internal", "Cannot read the node: its probe stopped early");
  }
  const text = (key: string) => values.get(key) ?? "";
  const number = (key: string) => {
    const value = Number(values.get(key) ?? Number.NaN);
    return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const under = (prefix: string): [string, string][] =>
    [...values]
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]);
  const total = number("hugepages.total");
  const kind = text("firewall");
  return {
    os: {
      id: text("os.id"),
      like: text("os.like").split(" ").filter(Boolean),
      version: text("os.version"),
      ostree: text("os.ostree") === "yes",
    },
    kernel: text("kernel"),
    hostname: text("hostname"),
    arch: text("arch"),
    cmdline: text("cmdline"),
    cpuFlags: new Set(text("cpu.flags").split(" ")),
    cpusPossible: text("cpu.possible"),
    cpusIsolated: text("cpu.isolated"),
    memoryKib: number("memory.kib") ?? 0,
    hugepages: total === undefined ? undefined : { total, free: number("hugepages.free") ?? 0 },
    sysctlPages: new Map(under("sysctl.").map(([file, pages]) => [file, Number(pages)])),
    nvmeTcp: oneOf(text("nvme_tcp"), ["loaded", "builtin", "available", "missing"]),
    fileSystems: new Set(under("fs.").map(([system]) => system)),
    nvmeCoreLoaded: text("nvme_core") === "loaded",
    multipath: values.get("multipath"),
    files: new Map(
      under("file.").map(([path, data]) => [
        path,
        data === "-" ? undefined : Buffer.from(data, "base64"),
      ]),
    ),
    dirs: new Set(under("dir.").map(([path]) => path)),
    grubConfig: values.get("grub.cfg"),
    grubTorn: values.get("grub.torn"),
    tools: new Set(under("tool.").map(([tool]) => tool)),
    bootArgs: under("boot.args.").map(([, args]) => args),
    bootArgsInGrubenv: text("boot.grubenv") === "yes",
    isolcpusFiles: under("isolcpus.").map(([file]) => file),
    ports: new Map(under("port.").map(([port, owner]) => [Number(port), owner])),
    firewall:
      kind === ""
        ? { kind: "none" }
        : {
            kind: oneOf(kind, ["ufw", "firewalld", "nftables"]),
            place: text("firewall.zone") || text("firewall.chain"),
            config: text("firewall.conf"),
            rules: under("firewall.rule.").map(([, rule]) => rule),
          },
    firewallTarget: text("firewall.target"),
    firewallZones: text("firewall.zones").split(" ").filter(Boolean),
    firewallLegacy: text("firewall.legacy") === "yes",
    disks: under("disk.").map(([name, value]) => parseDisk(name, value)),
    xfsprogs: text("xfsprogs") === "yes",
    packageTool: values.get("package.tool"),
    journal: new Map(
      under("journal.").map(([name, state]) => [
        name,
        oneOf(state, ["done", "pending", "changed", "leftover"]),
      ]),
    ),
    labelledNode: under("label.")[0]?.[1],
  };
}

function parseDisk(name: string, value: string): Disk {
  const [state = "", mib = "", ...path] = value.split(" ");
  return { name, state: oneOf(state, DISK_STATES), sizeMib: Number(mib), path: path.join(" ") };
}

function oneOf<T extends string>(value: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) {
    throw new SvcError(
      "internal",
      `Cannot read the node: its probe said ${JSON.stringify(value)}, not one of ${allowed.join(", ")}`,
    );
  }
  return found;
}

/** `0-3,8` as numbers. @throws {SvcError} `invalid-argument` */
export function parseCpuList(list: string): number[] {
  const cpus = new Set<number>();
  for (const part of list.trim() === "" ? [] : list.trim().split(",")) {
    const range = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    const first = Number(range?.[1]);
    const last = Number(range?.[2] ?? range?.[1]);
    if (!range || last < first) {
      throw new SvcError(
        "invalid-argument",
        `Cannot use CPU list "${list}": write it as 2,3 or 4-7`,
      );
    }
    for (let cpu = first; cpu <= last; cpu++) cpus.add(cpu);
  }
  return [...cpus].sort((a, b) => a - b);
}
