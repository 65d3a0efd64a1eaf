/** Options of csi-node, as published; see `--help`. */

import {
  type Flag,
  integer,
  type Option,
  type OptionValues,
  parseBaseUrl,
  text,
} from "#common/config.ts";
import { NODE_SELECTOR_DEFAULT, parseNodeSelector } from "#common/csi/driver.ts";
import { SvcError } from "#common/errors.ts";
import { parseDurationMs } from "#common/units.ts";

const GRPC_PORT_DEFAULT = 50051;

/** "30", "30s", "1m": whole seconds. @throws {SvcError} `invalid-argument` */
export function parseSeconds(value: string): number {
  return /^\d{1,9}$/.test(value) ? Number(value) : Math.ceil(parseDurationMs(value) / 1000);
}

/** @throws {SvcError} `invalid-argument` */
function parseQueues(value: string): number {
  const count = integer(value);
  if (count < 1) throw new SvcError("invalid-argument", "it must be at least 1");
  return count;
}

/** `ip`, `ip:port`, `[ip6]:port`. @throws {SvcError} `invalid-argument` */
export function parseEndpoint(value: string): string {
  const bare = value.replace(/^[a-z]+:\/\//, "");
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:[\]]+)(?::(\d{1,5}))?$/.exec(bare);
  if (!match?.[1] || Number(match[2] ?? 0) > 65_535) {
    throw new SvcError("invalid-argument", `"${value}" is not an address: write ip or ip:port`);
  }
  return `${match[1]}:${match[2] ?? GRPC_PORT_DEFAULT}`;
}

export const NODE_OPTIONS = {
  "csi-socket": {
    short: "c",
    env: "CSI_SOCKET",
    default: "/var/tmp/csi.sock",
    parse: text,
    help: "Unix socket to serve CSI on; made anew at start.",
  },
  "node-name": { short: "n", parse: text, help: "Name of this node; its CSI id. Required." },
  "grpc-endpoint": {
    short: "g",
    default: "0.0.0.0",
    parse: parseEndpoint,
    help: "Address to serve the private node service on.",
  },
  "network-freeze": {
    flag: true,
    help: "Let whoever reaches --grpc-endpoint freeze and thaw file systems; without it only the CSI socket does.",
  },
  "rest-endpoint": {
    parse: parseBaseUrl,
    help: "Where api-rest listens: asked where a volume's target has moved. Not asked without it.",
  },
  "nvme-core-io-timeout": {
    parse: parseSeconds,
    help: "I/O timeout of the kernel's NVMe driver, set at start, e.g. 30s.",
  },
  "nvme-nr-io-queues": { parse: parseQueues, help: "I/O queues of each connection." },
  "nvme-ctrl-loss-tmo": {
    parse: parseSeconds,
    help: "How long a lost connection is tried again, e.g. 1980s.",
  },
  "nvme-keep-alive-tmo": { parse: parseSeconds, help: "Keep-alive timeout of each connection." },
  "node-selector": {
    repeats: true,
    default: NODE_SELECTOR_DEFAULT,
    parse: parseNodeSelector,
    help: "key=value: topology that this node reports; may be repeated.",
  },
  verbose: { short: "v", flag: true, help: "Debug log; else LOG_LEVEL says how much." },
  help: { short: "h", flag: true, help: "Print this text." },
} as const satisfies Readonly<Record<string, Option<unknown> | Flag>>;

export type NodeOptions = OptionValues<typeof NODE_OPTIONS>;
