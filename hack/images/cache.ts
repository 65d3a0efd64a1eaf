/**
 * Built images are kept in a folder of the user's cache, one per hash of what they were built from.
 * Invariants: a folder that is there is whole (it is renamed into place); a folder is never changed;
 * two builders of the same thing both finish, and one result stays.
 */
import { createHash } from "node:crypto";
import {
  access,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
} from "node:fs/promises";
import os from "node:os";
import path from "node:path";

/** Results kept; the oldest go first. */
const KEPT_MAX = 24;

export function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache");
  return path.join(base, "mayastor", "images");
}

/** Hash of named texts and bytes: order matters, and no two lists run together. */
export function hashOf(parts: readonly (string | Buffer)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    hash.update(`${Buffer.byteLength(part)}:`);
    hash.update(part);
  }
  return hash.digest("hex").slice(0, 32);
}

/** Contents of files and folders below `root`, as parts of a hash. */
export async function contentsOf(root: string, names: readonly string[]): Promise<Buffer[]> {
  const parts: Buffer[] = [];
  for (const name of [...names].sort()) {
    const file = path.join(root, name);
    if ((await stat(file)).isDirectory()) {
      parts.push(
        ...(await contentsOf(
          root,
          (await readdir(file)).map((inner) => path.join(name, inner)),
        )),
      );
    } else {
      parts.push(Buffer.from(name), await readFile(file));
    }
  }
  return parts;
}

const exists = (file: string): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );

async function prune(folder: string): Promise<void> {
  const results = await Promise.all(
    (await readdir(folder))
      .filter((name) => /^[0-9a-f]{32}$/.test(name))
      .map(async (name) => {
        const result = path.join(folder, name);
        return { result, used: (await stat(result)).mtimeMs };
      }),
  );
  results.sort((a, b) => b.used - a.used);
  for (const { result } of results.slice(KEPT_MAX)) {
    await rm(result, { recursive: true, force: true });
  }
}

/**
 * The folder of a result: found, or made by `build` in a folder beside it.
 * @returns its path, and whether it was there already
 */
export async function cached(
  hash: string,
  build: (folder: string) => Promise<void>,
): Promise<{ readonly folder: string; readonly found: boolean }> {
  const place = cacheFolder();
  const folder = path.join(place, hash);
  if (await exists(folder)) {
    const now = new Date();
    await utimes(folder, now, now);
    return { folder, found: true };
  }
  await mkdir(place, { recursive: true });
  const scratch = await mkdtemp(path.join(place, "building-"));
  try {
    await build(scratch);
    try {
      await rename(scratch, folder);
    } catch (error) {
      if (!(await exists(folder))) throw error; // else another builder was first: the same result
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  await prune(place);
  return { folder, found: false };
}
