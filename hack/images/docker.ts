/** Builds the Dockerfile with Docker's buildx, for this machine's architecture, from the real base images. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { baseReferences } from "./bases.ts";
import type { Builder, BuildRequest } from "./builder.ts";

/** Whether there is a Docker to talk to; its client alone is not enough. */
export async function hasDocker(): Promise<boolean> {
  const { exitCode } = await execa("docker", ["version", "--format={{.Server.Version}}"], {
    reject: false,
    stdout: "ignore",
    stderr: "ignore",
  });
  return exitCode === 0;
}

const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** A reference with the digest that its tag has at present. @throws when the registry does not tell */
export async function pinned(reference: string): Promise<string> {
  const format = "{{.Manifest.Digest}}";
  const args = ["buildx", "imagetools", "inspect", reference, "--format", format];
  const digest = (await execa("docker", args)).stdout.trim();
  if (!DIGEST.test(digest)) throw new Error(`Cannot pin ${reference}: "${digest}" is no digest`);
  return `${reference}@${digest}`;
}

export class Docker implements Builder {
  readonly #root: string;
  readonly #log: (line: string) => void;
  /** Arguments of the Dockerfile that name its bases. */
  #bases: readonly string[] = [];

  constructor(root: string, log: (line: string) => void) {
    this.#root = root;
    this.#log = log;
  }

  /** Without the registry the tags alone are known: Docker then builds from what it has of them. */
  async bases(): Promise<readonly string[]> {
    const text = await readFile(path.join(this.#root, "Dockerfile"), "utf8");
    const { debian, node } = baseReferences(text);
    const given = async (name: string, reference: string) => {
      const found = await pinned(reference).catch((error: unknown) => {
        this.#log(`${reference}: taken as it is, its digest is not known: ${String(error)}`);
        return reference;
      });
      return `${name}=${found}`;
    };
    this.#bases = await Promise.all([given("BASE", debian), given("NODE_BASE", node)]);
    return this.#bases;
  }

  async build({ images, secrets, archive }: BuildRequest): Promise<void> {
    for (const { name, reference } of images) {
      this.#log(`${reference}: building`);
      const given = [...secrets].flatMap(([id, file]) => ["--secret", `id=${id},src=${file}`]);
      const bases = this.#bases.flatMap((argument) => ["--build-arg", argument]);
      const args = ["--target", name, "--tag", reference, ...bases, ...given];
      // One image a manifest, as `docker save` and kind expect it.
      await execa(
        "docker",
        ["buildx", "build", "--load", "--provenance=false", ...args, this.#root],
        {
          stdio: ["ignore", "inherit", "inherit"],
        },
      );
    }
    await execa("docker", [
      "save",
      "--output",
      archive,
      ...images.map(({ reference }) => reference),
    ]);
  }
}
