/** Options of operator-diskpool, as published; see `--help`. */
import {
  type Flag,
  integer,
  type Option,
  type OptionValues,
  parseBaseUrl,
  text,
} from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { parseDurationMs } from "#common/units.ts";

function atLeastOne(value: string): number {
  const count = integer(value);
  if (count < 1) throw new SvcError("invalid-argument", "it must be at least 1");
  return count;
}

function positiveMs(value: string): number {
  const ms = parseDurationMs(value);
  if (ms <= 0) throw new SvcError("invalid-argument", "it must be more than nothing");
  return ms;
}

export const OPERATOR_OPTIONS = {
  interval: {
    short: "i",
    env: "INTERVAL",
    default: "30s",
    parse: positiveMs,
    help: "How often the state of each pool is read.",
  },
  "request-timeout": {
    short: "t",
    env: "REQUEST_TIMEOUT",
    default: "5s",
    parse: positiveMs,
    help: "Deadline of a REST request; creating and destroying pools have their own minimum.",
  },
  retries: {
    short: "r",
    env: "RETRIES",
    default: "10",
    parse: atLeastOne,
    help: "Accepted for compatibility: what fails is tried again as long as it is wanted.",
  },
  endpoint: {
    short: "e",
    env: "ENDPOINT",
    default: "http://ksnode-1:30011",
    parse: parseBaseUrl,
    help: "Where api-rest listens.",
  },
  namespace: {
    short: "n",
    env: "NAMESPACE",
    default: "mayastor",
    parse: text,
    help: "The namespace whose DiskPools are looked after.",
  },
  jaeger: {
    short: "j",
    env: "JAEGER_ENDPOINT",
    parse: text,
    help: "Accepted for compatibility: nothing is traced.",
  },
  "disable-device-validation": {
    flag: true,
    help: "Do not look for the disks of a pool among its node's devices when creating it fails.",
  },
  help: { short: "h", flag: true, help: "Print this text." },
} as const satisfies Readonly<Record<string, Option<unknown> | Flag>>;

export type OperatorOptions = OptionValues<typeof OPERATOR_OPTIONS>;
