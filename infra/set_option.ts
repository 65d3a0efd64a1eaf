/**
 * `--set a.b=1,c={x,y},d[0].e=z` as a tree of values, as Helm reads it.
 *
 * Invariants: a dot, comma, brace or bracket within a name or value is written with a backslash; values are YAML; a list in
 * braces is Helm's, one in brackets is YAML's.
 */
import { parse as parseYaml } from "yaml";
import { errorMessage, SvcError } from "#common/errors.ts";
import { isTree, type Tree } from "./merge.ts";

/** Of a list that is set item by item: a typing error must not make a list of millions. */
const INDEX_MAX = 255;

type Step = string | number;
type Node = { [key: string]: unknown };

/** Parts between separators that stand outside braces and brackets, and have no backslash before them. */
function split(text: string, separator: string): readonly string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = "";
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (char === "\\" && at + 1 < text.length) {
      part += char + text.charAt(++at);
      continue;
    }
    if (char === "{" || char === "[") depth += 1;
    if (char === "}" || char === "]") depth = Math.max(0, depth - 1);
    if (char === separator && depth === 0) {
      parts.push(part);
      part = "";
    } else part += char;
  }
  return [...parts, part];
}

const unescaped = (text: string) => text.replaceAll(/\\([.,{}[\]])/g, "$1");

function steps(path: string): readonly Step[] {
  return split(path, ".").flatMap((part): Step[] => {
    const [, name = part, indexes = ""] = /^(.*?)((?:\[[0-9]+\])*)$/s.exec(part) ?? [];
    const numbers = [...indexes.matchAll(/\[([0-9]+)\]/g)].map(([, digits]) => Number(digits));
    if (name === "" || numbers.some((index) => index > INDEX_MAX)) {
      throw new SvcError("invalid-argument", `Cannot set "${path}": write name=value`);
    }
    return [unescaped(name), ...numbers];
  });
}

function parsed(path: string, text: string): unknown {
  try {
    const list = /^\{(.*)\}$/s.exec(text.trim())?.[1];
    if (list === undefined) return parseYaml(unescaped(text));
    if (list.trim() === "") return [];
    return split(list, ",").map((item) => parseYaml(unescaped(item)));
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot set ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/** What is already at `step`, if it is of the kind that the next step needs; else a new one. */
function inner(parent: Node | unknown[], step: Step, next: Step): Node | unknown[] {
  const there = Object.hasOwn(parent, step) ? (parent as Node)[step] : undefined; // an array's items are properties too
  const fits = typeof next === "number" ? Array.isArray(there) : isTree(there);
  // proof of the cast: `fits` has just checked it
  return fits ? (there as Node | unknown[]) : typeof next === "number" ? [] : {};
}

function assign(root: Node, path: readonly Step[], value: unknown): void {
  let parent: Node | unknown[] = root;
  for (const [at, step] of path.entries()) {
    const next = path[at + 1];
    const child: unknown = next === undefined ? value : inner(parent, step, next);
    Object.defineProperty(parent, step, {
      value: child,
      configurable: true,
      enumerable: true,
      writable: true,
    });
    if (next !== undefined) parent = child as Node | unknown[]; // made by inner()
  }
}

/** @throws {SvcError} `invalid-argument` */
export function parseSet(text: string): Tree {
  const root: Node = {};
  for (const item of split(text, ",").filter((part) => part.trim() !== "")) {
    const [, path, value] = /^([^=]+)=(.*)$/s.exec(item.trim()) ?? [];
    if (path === undefined || value === undefined) {
      throw new SvcError("invalid-argument", `Cannot set "${item}": write name=value`);
    }
    assign(root, steps(path), parsed(path, value));
  }
  return root;
}
