/**
 * Options of the io-engine: flags, environment and defaults as published, plus our own.
 *
 * Why the long list: installation manifests and scripts written for the published engine pass these;
 * one that has no meaning here (hugepages, PCIe, SPDK pools) is accepted and named in `ignored`.
 * Invariant: an unknown option or a bad value is an SvcError that names it.
 */
import { isIP } from "node:net";
import { cpus, networkInterfaces } from "node:os";
import { integer, parseOptions, text } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { isUuid } from "#common/ids.ts";
import { nodeHostNqn, parseNqn } from "#common/nqn.ts";
import { parseDurationMs } from "#common/units.ts";
import { parseCoreList, parseCoreMask } from "./cores.ts";
import type { EngineOptions } from "./native.ts";
import { type Interfaces, targetAddress } from "./target_interface.ts";

export const GRPC_PORT = 10124;
const REPLICA_PORT = 8420;
const NEXUS_PORT = 4421;
/** How long an idle reactor looks for work before it sleeps. */
const SPIN_US = 20;
const PS_TIMEOUT_MS_MIN = 1_000;
const PS_TIMEOUT_MS_MAX = 60_000;

const host = (value: string): string => {
  const bare = value.replace(/^\[(.*)\]$/, "$1");
  if (isIP(bare) === 0) throw new SvcError("invalid-argument", `"${value}" is not an IP address`);
  return bare;
};

function grpcAddress(value: string): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:]+|[0-9a-fA-F:]+::[0-9a-fA-F:]*|::)(?::(\d{1,5}))?$/.exec(
    value,
  );
  const [, ip = "", port = String(GRPC_PORT)] = match ?? [];
  const address = host(ip);
  if (Number(port) > 65535) throw new SvcError("invalid-argument", `port ${port} is too large`);
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function retryDelays(value: string): [number, number, number] {
  const parts = value.split(",").map((part) => integer(part.trim()));
  const [first = 0, second = first, third = first] = parts;
  if ((parts.length !== 1 && parts.length !== 3) || Math.max(first, second, third) > 100) {
    throw new SvcError("invalid-argument", `"${value}" is not one or three numbers up to 100`);
  }
  return [first, second, third];
}

function apiVersions(value: string): ("V0" | "V1")[] {
  const versions = value
    .split(",")
    .map((part) => part.trim().toUpperCase())
    .filter((part) => part !== "");
  const known = (version: string): version is "V0" | "V1" => version === "V0" || version === "V1";
  if (versions.length === 0 || !versions.every(known)) {
    throw new SvcError("invalid-argument", `"${value}" names an API version other than V0 and V1`);
  }
  return versions.filter(known);
}

const bool = (value: string): boolean => /^(1|true|yes|on)$/i.test(value);

function microseconds(value: string): number {
  return /^\d+$/.test(value) ? Math.ceil(Number(value) / 1000) : parseDurationMs(value);
}

function milliseconds(value: string): number {
  return /^\d+$/.test(value) ? Number(value) : parseDurationMs(value);
}

function hostId(value: string): string {
  if (!isUuid(value)) throw new SvcError("invalid-argument", `"${value}" is not a uuid`);
  return value.toLowerCase();
}

