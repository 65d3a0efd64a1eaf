/** Options of api-rest, as published; see `--help`. */
import { type Flag, integer, type Option, type OptionValues, text } from "#common/config.ts";
import { SvcError } from "#common/errors.ts";
import { parseDurationMs } from "#common/units.ts";

export type ListenAddress = { readonly host: string; readonly port: number };

/**
 * `0.0.0.0:8080` or `[::]:8080`.
 * @throws {SvcError} `invalid-argument`
 */
export function parseListenAddress(value: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw new SvcError(
      "invalid-argument",
      `"${value}" is not an address: write for example 0.0.0.0:8080 or [::]:8080`,
    );
  }
  return { host, port };
}

export const REST_OPTIONS = {
  https: {
    default: "0.0.0.0:8080",
    parse: parseListenAddress,
    help: "Address of the HTTPS listener.",
  },
  http: { parse: parseListenAddress, help: "Address of an HTTP listener; none unless given." },
  "core-grpc": {
    short: "z",
    default: "https://core:50051",
    parse: text,
    help: "Where agent-core listens.",
  },
  "cert-file": { short: "c", parse: text, help: "Certificate chain of the HTTPS listener, PEM." },
  "key-file": { short: "k", parse: text, help: "Private key of the HTTPS listener, PEM." },
  "dummy-certificates": {
    flag: true,
    help: "Use a self-signed certificate made at start-up: for tests.",
  },
  jwk: { parse: text, help: "File with the JSON web key that signs the tokens of callers." },
  "no-auth": { flag: true, help: "Answer everyone, without a token." },
  "request-timeout": {
    short: "r",
    default: "5s",
    parse: parseDurationMs,
    help: "Deadline of a request to agent-core; longer kinds of work have their own minimum.",
  },
  "no-min-timeouts": { flag: true, help: "Let --request-timeout cut below those minimums." },
  workers: {
    short: "w",
    parse: integer,
    help: "Accepted for compatibility: one event loop serves all requests.",
  },
  "max-workers": { short: "m", parse: integer, help: "Accepted for compatibility, see --workers." },
  "json-grpc": {
    short: "J",
    parse: text,
    help: "Accepted for compatibility: the JSON service is not part of this.",
  },
  jaeger: {
    short: "j",
    parse: text,
    help: "Accepted for compatibility: requests are not traced.",
  },
  "tracing-tags": {
    short: "t",
    env: "TRACING_TAGS",
    repeats: true,
    parse: text,
    help: "Accepted for compatibility, see --jaeger.",
  },
  help: { short: "h", flag: true, help: "Print this text." },
} as const satisfies Readonly<Record<string, Option<unknown> | Flag>>;

export type RestOptions = OptionValues<typeof REST_OPTIONS>;

/**
 * What the options say about certificates and callers, checked for being said at all.
 * @throws {SvcError} `invalid-argument`
 */
export function checkOptions(options: RestOptions): void {
  const files = [options["cert-file"], options["key-file"]].filter((file) => file !== null).length;
  if (files !== (options["dummy-certificates"] ? 0 : 2)) {
    throw new SvcError(
      "invalid-argument",
      "Cannot start: give either --cert-file and --key-file, or --dummy-certificates",
    );
  }
  if ((options.jwk !== null) === options["no-auth"]) {
    throw new SvcError("invalid-argument", "Cannot start: give either --jwk or --no-auth");
  }
}
