/**
 * Root directories of small images, put together from programs of this machine's Debian packages.
 * Invariant: a program is copied with every library that its loader asks for, at the path it asks for it.
 */
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  realpath,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";

/** Whoever runs in a container by number has a name, and a home that exists. */
const ACCOUNTS = {
  "etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
  "etc/group": "root:x:0:\nnobody:x:65534:\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
};

const OPEN_TO_ALL = 0o1777;

/** One root directory in a temporary folder; `close` removes it. */
export class Rootfs {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<Rootfs> {
    const folder = await mkdtemp(path.join(tmpdir(), "mayastor-rootfs-"));
    await chmod(folder, 0o755);
    return new Rootfs(folder);
  }

  at(name: string): string {
    return path.join(this.folder, name);
  }

  async put(name: string, text: string): Promise<void> {
    await mkdir(path.dirname(this.at(name)), { recursive: true });
    await writeFile(this.at(name), text, { mode: 0o644 });
  }

  /** A file as it is here, under its own or another name. */
  async copy(file: string, name = file, mode = 0o755): Promise<void> {
    await mkdir(path.dirname(this.at(name)), { recursive: true });
    await copyFile(await realpath(file), this.at(name));
    await chmod(this.at(name), mode);
  }

  /**
   * A program with its libraries.
   * @throws when a library that it needs is not on this machine
   */
  async program(file: string, name = file): Promise<void> {
    await this.copy(file, name);
    for (const library of await librariesOf(file)) await this.copy(library);
  }

  async link(name: string, target: string): Promise<void> {
    await mkdir(path.dirname(this.at(name)), { recursive: true });
    await symlink(target, this.at(name));
  }

  /** What programs expect of any root: accounts, mount points and a place to write. */
  async basics(): Promise<void> {
    for (const [name, text] of Object.entries(ACCOUNTS)) await this.put(name, text);
    for (const name of ["dev", "proc", "sys", "run", "tmp"]) await mkdir(this.at(name));
    await chmod(this.at("tmp"), OPEN_TO_ALL);
  }

  /** A shell and the usual small programs: every applet of busybox that has not a better one. */
  async shell(): Promise<void> {
    await this.copy("/bin/busybox", "/bin/busybox");
    const { stdout } = await execa("/bin/busybox", ["--list"]);
    for (const applet of stdout.split("\n").filter((word) => word !== "" && word !== "busybox")) {
      await this.link(`/bin/${applet}`, "busybox");
    }
  }

  async close(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Paths of the loader and of all libraries; none for a static program. */
async function librariesOf(file: string): Promise<string[]> {
  const { stdout, exitCode, stderr } = await execa("ldd", [file], { reject: false });
  if (/not a dynamic executable|statically linked/.test(stdout + stderr)) return [];
  if (exitCode !== 0) throw new Error(`Cannot list the libraries of ${file}: ${stderr}`);
  const missing = /^\s*(\S+) => not found/m.exec(stdout)?.[1];
  if (missing !== undefined) throw new Error(`Cannot copy ${file}: ${missing} is not installed`);
  return [...stdout.matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)].flatMap((match) => match[1] ?? []);
}
