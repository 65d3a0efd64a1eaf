/**
 * Turns every program into one file for its image; runs inside the image build, on Node alone.
 * Usage: node hack/images/bundle.ts OUT   writes OUT/<program>, a root directory with the program in it
 *
 * Why bundles: an image without a package manager, without node_modules, and a program that starts in a fraction of
 * the time. Identifiers stay as they are, so that stack traces can be read.
 * Invariant: what a bundle reads at run time lies beside it (etcd3's .proto files do).
 */
import { chmod, cp, mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { build } from "esbuild";
import { PROGRAMS, type Program } from "./programs.ts";

const HOME = "opt/mayastor";

/** Run by name; CommonJS packages inside of the bundle find what they expect. */
const BANNER = [
  "#!/usr/bin/node",
  'import { createRequire as makeRequire } from "node:module";',
  "const require = makeRequire(import.meta.url);",
  "const __dirname = import.meta.dirname;",
  "const __filename = import.meta.filename;",
].join("\n");

async function bundle({ name, entry }: Program, root: string): Promise<void> {
  const main = path.join(root, HOME, "bin/main.mjs");
  const { metafile } = await build({
    entryPoints: [entry],
    outfile: main,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node24",
    metafile: true,
    minifySyntax: true,
    minifyWhitespace: true,
    banner: { js: BANNER },
    legalComments: "linked",
    logLevel: "warning",
  });
  await chmod(main, 0o755);
  const inputs = Object.keys(metafile.inputs);
  if (inputs.some((file) => file.startsWith("node_modules/etcd3/"))) {
    await cp("node_modules/etcd3/proto", path.join(root, HOME, "proto"), { recursive: true });
  }
  await mkdir(path.join(root, "usr/bin"), { recursive: true });
  await symlink(`/${HOME}/bin/main.mjs`, path.join(root, "usr/bin", name));
  await writeFile(path.join(root, HOME, "packages.txt"), `${packagesOf(inputs).join("\n")}\n`);
}

/** npm packages whose code is in the bundle, for whoever asks what an image contains. */
function packagesOf(inputs: readonly string[]): string[] {
  const names = inputs.flatMap(
    (file) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? [],
  );
  return [...new Set(names)].sort();
}

const [out] = process.argv.slice(2);
if (out === undefined) throw new Error("Usage: node hack/images/bundle.ts OUT");
for (const program of PROGRAMS) {
  await bundle(program, path.join(out, program.name));
  console.log(program.name);
}
