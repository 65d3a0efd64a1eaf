/**
 * Merging of value trees, as Helm does it: maps are merged key by key, everything else is replaced,
 * and null takes a key out of a map.
 */
export type Tree = { readonly [key: string]: unknown };

export function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `over` wins; neither argument is changed. */
export function merge(under: Tree, over: Tree): Tree {
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    if (value === null) delete merged[key];
    else if (isTree(value)) merged[key] = merge(isTree(below) ? below : {}, value);
    else merged[key] = value;
  }
  return merged;
}
