/**
 * Compares the committed snapshots and the README's tables with what the code makes.
 * Usage: scripts/run infra/snapshot.ts [--update]   (exits 1 and names the files that differ, without --update)
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { commandLine } from "#common/command_line.ts";
import { snapshotInstalls, synthesize, toText } from "./snapshots.ts";
import { withTables } from "./value_table.ts";

const FOLDER = path.join(import.meta.dirname, "snapshots");
const README = path.join(import.meta.dirname, "README.md");
const EXTENSION = ".k8s.yaml";

/** Every generated file and its wanted text. */
export function wantedFiles(): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const [folder, install] of snapshotInstalls()) {
    for (const [name, objects] of synthesize(install)) {
      files.set(path.join(FOLDER, folder, `${name}${EXTENSION}`), toText(objects));
    }
  }
  return files.set(README, withTables(readFileSync(README, "utf8")));
}

function presentFiles(): string[] {
  if (!existsSync(FOLDER)) return [];
  return readdirSync(FOLDER, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
}

/** What differs, as `changed|missing|left over: file`. */
export function staleFiles(): readonly string[] {
  const wanted = wantedFiles();
  const relative = (file: string) => path.relative(import.meta.dirname, file);
  const stale = [...wanted].flatMap(([file, text]) => {
    if (!existsSync(file)) return [`missing: ${relative(file)}`];
    return readFileSync(file, "utf8") === text ? [] : [`changed: ${relative(file)}`];
  });
  const extra = presentFiles().filter((file) => !wanted.has(file));
  return [...stale, ...extra.map((file) => `left over: ${relative(file)}`)];
}

function update(): void {
  const wanted = wantedFiles();
  for (const file of presentFiles()) if (!wanted.has(file)) rmSync(file);
  for (const [file, text] of wanted) {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}

if (import.meta.main) {
  const { values } = commandLine({
    usage:
      "Usage: infra/snapshot.ts [--update]     names the files that differ; --update writes them",
    options: { update: { type: "boolean" } },
  });
  const stale = staleFiles();
  for (const line of stale) console.log(line);
  if (values.update === true) update();
  else if (stale.length > 0) {
    console.error("Review the change, then run: scripts/run infra/snapshot.ts --update");
    process.exitCode = 1;
  }
}
