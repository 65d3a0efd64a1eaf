/**
 * main.ts, started fast: what cdk8s.yaml runs.
 *
 * Why: main.ts imports some 900 small modules, most of them of the schema library; finding and compiling each takes
 * longer than everything else. Bundled into one file first, the whole takes a third of the processor time.
 * Invariants: the bundle is made anew each time, so it is never stale; it does what main.ts does, which also runs alone.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { buildSync } from "esbuild";

const folder = mkdtempSync(path.join(tmpdir(), "mayastor-synth-"));
try {
  const outfile = path.join(folder, "main.cjs");
  buildSync({
    entryPoints: [path.join(import.meta.dirname, "main.ts")],
    outfile,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node24",
    logLevel: "error",
  });
  createRequire(import.meta.url)(outfile);
} finally {
  rmSync(folder, { recursive: true });
}
