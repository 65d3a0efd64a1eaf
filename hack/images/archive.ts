/**
 * A docker-archive (what `docker load`, `kind load image-archive` and `ctr images import` read) made from a folder.
 *
 * Why an own writer: no daemon, no registry and no storage of layers is needed for an image of one layer.
 * Invariant: the same folder and config give the same bytes: names are sorted, times are zero, owners are root.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { Type } from "typebox";
import Value from "typebox/value";

/** An image that was built: `archive` is a docker-archive holding `reference`. */
export interface BuiltImage {
  readonly name: string;
  readonly reference: string;
  readonly archive: string;
  /** Of its layers as they are in the archive, including those that it shares with others. */
  readonly bytes: number;
}

/** How a container of the image starts; a subset of the image specification's `config`. */
export interface ImageConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Env?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>>;
}

const MANIFEST = "manifest.json";
/** What a docker-archive says of its images; `RepoTags` is null for one without a name. */
export const Manifest = Type.Array(
  Type.Object({
    Config: Type.String(),
    RepoTags: Type.Union([Type.Array(Type.String()), Type.Null()]),
    Layers: Type.Array(Type.String()),
  }),
);

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

/** This machine's architecture in the image specification's words. */
export function architecture(): string {
  const name = ARCHITECTURES[process.arch];
  if (name === undefined) {
    throw new Error(`Cannot build images: ${process.arch} is not one of x64, arm64`);
  }
  return name;
}

export async function sha256OfFile(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest("hex");
}

/** Packs the named entries of a folder; everything but names, modes and contents is left out. */
async function pack(folder: string, names: readonly string[], file: string): Promise<void> {
  await execa("tar", [
    "--create",
    `--file=${file}`,
    `--directory=${folder}`,
    "--sort=name",
    "--format=pax",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--mtime=@0",
    "--owner=0",
    "--group=0",
    "--numeric-owner",
    "--",
    ...names,
  ]);
}

export interface ArchiveOptions {
  readonly name: string;
  readonly reference: string;
  /** The root directory of the image. */
  readonly rootfs: string;
  readonly config: ImageConfig;
  readonly archive: string;
}

interface Descriptor {
  readonly digest: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/**
 * One docker-archive of several images of an OCI layout; a layer that images share is in it once. Layers may be
 * compressed: whoever reads such archives looks at the bytes, not at the name.
 */
export async function writeMergedArchive({
  layout,
  images,
  archive,
}: {
  readonly layout: string;
  /** `name` is the image's reference within the layout. */
  readonly images: readonly { readonly name: string; readonly reference: string }[];
  readonly archive: string;
}): Promise<void> {
  const blob = ({ digest }: Descriptor) => path.join(layout, "blobs", digest.replace(":", "/"));
  const read = async (file: string): Promise<unknown> => JSON.parse(await readFile(file, "utf8"));
  // Written by the builder a moment ago, by the image specification.
  const index = (await read(path.join(layout, "index.json"))) as { manifests: Descriptor[] };
  const files = new Set<string>();
  const use = async (from: Descriptor, suffix: string): Promise<string> => {
    const name = `${from.digest.replace("sha256:", "")}${suffix}`;
    if (!files.has(name)) await rename(blob(from), path.join(layout, name));
    files.add(name);
    return name;
  };
  const manifest: unknown[] = [];
  for (const { name, reference } of images) {
    const wanted = index.manifests.find(
      ({ annotations }) => annotations?.["org.opencontainers.image.ref.name"] === name,
    );
    if (wanted === undefined) throw new Error(`Cannot export ${name}: it is not in ${layout}`);
    const found = (await read(blob(wanted))) as { config: Descriptor; layers: Descriptor[] };
    const Layers: string[] = [];
    for (const layer of found.layers) Layers.push(await use(layer, ".tar"));
    manifest.push({ Config: await use(found.config, ".json"), RepoTags: [reference], Layers });
  }
  await writeFile(path.join(layout, MANIFEST), JSON.stringify(manifest));
  await pack(layout, [MANIFEST, ...[...files].sort()], archive);
}

/** Writes the archive beside its place and moves it there when it is whole. */
export async function writeArchive(options: ArchiveOptions): Promise<BuiltImage> {
  const { name, reference, rootfs, config, archive } = options;
  await mkdir(path.dirname(archive), { recursive: true });
  const scratch = await mkdtemp(`${archive}.`);
  try {
    const layer = path.join(scratch, "layer.tar");
    await pack(rootfs, (await readdir(rootfs)).sort(), layer);
    const image = JSON.stringify({
      architecture: architecture(),
      os: "linux",
      created: "1970-01-01T00:00:00Z",
      config,
      rootfs: { type: "layers", diff_ids: [`sha256:${await sha256OfFile(layer)}`] },
      history: [{ created: "1970-01-01T00:00:00Z", created_by: "files of a folder" }],
    });
    const configName = `${createHash("sha256").update(image).digest("hex")}.json`;
    await writeFile(path.join(scratch, configName), image);
    const manifest = [{ Config: configName, RepoTags: [reference], Layers: ["layer.tar"] }];
    await writeFile(path.join(scratch, MANIFEST), JSON.stringify(manifest));
    const whole = path.join(scratch, "whole");
    await pack(scratch, [MANIFEST, configName, "layer.tar"], whole);
    await rename(whole, archive);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return describeArchive({ name, reference, archive });
}

/** Sizes of the files in an archive. */
async function filesIn(archive: string): Promise<ReadonlyMap<string, number>> {
  const { stdout } = await execa("tar", ["--list", "--verbose", `--file=${archive}`]);
  return new Map(
    stdout.split("\n").flatMap((line): [string, number][] => {
      const [, size, name] = /^\S+\s+\S+\s+(\d+)\s+\S+\s+\S+\s+(.+)$/.exec(line) ?? [];
      return size === undefined || name === undefined ? [] : [[name, Number(size)]];
    }),
  );
}

/** @throws when the archive does not hold the image */
export async function describeArchive(image: Omit<BuiltImage, "bytes">): Promise<BuiltImage> {
  const { archive, reference } = image;
  const { stdout } = await execa("tar", [
    "--extract",
    "--to-stdout",
    `--file=${archive}`,
    MANIFEST,
  ]);
  const entries = Value.Parse(Manifest, JSON.parse(stdout));
  const own = entries.find(({ RepoTags }) => RepoTags?.includes(reference));
  if (own === undefined) throw new Error(`Cannot find ${reference} in ${archive}`);
  const sizes = await filesIn(archive);
  const bytes = [own.Config, ...own.Layers].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
  return { ...image, bytes };
}
