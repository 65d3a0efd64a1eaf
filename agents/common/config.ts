/**
 * Options of a program: flags first, then environment, then defaults.
 *
 * Why: every agent has documented flags with documented defaults; one place parses them and names
 * the option that is wrong.
 * Invariant: an unknown flag or a bad value ends in an SvcError that names it; nothing is ignored.
 */
import { parseArgs } from "node:util";
import { errorMessage, SvcError } from "./errors.ts";

export type Option<T> = {
  readonly short?: string;
  readonly env?: string;
  /** Text of the default; absent means the option is unset unless given. */
  readonly default?: string;
  /** May be given more than once: `parse` gets all values joined by commas. */
  readonly repeats?: true;
  readonly help: string;
  readonly parse: (text: string) => T;
};

/** A switch: no value, off unless given. */
export type Flag = { readonly short?: string; readonly flag: true; readonly help: string };

export type OptionTable = Readonly<Record<string, Option<unknown> | Flag>>;

export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table]: Table[Name] extends Flag
    ? boolean
    : Table[Name] extends { readonly default: string; readonly parse: (text: string) => infer T }
      ? T
      : Table[Name] extends { readonly parse: (text: string) => infer T }
        ? T | null
        : never;
};

/** Raw text as it stands. */
export const text = (value: string): string => value;

/** @throws {SvcError} `invalid-argument` */
export function integer(value: string): number {
  if (!/^\d{1,15}$/.test(value)) {
    throw new SvcError("invalid-argument", `"${value}" is not a whole number`);
  }
  return Number(value);
}

/** Of an HTTP server, without the trailing slash. @throws {SvcError} `invalid-argument` */
export function parseBaseUrl(value: string): string {
  const url = URL.parse(value);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw new SvcError(
      "invalid-argument",
      `"${value}" is not a URL: write for example http://api-rest:8081`,
    );
  }
  return value.replace(/\/+$/, "");
}

function isFlag(option: Option<unknown> | Flag): option is Flag {
  return "flag" in option;
}

export function helpText(program: string, table: OptionTable): string {
  const lines = Object.entries(table).map(([name, option]) => {
    const short = option.short ? `-${option.short}, ` : "    ";
    const value = isFlag(option) ? "" : ` <${name}>`;
    const env = !isFlag(option) && option.env ? ` [env: ${option.env}]` : "";
    const preset =
      !isFlag(option) && option.default !== undefined ? ` [default: ${option.default}]` : "";
    return `  ${short}--${name}${value}\n        ${option.help}${env}${preset}`;
  });
  return [`Usage: ${program} [options]`, "", "Options:", ...lines, ""].join("\n");
}

/** `-p=value` means the same as `-pvalue`; published manifests write both. */
const SHORT_WITH_EQUALS = /^(-[A-Za-z])=/;

function parseOne(name: string, option: Option<unknown>, given: string): unknown {
  try {
    return option.parse(given);
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot use --${name}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/**
 * Reads the options of a program; names are the long flags without dashes.
 * @throws {SvcError} `invalid-argument`, naming the option
 */
export function parseOptions<const Table extends OptionTable>(
  table: Table,
  { args, env }: { args: readonly string[]; env: Readonly<Record<string, string | undefined>> },
): OptionValues<Table> {
  const wanted: Record<string, { type: "string" | "boolean"; short?: string; multiple?: boolean }> =
    {};
  for (const [name, option] of Object.entries(table)) {
    const type = isFlag(option) ? "boolean" : "string";
    const multiple = !isFlag(option) && option.repeats === true;
    wanted[name] = option.short ? { type, multiple, short: option.short } : { type, multiple };
  }
  let given: Record<string, string | boolean | (string | boolean)[] | undefined>;
  try {
    given = parseArgs({
      args: args.map((arg) => arg.replace(SHORT_WITH_EQUALS, "$1")),
      options: wanted,
      allowPositionals: false,
    }).values;
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot read options: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  const values: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(table)) {
    const flag = given[name];
    if (isFlag(option)) {
      values[name] = flag === true;
      continue;
    }
    const raw =
      flag !== undefined && typeof flag !== "boolean"
        ? [flag].flat().join(",")
        : ((option.env ? env[option.env] : undefined) ?? option.default);
    values[name] = raw === undefined ? null : parseOne(name, option, raw);
  }
  // The loop above filled every name of the table with what its own parser returned.
  return values as OptionValues<Table>;
}
