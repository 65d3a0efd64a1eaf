/** The command line of agent-core: names, defaults and meaning as documented. */
import { integer, type OptionTable, parseOptions, text } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { parseDurationMs, parsePercent } from "#common/units.ts";

export const CORE_OPTIONS = {
  "grpc-server-addr": {
    short: "g",
    default: "0.0.0.0:50051",
    help: "Address to serve gRPC on",
    parse: text,
  },
  store: {
    short: "s",
    default: "http://localhost:2379",
    help: "etcd endpoints, separated by commas",
    parse: text,
  },
  "store-timeout": { default: "5s", help: "Limit of one store operation", parse: parseDurationMs },
  "store-lease-ttl": { default: "30s", help: "Life of the leader lease", parse: parseDurationMs },
  "cache-period": {
    short: "c",
    default: "30s",
    help: "How often every node is read in full",
    parse: parseDurationMs,
  },
  "reconcile-period": {
    default: "10s",
    help: "Pause between reconcile loops while there is work",
    parse: parseDurationMs,
  },
  "reconcile-idle-period": {
    default: "30s",
    help: "Pause between reconcile loops while all is well",
    parse: parseDurationMs,
  },
  "faulted-child-wait-period": {
    default: "600s",
    help: "How long a faulted child that may come back is waited for",
    parse: parseDurationMs,
  },
  deadline: {
    short: "d",
    default: "10s",
    help: "A node that has not registered for so long is probed",
    parse: parseDurationMs,
  },
  "connect-timeout": {
    default: "1s",
    help: "Limit of connecting to a node",
    parse: parseDurationMs,
  },
  "request-timeout": {
    short: "r",
    default: "5s",
    help: "Limit of a request to a node",
    parse: parseDurationMs,
  },
  "no-min-timeouts": { flag: true, help: "Do not raise timeouts to their minimum per request" },
  "hosts-acl": {
    default: "nexuses,replicas",
    help: "Which NVMe-oF targets get a list of allowed hosts: nexuses, replicas, none",
    parse: parseHostsAcl,
  },
  "max-rebuilds": { help: "Most rebuilds at a time in the cluster", parse: integer },
  "pool-commitment": {
    env: "POOL_COMMITMENT_%",
    default: "250%",
    help: "How far thin volumes may overcommit a pool",
    parse: parsePercent,
  },
  "volume-commitment": {
    env: "VOLUME_COMMITMENT_%",
    default: "40%",
    help: "Free space a new replica of an existing thin volume needs, of the volume size",
    parse: parsePercent,
  },
  "volume-commitment-initial": {
    env: "VOLUME_COMMITMENT_%_INITIAL",
    default: "40%",
    help: "The same for the first replicas",
    parse: parsePercent,
  },
  jaeger: { short: "j", help: "Tracing agent, host:port", parse: text },
  "tracing-tags": {
    short: "t",
    env: "TRACING_TAGS",
    default: "",
    help: "Tags of traces, key=value separated by commas",
    parse: text,
  },
  "etcd-page-limit": { default: "500", help: "Entries per page of store reads", parse: integer },
  help: { short: "h", flag: true, help: "Show this help" },
} as const satisfies OptionTable;

export type HostsAcl = { readonly nexuses: boolean; readonly replicas: boolean };

/** "nexuses,replicas", "none" and so on. */
export function parseHostsAcl(value: string): HostsAcl {
  const parts = value.split(",").map((part) => part.trim());
  const unknown = parts.find((part) => !["nexuses", "replicas", "none"].includes(part));
  if (unknown !== undefined) {
    throw new SvcError("invalid-argument", `"${unknown}" is none of nexuses, replicas, none`);
  }
  return { nexuses: parts.includes("nexuses"), replicas: parts.includes("replicas") };
}

export type CoreConfig = {
  readonly grpcAddress: string;
  readonly store: string;
  readonly storeTimeoutMs: number;
  readonly storeLeaseTtlMs: number;
  readonly storePageSize: number;
  readonly cachePeriodMs: number;
  readonly reconcilePeriodMs: number;
  readonly reconcileIdlePeriodMs: number;
  readonly faultedChildWaitMs: number;
  readonly nodeDeadlineMs: number;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly minTimeouts: boolean;
  readonly hostsAcl: HostsAcl;
  readonly maxRebuilds: number | null;
  readonly poolCommitment: number;
  readonly volumeCommitment: number;
  readonly volumeCommitmentInitial: number;
  readonly help: boolean;
};

/** @throws {SvcError} `invalid-argument`, naming the option */
export function coreConfig(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): CoreConfig {
  const options = parseOptions(CORE_OPTIONS, { args, env });
  return {
    grpcAddress: options["grpc-server-addr"],
    store: options.store,
    storeTimeoutMs: options["store-timeout"],
    storeLeaseTtlMs: options["store-lease-ttl"],
    storePageSize: options["etcd-page-limit"],
    cachePeriodMs: options["cache-period"],
    reconcilePeriodMs: options["reconcile-period"],
    reconcileIdlePeriodMs: options["reconcile-idle-period"],
    faultedChildWaitMs: options["faulted-child-wait-period"],
    nodeDeadlineMs: options.deadline,
    connectTimeoutMs: options["connect-timeout"],
    requestTimeoutMs: options["request-timeout"],
    minTimeouts: !options["no-min-timeouts"],
    hostsAcl: options["hosts-acl"],
    maxRebuilds: options["max-rebuilds"],
    poolCommitment: options["pool-commitment"],
    volumeCommitment: options["volume-commitment"],
    volumeCommitmentInitial: options["volume-commitment-initial"],
    help: options.help,
  };
}
