/**
 * Bundles the plugin into dist/kubectl-mayastor.mjs: one file (and lazy parts beside it) that starts in a few
 * dozen milliseconds. Usage: tsx plugin/build.ts [--out=DIR]
 */
import { chmod, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { commandLine } from "#common/command_line.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = commandLine({
  usage: "Usage: plugin/build.ts [--out=DIR]     the folder is dist without it",
  options: { out: { type: "string" } },
});
const outdir = values.out ?? join(root, "dist");
const entry = join(outdir, "kubectl-mayastor.mjs");

await rm(join(outdir, "kubectl-mayastor-parts"), { recursive: true, force: true });
await build({
  entryPoints: { "kubectl-mayastor": join(root, "plugin/main.ts") },
  outdir,
  bundle: true,
  splitting: true, // YAML and discovery are loaded only when used
  minify: true,
  platform: "node",
  format: "esm",
  target: "node20",
  outExtension: { ".js": ".mjs" },
  chunkNames: "kubectl-mayastor-parts/[name]-[hash]",
  // commander is CommonJS: inside an ES module its require() needs this
  banner: {
    js: 'import { createRequire as makeRequire } from "node:module"; const require = makeRequire(import.meta.url);',
  },
  legalComments: "linked",
});
await chmod(entry, 0o755);
console.log(entry);
