/**
 * The files of this checkout that are its own: for checks that look at every one of them.
 *
 * Why not `git ls-files` alone: a source archive has no history, and a machine may lack git. Then the
 * folders are walked, less what .gitignore names.
 * Invariant: never an empty list, so that no check passes by having looked at nothing.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/** Paths relative to `root`, with forward slashes. @throws when they cannot be listed, saying why */
export function checkoutFiles(root: string): string[] {
  const files = existsSync(path.join(root, ".git")) ? listed(root) : walked(root);
  const found = files.filter((file) => existsSync(path.join(root, file))).sort();
  if (found.length === 0) throw new Error(`Cannot list the files of ${root}: there are none`);
  return found;
}

function listed(root: string): string[] {
  // The checkout may belong to another user than the one who runs the checks (a CI container's root).
  const args = ["-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"];
  try {
    return execFileSync("git", args, {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 1 << 26,
    })
      .split("\0")
      .filter((file) => file !== "");
  } catch (cause) {
    const { code, stderr } = cause as { code?: string; stderr?: string }; // execFileSync's own shape
    const why = code === "ENOENT" ? "git is not installed: npm test installs it" : stderr?.trim();
    throw new Error(`Cannot list the files of ${root}: ${why || String(cause)}`, { cause });
  }
}

function walked(root: string): string[] {
  const ignored = ignoredNames(root);
  const files: string[] = [];
  const walk = (folder: string): void => {
    for (const entry of readdirSync(path.join(root, folder), { withFileTypes: true })) {
      if (ignored(entry.name, entry.isDirectory())) continue;
      const file = path.posix.join(folder, entry.name);
      if (entry.isDirectory()) walk(file);
      else if (entry.isFile()) files.push(file);
    }
  };
  walk("");
  return files;
}

/** The patterns of .gitignore that are used here: a name, with * in it, with / behind it for a folder. */
function ignoredNames(root: string): (name: string, isFolder: boolean) => boolean {
  const file = path.join(root, ".gitignore");
  const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n") : [];
  const patterns = lines
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const name = line.replace(/\/$/, "");
      if (/[/!\\[?]/.test(name)) {
        throw new Error(
          `Cannot list the files of ${root} without git: .gitignore has "${line}", which is more than a name`,
        );
      }
      const text = name
        .split("*")
        .map((part) => part.replaceAll(/[.+^${}()|]/g, "\\$&"))
        .join(".*");
      return { name: new RegExp(`^${text}$`), folderOnly: line.endsWith("/") };
    });
  return (name, isFolder) =>
    patterns.some((one) => (isFolder || !one.folderOnly) && one.name.test(name));
}
