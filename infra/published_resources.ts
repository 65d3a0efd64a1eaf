/**
 * The amounts of CPU and memory that published values files give to programs which are other programs here.
 *
 * Why: the published limits fit small native programs; a Node process does not start in 32 MiB. In a values file they are
 * nobody's wish, but the chart's defaults, so ours take their place, and synth says so.
 * Invariant: amounts that differ from the published ones are a wish, and are kept.
 */
import { isTree, type Tree } from "./merge.ts";

type Four = readonly [cpuLimit: string, memoryLimit: string, cpuRequest: string, memory: string];

/** Name of the group that has `resources`, to its published amounts. */
export const PUBLISHED_RESOURCES: Readonly<Record<string, Four>> = {
  "agents.core": ["1000m", "128Mi", "500m", "32Mi"],
  "apis.rest": ["100m", "64Mi", "50m", "32Mi"],
  "operators.pool": ["100m", "32Mi", "50m", "16Mi"],
  "csi.controller": ["32m", "128Mi", "16m", "64Mi"],
  "csi.node": ["100m", "128Mi", "100m", "64Mi"],
};

const at = (tree: unknown, path: readonly string[]): unknown =>
  path.reduce<unknown>((inner, key) => (isTree(inner) ? inner[key] : undefined), tree);

const isPublished = (tree: Tree, path: readonly string[], amounts: Four): boolean =>
  [
    ["limits", "cpu"],
    ["limits", "memory"],
    ["requests", "cpu"],
    ["requests", "memory"],
  ].every((part, index) => at(tree, [...path, ...part]) === amounts[index]);

/** `value` in place of what `tree` has at `path`. */
function replaced(tree: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value;
  const inner = isTree(tree) ? tree : {};
  return { ...inner, [key]: replaced(inner[key], rest, value) };
}

export type Adapted = {
  readonly values: unknown;
  /** Names of the groups whose published amounts were replaced. */
  readonly names: readonly string[];
};

/** The values with our own amounts (those of `defaults`) wherever they have exactly the published ones. */
export function withOwnResources(values: Tree, defaults: Tree): Adapted {
  let result: unknown = values;
  const names: string[] = [];
  for (const [name, amounts] of Object.entries(PUBLISHED_RESOURCES)) {
    const path = [...name.split("."), "resources"];
    if (!isPublished(values, path, amounts)) continue;
    result = replaced(result, path, at(defaults, path));
    names.push(`${name}.resources`);
  }
  return { values: result, names };
}
