/** Options and environment of metrics-exporter-pool, as published; see `--help`. */
import { type Flag, type Option, type OptionValues, parseOptions } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { parseDurationMs } from "#common/units.ts";

export type ListenAddress = { readonly host: string; readonly port: number };

/** `0.0.0.0:9502` or `[::]:9502`. */
function listenAddress(value: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw new SvcError(
      "invalid-argument",
      `"${value}" is not an address: write for example 0.0.0.0:9502 or [::]:9502`,
    );
  }
  return { host, port };
}

function pollingTime(value: string): number {
  const ms = parseDurationMs(value);
  if (ms < 1000) throw new SvcError("invalid-argument", "it must be at least 1s");
  return ms;
}

/** The newest of the listed versions is used, and v1 is the one this exporter speaks. */
function apiVersions(value: string): "v1" {
  const versions = value.split(",").map((version) => version.trim().toLowerCase());
  const unknown = versions.find((version) => version !== "v0" && version !== "v1");
  if (unknown !== undefined) {
    throw new SvcError("invalid-argument", `"${unknown}" is not a version: write v1`);
  }
  if (!versions.includes("v1")) {
    throw new SvcError("invalid-argument", "version v0 alone is not supported: add v1");
  }
  return "v1";
}

export const EXPORTER_OPTIONS = {
  "metrics-endpoint": {
    short: "m",
    default: "0.0.0.0:9502",
    parse: listenAddress,
    help: "Where metrics are served.",
  },
  "polling-time": {
    short: "p",
    default: "300s",
    parse: pollingTime,
    help: "How often everything is read when nobody asks; a scrape reads anew.",
  },
  "api-versions": {
    short: "a",
    parse: apiVersions,
    help: "Versions of the io-engine API to choose from: v1, or v0,v1. Required.",
  },
  help: { short: "h", flag: true, help: "Print this text." },
} as const satisfies Readonly<Record<string, Option<unknown> | Flag>>;

export type ExporterOptions = OptionValues<typeof EXPORTER_OPTIONS>;
type Env = Readonly<Record<string, string | undefined>>;

export type ExporterConfig = {
  readonly listen: ListenAddress;
  readonly pollingMs: number;
  /** Of the engine: `host:port`. */
  readonly engine: string;
  readonly node: string;
};

const ENGINE_PORT = 10124;

function required(env: Env, name: string): string {
  const value = env[name];
  if (value === undefined || value === "") {
    throw new SvcError("invalid-argument", `Cannot start: environment variable ${name} is not set`);
  }
  return value;
}

/**
 * Null when only the help was asked for.
 * @throws {SvcError} `invalid-argument`
 */
export function readConfig(args: readonly string[], env: Env): ExporterConfig | null {
  const options = parseOptions(EXPORTER_OPTIONS, { args, env });
  if (options.help) return null;
  if (options["api-versions"] === null) {
    throw new SvcError("invalid-argument", "Cannot start: --api-versions is required, e.g. -a v1");
  }
  const ip = required(env, "MY_POD_IP");
  return {
    listen: options["metrics-endpoint"],
    pollingMs: options["polling-time"],
    engine: `${ip.includes(":") ? `[${ip}]` : ip}:${ENGINE_PORT}`,
    node: required(env, "MY_NODE_NAME"),
  };
}
