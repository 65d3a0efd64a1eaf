/**
 * The folder of a local cluster: whose it is, and what in it may be removed.
 * Why: the folder is a command-line option, a run often is root's, and the default lies where everybody may write.
 * Invariants: nothing is removed from a folder that no local cluster made; nothing that lies in a folder which
 * somebody else owns, or may write to, is believed or used.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";

/** Says that the folder was empty when a local cluster took it. */
export const MARKER = ".mayastor-local-cluster";
/** What a local cluster and the quickstart put there. */
const OWN = ["disks", "etcd", "log", "journal", "processes.json", "processes.json.new"];

/** Makes the folder if need be. @throws unless it is a folder of this user that only this user may write to */
export function ownFolder(folder: string): void {
  mkdirSync(path.dirname(folder), { recursive: true });
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const seen = lstatSync(folder);
  const user = process.geteuid?.() ?? 0;
  const why = !seen.isDirectory()
    ? "it is not a folder (a link does not count)"
    : seen.uid !== user
      ? `it belongs to user ${seen.uid}, this is user ${user}`
      : (seen.mode & 0o022) !== 0
        ? "others may write to it"
        : null;
  if (why !== null)
    throw new Error(
      `Cannot use ${folder}: ${why}; give a new folder, or one of your own (chmod go-w)`,
    );
}

/**
 * Makes the folder a local cluster's.
 * @throws when it belongs to somebody else, or holds something that no local cluster put there
 */
export function claimFolder(folder: string): void {
  ownFolder(folder);
  if (!isClaimed(folder) && readdirSync(folder).length > 0)
    throw new Error(
      `Cannot use ${folder}: it is not empty and no local cluster made it; give a new or an empty folder`,
    );
  writeFileSync(
    path.join(folder, MARKER),
    "A local cluster of Mayastor keeps its files here and removes them.\n",
  );
}

export function isClaimed(folder: string): boolean {
  return existsSync(path.join(folder, MARKER));
}

/**
 * Removes a local cluster's own files, and the folder if nothing else is in it.
 * @returns what was left there, because no local cluster made it
 */
export function removeOwn(folder: string): string[] {
  for (const name of OWN) rmSync(path.join(folder, name), { recursive: true, force: true });
  const others = readdirSync(folder).filter((name) => name !== MARKER);
  rmSync(path.join(folder, MARKER), { force: true });
  if (others.length === 0) rmdirSync(folder);
  return others;
}