export const OPTIONS = {
  "grpc-endpoint": {
    short: "g",
    parse: grpcAddress,
    help: `gRPC address ip[:port]; 0.0.0.0:${GRPC_PORT} unless --grpc-ip or --grpc-port say otherwise`,
  },
  "grpc-ip": { parse: host, help: "gRPC address, without port" },
  "grpc-port": { parse: integer, default: String(GRPC_PORT), help: "gRPC port" },
  register: {
    short: "R",
    parse: text,
    help: "registration endpoint of agent-core, e.g. https://agent-core:50051",
  },
  "log-components": { short: "L", parse: text, help: "turns debug logs on (any value)" },
  "log-format": { short: "F", parse: text, help: "accepted; logs are JSON lines" },
  "core-mask": { short: "m", parse: parseCoreMask, default: "0x1", help: "reactor core mask" },
  "core-list": {
    short: "l",
    parse: parseCoreList,
    help: "reactor cores, e.g. 3,4 or 0-1; overrides the mask",
  },
  poll: { flag: true, help: "reactors never sleep: a whole core each, lowest latency" },
  "node-name": { short: "N", env: "HOSTNAME", parse: text, default: "mayastor-node", help: "node" },
  "mem-size": { short: "s", parse: text, help: "accepted; memory is mapped as needed" },
  "no-pci": { short: "u", flag: true, help: "accepted; PCIe devices are never touched" },
  "rpc-socket": { short: "r", parse: text, help: "accepted; there is no SPDK JSON-RPC socket" },
  config: { short: "y", parse: text, help: "accepted; no YAML configuration is read" },
  "ptpl-dir": { parse: text, help: "folder for reservations that persist through power loss" },
  "pool-config": { short: "P", parse: text, help: "YAML file of pools to load at start" },
  "huge-dir": { parse: text, help: "accepted; hugepages are never required" },
  "env-context": { parse: text, help: "accepted; there is no EAL" },
  "persistent-store": {
    short: "p",
    parse: text,
    help: "etcd endpoint host[:2379] or URL; without it NexusInfo is not persisted",
  },
  "ps-timeout": { parse: parseDurationMs, default: "10s", help: "one put to etcd, 1s to 60s" },
  "ps-retries": { parse: integer, default: "30", help: "puts tried before a nexus shuts down" },
  "bdev-pool-size": { parse: integer, help: "accepted; there are no such pools" },
  "nvme-ctl-pool-size": { parse: integer, help: "accepted; there are no such pools" },
  "tgt-iface": {
    short: "T",
    env: "NVMF_TGT_IFACE",
    parse: text,
    help: "target interface: name:eth0, mac:.., ip:a.b.c.d or subnet:a.b.c.d/nn",
  },
  "tgt-crdt": {
    env: "NVMF_TGT_CRDT",
    parse: retryDelays,
    default: "0",
    help: "command retry delay in 100 ms: one number or three",
  },
  "api-versions": {
    env: "API_VERSIONS",
    parse: apiVersions,
    default: "V1",
    help: "accepted; V1 is what is served and registered",
  },
  "reactor-freeze-detection": { flag: true, help: "accepted; see ReactorStats" },
  "reactor-freeze-timeout": {
    env: "REACTOR_FREEZE_TIMEOUT",
    parse: integer,
    help: "accepted, seconds",
  },
  "rebuild-rate": {
    parse: integer,
    default: "0",
    help: "rebuild limit of each nexus in MiB/s; 0: none",
  },
} as const;

const ENVIRONMENT = {
  hostnqn: { env: "HOSTNQN", parse: parseNqn, help: "host NQN of initiators" },
  hostid: { env: "MAYASTOR_NVMF_HOSTID", parse: hostId, help: "NVMe host id" },
  ana: {
    env: "NEXUS_NVMF_ANA_ENABLE",
    parse: (value: string) => value === "1",
    default: "0",
    help: "",
  },
  partial: {
    env: "NEXUS_PARTIAL_REBUILD",
    parse: (value: string) => value === "1",
    default: "1",
    help: "",
  },
  heartbeat: { env: "MAYASTOR_HB_INTERVAL_SEC", parse: integer, default: "5", help: "" },
  heartbeatTimeout: { env: "MAYASTOR_HB_TIMEOUT_SEC", parse: integer, default: "5", help: "" },
  queueDepth: { env: "NVMF_TCP_MAX_QUEUE_DEPTH", parse: integer, default: "128", help: "" },
  qpairs: { env: "NVMF_TCP_MAX_QPAIRS_PER_CTRL", parse: integer, default: "32", help: "" },
  ioTimeoutUs: { env: "NVME_TIMEOUT_US", parse: microseconds, default: "5000000", help: "" },
  ioTimeout: { env: "NVME_TIMEOUT", parse: parseDurationMs, help: "" },
  adminTimeoutUs: {
    env: "NVME_TIMEOUT_ADMIN_US",
    parse: microseconds,
    default: "5000000",
    help: "",
  },
  adminTimeout: { env: "NVME_TIMEOUT_ADMIN", parse: parseDurationMs, help: "" },
  katoMs: { env: "NVME_KATO_MS", parse: milliseconds, help: "" },
  kato: { env: "NVME_KATO", parse: parseDurationMs, default: "10s", help: "" },
  delay: { env: "MAYASTOR_DELAY", parse: bool, default: "0", help: "" },
} as const;

