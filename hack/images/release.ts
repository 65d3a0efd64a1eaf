/**
 * Builds and publishes the images of a release with Docker's buildx; run by the images workflow.
 * Usage: hack/images/release.ts pin                  prints the base images with the digests of their tags, as JSON
 *        hack/images/release.ts build --arch=ARCH --bases=JSON --repository=REPO --digests=DIR [--push]
 *        hack/images/release.ts merge --repository=REPO --digests=DIR --tag=TAG
 *
 * Why three: every architecture is built on a machine of its own kind, all from the same base images; only when all are
 * there does a tag point to them.
 * Invariants: what is pushed has provenance and a bill of materials; a tag is given once, to all architectures.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { Type } from "typebox";
import Value from "typebox/value";
import { commandLine } from "#common/command_line.ts";
import { imageName } from "../../infra/images.ts";
import { baseReferences } from "./bases.ts";
import { pinned } from "./docker.ts";
import { PROGRAMS } from "./programs.ts";

const root = path.resolve(import.meta.dirname, "../..");
const ARCHES = ["amd64", "arm64"];
const DIGEST = /^sha256:[0-9a-f]{64}$/;

const Bases = Type.Object({
  BASE: Type.String({ pattern: "@sha256:[0-9a-f]{64}$" }),
  NODE_BASE: Type.String({ pattern: "@sha256:[0-9a-f]{64}$" }),
});
const Metadata = Type.Object({ "containerimage.digest": Type.String({ pattern: DIGEST.source }) });

async function pin(): Promise<void> {
  const { debian, node } = baseReferences(await readFile(path.join(root, "Dockerfile"), "utf8"));
  console.log(JSON.stringify({ BASE: await pinned(debian), NODE_BASE: await pinned(node) }));
}

/** `repository`: a registry and the repository in it, as `image.registry` and `image.repo` of the manifests name them. */
export const repositoryOf = (repository: string, program: string): string =>
  imageName({ registry: "", repo: repository }, program);

interface BuildOptions {
  readonly arch: string;
  readonly bases: string;
  readonly repository: string;
  readonly digests: string;
  readonly push: boolean;
}

async function build({ arch, bases, repository, digests, push }: BuildOptions): Promise<void> {
  if (!ARCHES.includes(arch)) {
    throw new Error(`Cannot build for "${arch}": there are ${ARCHES.join(", ")}`);
  }
  const given = Value.Parse(Bases, JSON.parse(bases));
  await mkdir(digests, { recursive: true });
  const scratch = await mkdtemp(path.join(tmpdir(), "mayastor-release-"));
  try {
    for (const { name } of PROGRAMS) {
      const metadata = path.join(scratch, `${name}.json`);
      const image = repositoryOf(repository, name);
      const output = push
        ? [
            `--output=type=image,name=${image},push-by-digest=true,name-canonical=true,push=true`,
            "--provenance=mode=max",
            "--sbom=true",
          ]
        : ["--output=type=cacheonly"];
      await execa(
        "docker",
        [
          ...["buildx", "build", `--platform=linux/${arch}`, `--target=${name}`],
          ...Object.entries(given).flatMap(([key, value]) => ["--build-arg", `${key}=${value}`]),
          ...[`--metadata-file=${metadata}`, ...output, root],
        ],
        { stdio: ["ignore", "inherit", "inherit"] },
      );
      if (!push) continue;
      const written = Value.Parse(Metadata, JSON.parse(await readFile(metadata, "utf8")));
      await writeFile(path.join(digests, `${name}-${arch}`), written["containerimage.digest"]);
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The digests of one program for all architectures. @throws when one is missing */
export async function digestsOf(folder: string, program: string): Promise<readonly string[]> {
  const names = ARCHES.map((arch) => `${program}-${arch}`);
  const there = await readdir(folder);
  const missing = names.filter((name) => !there.includes(name));
  if (missing.length > 0) {
    throw new Error(`Cannot publish ${program}: no digest of ${missing.join(", ")} in ${folder}`);
  }
  return Promise.all(
    names.map(async (name) => (await readFile(path.join(folder, name), "utf8")).trim()),
  );
}

async function merge(options: { repository: string; digests: string; tag: string }): Promise<void> {
  const { repository, digests, tag } = options;
  // All are looked for before the first tag is given.
  const wanted: { image: string; sources: string[] }[] = [];
  for (const { name } of PROGRAMS) {
    const image = repositoryOf(repository, name);
    const sources = (await digestsOf(digests, name)).map((digest) => `${image}@${digest}`);
    wanted.push({ image, sources });
  }
  for (const { image, sources } of wanted) {
    const args = ["buildx", "imagetools", "create", "--tag", `${image}:${tag}`, ...sources];
    await execa("docker", args, { stdio: ["ignore", "inherit", "inherit"] });
  }
}

const USAGE = `Usage: release.ts pin
       release.ts build --arch=ARCH --bases=JSON --repository=REPO --digests=DIR [--push]
       release.ts merge --repository=REPO --digests=DIR --tag=TAG`;

async function main(): Promise<void> {
  const { values, positionals } = commandLine({
    usage: USAGE,
    positionalsMax: 1,
    options: {
      arch: { type: "string" },
      bases: { type: "string" },
      repository: { type: "string" },
      digests: { type: "string" },
      tag: { type: "string" },
      push: { type: "boolean", default: false },
    },
  });
  const need = (name: "arch" | "bases" | "repository" | "digests" | "tag"): string => {
    const value = values[name];
    if (value === undefined || value === "") throw new Error(`--${name} is missing`);
    return value;
  };
  const [command] = positionals;
  switch (command) {
    case "pin":
      return pin();
    case "build":
      return build({
        arch: need("arch"),
        bases: need("bases"),
        repository: need("repository"),
        digests: need("digests"),
        push: values.push,
      });
    case "merge":
      return merge({
        repository: need("repository"),
        digests: need("digests"),
        tag: need("tag"),
      });
    default:
      throw new Error("Usage: hack/images/release.ts pin|build|merge");
  }
}

if (import.meta.main) await main();
