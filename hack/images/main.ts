/**
 * Builds our container images from this checkout: with Docker where there is one, else with buildah.
 * Usage: hack/images/main.ts [--only=agent-core,...] [--tag=TAG]
 *
 * Invariant: the result is named by a hash of everything it was built from, base images and the code here included; what
 * is there already is not built again.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { commandLine } from "#common/command_line.ts";
import { makeInstall } from "../../infra/config.ts";
import { ownImage } from "../../infra/constructs/pod.ts";
import { ownVersion } from "../../infra/version.ts";
import { type BuiltImage, describeArchive } from "./archive.ts";
import { Buildah } from "./buildah.ts";
import type { WantedImage } from "./builder.ts";
import { cached, contentsOf, hashOf } from "./cache.ts";
import { Docker, hasDocker } from "./docker.ts";
import { writeSecrets } from "./machine.ts";
import { PROGRAMS } from "./programs.ts";
import { imageTable } from "./table.ts";

const USAGE = `Usage: hack/images/main.ts [--only=agent-core,...] [--tag=TAG]
  --only  some of ${PROGRAMS.map(({ name }) => name).join(", ")}
  --tag   of the images; without it the one that the manifests name`;

export type { BuiltImage } from "./archive.ts";

const root = path.resolve(import.meta.dirname, "../..");
/** What images are made of (as in .dockerignore), and the code that makes and writes them. */
export const INPUTS: readonly string[] = [
  ".dockerignore",
  "Dockerfile",
  "LICENSE",
  "agents",
  "engine/native",
  "engine/ts",
  ...[
    ...["apt_install.sh", "archive.ts", "bases.ts", "buildah.ts", "builder.ts", "bundle.ts"],
    ...["cache.ts", "collect.sh", "docker.ts", "machine.ts", "main.ts", "programs.ts", "table.ts"],
  ].map((name) => `hack/images/${name}`),
  "package-lock.json",
  "package.json",
];

export interface BuildOptions {
  /** Names of programs; all of them without it. */
  readonly only?: readonly string[];
  /** Tag of the references; without it the one that the manifests of this version use. */
  readonly tag?: string;
  readonly log?: (line: string) => void;
}

/** @throws when a name is unknown */
export function wantedImages({ only, tag }: BuildOptions): readonly WantedImage[] {
  const names = PROGRAMS.map(({ name }) => name);
  const unknown = only?.filter((name) => !names.includes(name)) ?? [];
  if (unknown.length > 0) {
    throw new Error(`Cannot build ${unknown.join(", ")}: there are ${names.join(", ")}`);
  }
  const values = tag === undefined ? [] : [{ image: { tag } }];
  const install = makeInstall({ version: ownVersion(), values });
  return PROGRAMS.filter(({ name }) => only?.includes(name) ?? true).map(({ name, group }) => ({
    name,
    reference: ownImage(install, name, group),
  }));
}

/**
 * Builds, or finds built, our images. All of them are in one archive, so that layers they share are in it once:
 * `archive` of several images may be the same file.
 */
export async function buildImages(options: BuildOptions = {}): Promise<readonly BuiltImage[]> {
  const { log = () => {} } = options;
  const images = wantedImages(options);
  const docker = await hasDocker();
  const context = await snapshot();
  try {
    return await buildFrom(context, { images, docker, log });
  } finally {
    await rm(context, { recursive: true, force: true });
  }
}

/** A copy of the inputs, so that a file that changes meanwhile is in all images or in none, as the hash says. */
async function snapshot(): Promise<string> {
  const context = await mkdtemp(path.join(tmpdir(), "mayastor-context-"));
  await execa("cp", ["--archive", "--parents", ...INPUTS, context], { cwd: root });
  return context;
}

async function buildFrom(
  context: string,
  {
    images,
    docker,
    log,
  }: { images: readonly WantedImage[]; docker: boolean; log: (line: string) => void },
): Promise<readonly BuiltImage[]> {
  const builder = docker ? new Docker(context, log) : new Buildah(context, log);
  const hash = hashOf([
    ...(await contentsOf(context, INPUTS)),
    JSON.stringify(images),
    docker ? "docker" : "buildah",
    process.arch,
    ...(await builder.bases()),
  ]);
  const archiveIn = (folder: string) => path.join(folder, "mayastor.tar");
  const { folder, found } = await cached(hash, async (scratch) => {
    const secretsFolder = await mkdtemp(path.join(tmpdir(), "mayastor-build-"));
    try {
      const secrets = await writeSecrets(secretsFolder, { apt: !docker });
      await builder.build({ images, secrets, archive: archiveIn(scratch) });
    } finally {
      await rm(secretsFolder, { recursive: true, force: true });
    }
  });
  log(found ? `found in ${folder}` : `built into ${folder}`);
  return Promise.all(
    images.map((image) => describeArchive({ ...image, archive: archiveIn(folder) })),
  );
}

if (import.meta.main) {
  const { values } = commandLine({
    usage: USAGE,
    options: { only: { type: "string" }, tag: { type: "string" } },
  });
  const images = await buildImages({
    ...(values.only === undefined ? {} : { only: values.only.split(",") }),
    ...(values.tag === undefined ? {} : { tag: values.tag }),
    log: (line) => console.error(line),
  });
  console.log(imageTable(images));
}
