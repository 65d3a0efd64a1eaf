/**
 * clang-format over the C++ of this checkout: fails on a file laid out otherwise, or lays it out.
 * Usage: hack/format_native.ts [--apply]
 */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { commandLine } from "#common/command_line.ts";
import { checkoutFiles } from "./files.ts";

const { values } = commandLine({
  usage:
    "Usage: hack/format_native.ts [--apply]     --apply lays the files out, without it they are checked",
  options: { apply: { type: "boolean", default: false } },
});
const root = path.resolve(import.meta.dirname, "..");
const files = checkoutFiles(root).filter((file) => /^engine\/native\/.*\.(h|cc)$/.test(file));
if (files.length === 0) throw new Error("Cannot check the layout: no C++ file under engine/native");
const how = values.apply ? ["-i"] : ["--dry-run", "-Werror"];
const { status, error } = spawnSync("clang-format", [...how, ...files], {
  cwd: root,
  stdio: "inherit",
});
if (error) throw new Error(`Cannot run clang-format: ${error.message}`, { cause: error });
process.exitCode = status ?? 1;
if (status === 0) console.log(`clang-format: ${files.length} files`);
