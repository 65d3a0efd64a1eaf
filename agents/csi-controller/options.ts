/** Options of csi-controller, as published; see `--help`. */

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

/** Calls to the REST server at a time, as published. */
const CONCURRENT_RPC_DEFAULT = 10;

export const CONTROLLER_OPTIONS = {
  "rest-endpoint": {
    short: "r",
    env: "ENDPOINT",
    default: "http://ksnode-1:30011",
    parse: parseBaseUrl,
    help: "Where api-rest listens.",
  },
  "csi-socket": {
    short: "c",
    env: "CSI_SOCKET",
    default: "/var/tmp/csi.sock",
    parse: text,
    help: "Unix socket to serve CSI on; made anew at start, open to every user.",
  },
  "rest-timeout": {
    short: "t",
    env: "REST_TIMEOUT",
    default: "5s",
    parse: parseDurationMs,
    help: "Limit of one call to the REST server.",
  },
  "node-selector": {
    repeats: true,
    default: NODE_SELECTOR_DEFAULT,
    parse: parseNodeSelector,
    help: "key=value: topology of the nodes that can use volumes; may be repeated.",
  },
  jaeger: {
    short: "j",
    env: "JAEGER_ENDPOINT",
    parse: text,
    help: "Accepted for compatibility: tracing agent, host:port.",
  },
  help: { short: "h", flag: true, help: "Print this text." },
} as const satisfies Readonly<Record<string, Option<unknown> | Flag>>;

export type ControllerOptions = OptionValues<typeof CONTROLLER_OPTIONS>;

/** @throws {SvcError} `invalid-argument` */
export function concurrentRpcLimit(env: Readonly<Record<string, string | undefined>>): number {
  const given = env["MAX_CONCURRENT_RPC"];
  if (given === undefined || given === "") return CONCURRENT_RPC_DEFAULT;
  const limit = integer(given);
  if (limit < 1) throw new SvcError("invalid-argument", "MAX_CONCURRENT_RPC must be at least 1");
  return limit;
}
