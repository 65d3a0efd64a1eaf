/**
 * Looks into a docker-archive: its images' configurations, their files, and their root directories on disk.
 * Why: what an image contains and how it starts is checked without a container runtime.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { type Static, Type } from "typebox";
import Value from "typebox/value";
import { Manifest } from "./archive.ts";

const Config = Type.Object({
  architecture: Type.String(),
  os: Type.String(),
  config: Type.Object({
    User: Type.Optional(Type.String()),
    Env: Type.Optional(Type.Array(Type.String())),
    Entrypoint: Type.Optional(Type.Array(Type.String())),
    Cmd: Type.Optional(Type.Union([Type.Array(Type.String()), Type.Null()])),
  }),
});

export interface UnpackedImage {
  readonly reference: string;
  /** The configuration as it is written, for searching. */
  readonly configText: string;
  readonly config: Static<typeof Config>;
  /** A folder with the root directory; whoever unpacked it removes it. */
  readonly rootfs: string;
  readonly layerFiles: readonly string[];
}

/** Unpacks every image of the archive into `folder`. Needs root, as owners and modes are kept. */
export async function unpackArchive(archive: string, folder: string): Promise<UnpackedImage[]> {
  const scratch = await mkdtemp(path.join(tmpdir(), "mayastor-unpack-"));
  try {
    await execa("tar", ["--extract", `--file=${archive}`, `--directory=${scratch}`]);
    const manifest = Value.Parse(
      Manifest,
      JSON.parse(await readFile(path.join(scratch, "manifest.json"), "utf8")),
    );
    const images: UnpackedImage[] = [];
    for (const [index, { Config: configFile, RepoTags, Layers }] of manifest.entries()) {
      const rootfs = path.join(folder, String(index));
      await mkdir(rootfs, { recursive: true });
      const layerFiles: string[] = [];
      for (const layer of Layers) {
        const { stdout } = await execa("tar", [
          "--extract",
          "--verbose",
          "--preserve-permissions",
          "--numeric-owner",
          `--file=${path.join(scratch, layer)}`,
          `--directory=${rootfs}`,
        ]);
        layerFiles.push(...stdout.split("\n"));
      }
      const configText = await readFile(path.join(scratch, configFile), "utf8");
      const config = Value.Parse(Config, JSON.parse(configText));
      images.push({ reference: RepoTags?.[0] ?? "", configText, config, rootfs, layerFiles });
    }
    return images;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
