/**
 * Builds the Dockerfile with Debian's buildah, on a machine without Docker and without a registry.
 *
 * Why: the same Dockerfile must be built and tested where nothing can be pulled. Its two base images are made here, by
 * debootstrap, from the mirror that the machine uses, and tagged like the real ones.
 * Invariants: storage is a folder of our cache, never the system's; needs root; chroot isolation, so that it works inside
 * of a container too.
 */
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, realpath, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { execa } from "execa";
import { writeMergedArchive } from "./archive.ts";
import type { Builder, BuildRequest } from "./builder.ts";
import { cacheFolder } from "./cache.ts";
import { debianMirrors, SUITE } from "./machine.ts";

/** The base images named by the Dockerfile. */
export function baseReferences(dockerfile: string): {
  readonly debian: string;
  readonly node: string;
} {
  const reference = (name: string): string => {
    const found = new RegExp(`^ARG ${name}=(\\S+)$`, "m").exec(dockerfile)?.[1];
    if (found === undefined) throw new Error(`Cannot build: the Dockerfile has no ARG ${name}`);
    return found;
  };
  return { debian: reference("BASE"), node: reference("NODE_BASE") };
}

/** Layers of earlier builds that are kept for the next; past it all that nothing is named by go. */
const LAYERS_MAX = 300;

/** What images of this kind leave out. */
const LEFT_OUT = ["usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"];

export class Buildah implements Builder {
  readonly #root: string;
  readonly #log: (line: string) => void;

  constructor(root: string, log: (line: string) => void) {
    this.#root = root;
    this.#log = log;
  }

  get #storage(): string[] {
    const folder = path.join(cacheFolder(), "storage");
    return ["--root", folder, "--runroot", `${folder}-run`, "--storage-driver", "overlay"];
  }

  async #buildah(args: readonly string[]): Promise<string> {
    const { stdout } = await execa("buildah", [...this.#storage, ...args]);
    return stdout.trim();
  }

  async #has(reference: string): Promise<boolean> {
    const { exitCode } = await execa(
      "buildah",
      [...this.#storage, "inspect", "--type=image", reference],
      {
        reject: false,
        stdout: "ignore",
      },
    );
    return exitCode === 0;
  }

  /** An image from a folder, or from another image with a folder added. */
  async #commit(
    from: string,
    fill: (root: string) => Promise<void>,
    reference: string,
  ): Promise<void> {
    const container = await this.#buildah(["from", "--pull-never", from]);
    try {
      await fill(await this.#buildah(["mount", container]));
      await this.#buildah(["umount", container]);
      await this.#buildah(["commit", "--quiet", "--timestamp", "0", container, reference]);
    } finally {
      await this.#buildah(["rm", container]);
    }
  }

  async #ensureBases(): Promise<void> {
    const { debian, node } = baseReferences(
      await readFile(path.join(this.#root, "Dockerfile"), "utf8"),
    );
    if (!(await this.#has(debian))) {
      const { main } = await debianMirrors();
      this.#log(`${debian}: made by debootstrap, about a minute`);
      const scratch = await mkdtemp(path.join(cacheFolder(), "building-"));
      try {
        await execa("debootstrap", ["--variant=minbase", SUITE, path.join(scratch, "root"), main]);
        await this.#commit(
          "scratch",
          async (root) => {
            await execa("cp", ["--archive", `${scratch}/root/.`, `${root}/`]);
            for (const name of LEFT_OUT)
              await rm(path.join(root, name), { recursive: true, force: true });
            await execa("sh", [
              "-c",
              'rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*',
              "sh",
              root,
            ]);
          },
          debian,
        );
      } finally {
        await rm(scratch, { recursive: true, force: true });
      }
    }
    if (!(await this.#has(node))) {
      this.#log(`${node}: made of the pinned Node and this machine's npm`);
      await this.#commit(debian, (root) => this.#addNode(root), node);
    }
  }

  async #addNode(root: string): Promise<void> {
    const { stdout } = await execa("sh", ["-c", "command -v npm"]);
    const client = await realpath(stdout.trim());
    const npm = path.dirname(path.dirname(client)); // .../npm/bin/npm-cli.js
    if (!existsSync(path.join(npm, "bin/npm-cli.js"))) {
      throw new Error(`Cannot make the Node base image: ${client} is not npm's own program`);
    }
    await mkdir(path.join(root, "usr/local/lib/node_modules"), { recursive: true });
    await cp(npm, path.join(root, "usr/local/lib/node_modules/npm"), { recursive: true });
    await cp(process.execPath, path.join(root, "usr/local/bin/node"), { dereference: true });
    await execa("ln", [
      "-s",
      "../lib/node_modules/npm/bin/npm-cli.js",
      `${root}/usr/local/bin/npm`,
    ]);
  }

  async #prune(): Promise<void> {
    const ids = await this.#buildah(["images", "--all", "--quiet"]);
    if (ids.split("\n").length <= LAYERS_MAX) return;
    this.#log("removing layers of earlier builds");
    await this.#buildah(["rmi", "--prune"]);
  }

  async build({ images, secrets, archive }: BuildRequest): Promise<void> {
    await mkdir(cacheFolder(), { recursive: true });
    await this.#prune();
    await this.#ensureBases();
    const ccache = path.join(os.homedir(), ".cache/ccache");
    await mkdir(ccache, { recursive: true });
    const layout = `${archive}.layout`;
    for (const { name, reference } of images) {
      this.#log(`${reference}: building`);
      const args = ["bud", "--isolation=chroot", "--pull-never", "--layers", "--timestamp=0"];
      for (const [id, file] of secrets) args.push("--secret", `id=${id},src=${file}`);
      args.push("--volume", `${ccache}:/ccache`, "--target", name, "--tag", reference);
      const all = [...this.#storage, ...args, this.#root];
      const { exitCode, all: output } = await execa("buildah", all, { all: true, reject: false });
      if (exitCode !== 0)
        throw new Error(`Cannot build ${reference}:\n${output.split("\n").slice(-60).join("\n")}`);
      await this.#buildah(["push", "--quiet", reference, `oci:${layout}:${name}`]);
    }
    await writeMergedArchive({ layout, images, archive });
    await rm(layout, { recursive: true, force: true });
  }
}