const WITHOUT_EFFECT = [
  "log-format",
  "mem-size",
  "rpc-socket",
  "config",
  "huge-dir",
  "env-context",
  "bdev-pool-size",
  "nvme-ctl-pool-size",
  "reactor-freeze-timeout",
] as const;

export type Config = {
  readonly grpcAddress: string;
  readonly registration: string | null;
  readonly debug: boolean;
  readonly nodeName: string;
  readonly store: {
    readonly endpoint: string;
    readonly timeoutMs: number;
    readonly attempts: number;
  } | null;
  readonly heartbeatMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly poolConfig: string | null;
  readonly engine: EngineOptions;
  /** Options that were given and have no effect here. */
  readonly ignored: readonly string[];
};

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the command line and environment.
 * @throws {SvcError} `invalid-argument`, naming the option
 */
export function loadConfig({
  args,
  env,
  interfaces = networkInterfaces(),
  cpuCount = cpus().length,
}: {
  args: readonly string[];
  env: Environment;
  interfaces?: Interfaces;
  cpuCount?: number;
}): Config {
  const options = parseOptions(OPTIONS, { args, env });
  const tuning = parseOptions(ENVIRONMENT, { args: [], env });
  const cores = options["core-list"] ?? options["core-mask"];
  const nodeName = options["node-name"];
  const psTimeoutMs = options["ps-timeout"];
  const grpcIp = options["grpc-ip"] ?? "0.0.0.0";
  const grpcHost = grpcIp.includes(":") ? `[${grpcIp}]` : grpcIp;
  const katoMs = tuning.katoMs ?? tuning.kato;
  return {
    grpcAddress: options["grpc-endpoint"] ?? `${grpcHost}:${options["grpc-port"]}`,
    registration: options.register,
    debug: options["log-components"] !== null,
    nodeName,
    store:
      options["persistent-store"] === null
        ? null
        : {
            endpoint: options["persistent-store"],
            timeoutMs: Math.min(Math.max(psTimeoutMs, PS_TIMEOUT_MS_MIN), PS_TIMEOUT_MS_MAX),
            attempts: Math.max(1, options["ps-retries"]),
          },
    heartbeatMs: Math.max(1, tuning.heartbeat) * 1000,
    heartbeatTimeoutMs: Math.max(1, tuning.heartbeatTimeout) * 1000,
    poolConfig: options["pool-config"],
    engine: {
      // A core that this machine lacks cannot be pinned to: run there unpinned rather than not at all.
      cores: cores.map((core) => (core < cpuCount ? core : null)),
      poll: options.poll,
      spinUs: tuning.delay ? 0 : SPIN_US,
      nodeName,
      targetAddress: targetAddress({
        tgtIface: options["tgt-iface"],
        podIp: env["MY_POD_IP"] ?? null,
        interfaces,
      }),
      replicaPort: REPLICA_PORT,
      nexusPort: NEXUS_PORT,
      targetQueueDepth: tuning.queueDepth,
      targetQpairs: tuning.qpairs,
      targetRetryDelays100ms: options["tgt-crdt"],
      hostNqn: tuning.hostnqn ?? nodeHostNqn(nodeName),
      hostId: tuning.hostid,
      keepAliveMs: katoMs,
      ioTimeoutMs: tuning.ioTimeout ?? tuning.ioTimeoutUs,
      adminTimeoutMs: tuning.adminTimeout ?? tuning.adminTimeoutUs,
      anaEnabled: tuning.ana,
      reservationsEnabled: env["NEXUS_NVMF_RESV_ENABLE"] !== undefined,
      partialRebuild: tuning.partial,
      rebuildBytesPerSecond: BigInt(options["rebuild-rate"]) * 1024n * 1024n,
      ptplDir: options["ptpl-dir"],
    },
    ignored: WITHOUT_EFFECT.filter((name) => options[name] !== null).map((name) => `--${name}`),
  };
}
