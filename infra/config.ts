/**
 * The configuration of one installation: release, namespace, version and values.
 *
 * Why: charts get one checked object; whatever is wrong with a user's values is said here, by name.
 * Invariants: values are the defaults, then the profile, then the user's trees in order; an unknown
 * value or one of another meaning is refused, and so is one that asks for what this release cannot do.
 */

import Value from "typebox/value";
import { parse as parseYaml } from "yaml";
import { errorMessage, SvcError } from "#common/errors.ts";
import { checkValues } from "./check_values.ts";
import { coerced } from "./coerce.ts";
import { isTree, merge, type Tree } from "./merge.ts";
import { PROFILE_NAMES, PROFILES, type ProfileName } from "./profiles.ts";
import { withOwnResources } from "./published_resources.ts";
import { type Values, ValuesSchema } from "./values.ts";

/** A name that prefixes object names and is a label value. */
const RELEASE = /^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$/;
const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

export type Install = {
  readonly release: string;
  readonly namespace: string;
  readonly version: string;
  readonly values: Values;
  /** Names of values whose published amounts were replaced by those that our programs need. */
  readonly replacedResources: readonly string[];
};

export type InstallOptions = {
  readonly profile?: ProfileName;
  /** Later ones win. */
  readonly values?: readonly Tree[];
  readonly release?: string;
  readonly namespace?: string;
  readonly version: string;
};

/** @throws {SvcError} `invalid-argument` */
export function parseProfile(text: string): ProfileName {
  const name = PROFILE_NAMES.find((candidate) => candidate === text);
  if (name === undefined) {
    throw new SvcError(
      "invalid-argument",
      `Cannot use profile "${text}": there are ${PROFILE_NAMES.join(", ")}`,
    );
  }
  return name;
}

/**
 * A values file: a YAML map with the documented names.
 * @throws {SvcError} `invalid-argument`
 */
export function parseValuesFile(text: string, name: string): Tree {
  let tree: unknown;
  try {
    tree = parseYaml(text);
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot read ${name}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  if (tree === null) return {};
  if (!isTree(tree)) {
    throw new SvcError("invalid-argument", `Cannot read ${name}: a map of values is expected`);
  }
  return tree;
}

/** Every default, as a tree that profiles and users' values are merged over. */
export function defaultValues(): Tree {
  return Value.Default(ValuesSchema, {}) as Tree; // the schema is an object whose members all have defaults
}

/** Groups and lists keep their default when they are set to null; only keys of maps go away. */
function withDefaults(tree: Tree): unknown {
  return Value.Default(ValuesSchema, tree);
}

/** "/etcd/replicaCount" as people write it. */
const dotted = (pointer: string) =>
  pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .join(".");

function checked(values: unknown): Values {
  if (Value.Check(ValuesSchema, values)) return values;
  const [first] = Value.Errors(ValuesSchema, values);
  const { instancePath = "", keyword = "", message = "is not valid", params = {} } = first ?? {};
  const name = dotted(instancePath) || "the values";
  let why = message;
  if (keyword === "boolean" || keyword === "additionalProperties") why = "there is no such value";
  if ("allowedValues" in params && Array.isArray(params.allowedValues)) {
    why = `must be one of ${params.allowedValues.join(", ")}`;
  }
  throw new SvcError("invalid-argument", `Cannot use ${name}: ${why}`);
}

/**
 * Builds the configuration.
 * @throws {SvcError} `invalid-argument`, naming the value
 */
export function makeInstall(options: InstallOptions): Install {
  const { profile = "default", values = [], release = "mayastor", version } = options;
  const namespace = options.namespace ?? "mayastor";
  if (!RELEASE.test(release)) {
    throw new SvcError(
      "invalid-argument",
      `Cannot use release "${release}": up to 32 small letters, digits and dashes are expected`,
    );
  }
  if (!NAMESPACE.test(namespace)) {
    throw new SvcError("invalid-argument", `Cannot use namespace "${namespace}": not a DNS label`);
  }
  const layers = [PROFILES[profile], ...values];
  const given = coerced(ValuesSchema, withDefaults(layers.reduce(merge, defaultValues())));
  const adapted = withOwnResources(isTree(given) ? given : {}, defaultValues());
  const install = {
    release,
    namespace,
    version,
    values: checked(adapted.values),
    replacedResources: adapted.names,
  };
  checkValues(install.values);
  return install;
}
