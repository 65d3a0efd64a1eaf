/**
 * Builds the Dockerfile with Debian's buildah, on a machine without Docker and without a registry.
 *
 * Why: the same Dockerfile must be built and tested where nothing can be pulled. Its two base images are made here, by
 * debootstrap, from the mirror that the machine uses, and tagged like the real ones.
 * Invariants: storage is a folder of our cache, never the system's; needs root; chroot isolation, so that it works inside
 * of a container too.
 */
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { execa } from "execa";
import { writeMergedArchive } from "./archive.ts";
import { baseReferences } from "./bases.ts";
import type { Builder, BuildRequest } from "./builder.ts";
import { cacheFolder } from "./cache.ts";
import { debianMirrors, SUITE } from "./machine.ts";

/** Layers of earlier builds that are kept for the next; past it all that nothing is named by go. */
const LAYERS_MAX = 300;

/** Base images older than this are made again: Debian mends its packages. */
const BASE_DAYS = 14;
const DAY_MS = 86_400_000;

/** When and with which Node the base images were made; the images themselves carry no time. */
export type Made = { readonly atMs: number; readonly node: string };

/** @param text of the note beside the storage; null when there is none */
export function areStale(text: string | null, now: Made): boolean {
  if (text === null) return true;
  let made: Partial<Made> | null;
  try {
    made = JSON.parse(text) as Partial<Made> | null; // ours, or else it counts as none
  } catch {
    return true; // cut short when it was written
  }
  const ageMs = now.atMs - (made?.atMs ?? Number.NaN);
  return made?.node !== now.node || !(ageMs >= 0 && ageMs < BASE_DAYS * DAY_MS);
}

/** What images of this kind leave out. */
const LEFT_OUT = ["usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"];

export class Buildah implements Builder {
  readonly #root: string;
  readonly #log: (line: string) => void;
  #bases: readonly string[] = [];

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

  async #references() {
    return baseReferences(await readFile(path.join(this.#root, "Dockerfile"), "utf8"));
  }

  /** Makes the base images where they are missing or too old; their ids. */
  async bases(): Promise<readonly string[]> {
    const { debian, node } = await this.#references();
    await mkdir(cacheFolder(), { recursive: true });
    const note = path.join(cacheFolder(), "bases.json");
    const now: Made = { atMs: Date.now(), node: process.version };
    const areThere = (await this.#has(debian)) && (await this.#has(node));
    if (!areThere || areStale(await readFile(note, "utf8").catch(() => null), now)) {
      try {
        await this.#makeBases({ debian, node });
        await writeFile(note, JSON.stringify(now)); // last: what was cut short is done again
      } catch (error) {
        if (!areThere) throw error;
        this.#log(`base images: older ones are used, new ones cannot be made: ${String(error)}`);
      }
    }
    this.#bases = await this.#ids([debian, node]);
    return this.#bases;
  }

  #ids(references: readonly string[]): Promise<string[]> {
    return Promise.all(references.map((reference) => this.#idOf(reference)));
  }

  async #idOf(reference: string): Promise<string> {
    return this.#buildah([...["inspect", "--type=image", "--format={{.FromImageID}}"], reference]);
  }

  /** @throws when another process has made them anew since they were asked for */
  async #checkBases(): Promise<void> {
    const { debian, node } = await this.#references();
    const now = await this.#ids([debian, node]);
    if (now.join() !== this.#bases.join()) {
      throw new Error("Cannot build: another build has made the base images anew; run it again");
    }
  }

  async #makeBases({ debian, node }: { debian: string; node: string }): Promise<void> {
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
    this.#log(`${node}: made of the pinned Node and this machine's npm`);
    await this.#commit(debian, (root) => this.#addNode(root), node);
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
    await this.#prune();
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
    await this.#checkBases();
    await writeMergedArchive({ layout, images, archive });
    await rm(layout, { recursive: true, force: true });
  }
}
