/** Builds the Dockerfile with Docker's buildx, for this machine's architecture, from the real base images. */
import { execa } from "execa";
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

export class Docker implements Builder {
  readonly #root: string;
  readonly #log: (line: string) => void;

  constructor(root: string, log: (line: string) => void) {
    this.#root = root;
    this.#log = log;
  }

  async build({ images, secrets, archive }: BuildRequest): Promise<void> {
    for (const { name, reference } of images) {
      this.#log(`${reference}: building`);
      const given = [...secrets].flatMap(([id, file]) => ["--secret", `id=${id},src=${file}`]);
      const args = ["--target", name, "--tag", reference, ...given];
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
