/**
 * Everything the node plugin does to its node: files of /sys, /proc and /dev, directories, programs.
 *
 * Why behind one interface: rules of staging are tested on a tree of plain files; the real thing is proven in a guest
 * with a stock kernel.
 * Invariants: reads of what is absent give null or nothing, other failures are SvcErrors that name the path; a program
 * runs without a shell, with a time limit, and its exit code is for the caller to judge.
 */
import { constants } from "node:fs";
import {
  access,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rm,
  rmdir,
  statfs,
} from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { systemClock } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";

export type ProgramResult = {
  /** Null when it was ended by its time limit or could not be started. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
};

/** Between the end of its time and the kernel's word that a program is gone: it is asked first, and killed after 5 s. */
const KILLED_MS = 8_000;

export type PathKind = "file" | "directory" | "block" | "other";

export type Space = {
  readonly bytesTotal: bigint;
  readonly bytesFree: bigint;
  readonly bytesAvailable: bigint;
  readonly inodesTotal: bigint;
  readonly inodesFree: bigint;
};

export interface NodeSystem {
  /** Trimmed; null when it is absent. */
  readText(file: string): Promise<string | null>;
  /** To a file that exists: an attribute of sysfs. */
  writeText(file: string, text: string): Promise<void>;
  /** Names, sorted; none when it is absent. */
  list(folder: string): Promise<string[]>;
  kind(name: string): Promise<PathKind | null>;
  /** major:minor of a block device's node; null when there is none, or something else of that name. */
  blockNumber(node: string): Promise<string | null>;
  /** Something has the block device to itself: a file system mounted in whichever namespace, dm, md, swap. */
  isClaimed(node: string): Promise<boolean>;
  /** Without symbolic links; a last part that does not exist stays as it is. */
  resolve(name: string): Promise<string>;
  makeFolder(folder: string): Promise<void>;
  /** Also when it is absent; never recursive. */
  removeFolder(folder: string): Promise<void>;
  makeFile(file: string): Promise<void>;
  removeFile(file: string): Promise<void>;
  space(folder: string): Promise<Space>;
  /** The first bytes of a device, all of them. @throws when they cannot be read */
  readStart(device: string, bytes: number): Promise<Buffer>;
  /** One line to the fabrics device; @throws SvcError with field `errno` */
  connectFabrics(options: string): Promise<string>;
  run(program: string, args: readonly string[], timeoutMs: number): Promise<ProgramResult>;
}

const FABRICS = "/dev/nvme-fabrics";
const FABRICS_REPLY_BYTES = 256;

function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** As the kernel's dev_t reaches user space: makedev(3). */
function deviceNumber(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xfff_ff00n);
  return `${major}:${minor}`;
}

const isAbsent = (error: unknown): boolean =>
  ["ENOENT", "ENOTDIR", "ENODEV"].includes(errnoOf(error));

function failure(what: string, error: unknown): SvcError {
  const fields = { errno: errnoOf(error) };
  return new SvcError("internal", `Cannot ${what}: ${errorMessage(error)}`, {
    cause: error,
    fields,
  });
}

export class LinuxSystem implements NodeSystem {
  readonly #root: string;

  readonly #killedMs: number;

  /** `root`: where /sys, /proc, /dev and all other paths are looked for; tests give a folder. */
  constructor(root = "", { killedMs = KILLED_MS }: { readonly killedMs?: number } = {}) {
    this.#root = root;
    this.#killedMs = killedMs;
  }

  protected at(name: string): string {
    return this.#root === "" ? name : path.join(this.#root, name);
  }

  async readText(file: string): Promise<string | null> {
    try {
      return (await readFile(this.at(file), "utf8")).trim();
    } catch (error) {
      if (isAbsent(error)) return null;
      throw failure(`read ${file}`, error);
    }
  }

  async writeText(file: string, text: string): Promise<void> {
    try {
      const opened = await open(this.at(file), constants.O_WRONLY);
      try {
        await opened.write(text);
      } finally {
        await opened.close();
      }
    } catch (error) {
      throw failure(`write "${text}" to ${file}`, error);
    }
  }

  async list(folder: string): Promise<string[]> {
    try {
      return (await readdir(this.at(folder))).sort();
    } catch (error) {
      if (isAbsent(error)) return [];
      throw failure(`list ${folder}`, error);
    }
  }

  async kind(name: string): Promise<PathKind | null> {
    try {
      const found = await lstat(this.at(name));
      if (found.isFile()) return "file";
      if (found.isDirectory()) return "directory";
      return found.isBlockDevice() ? "block" : "other";
    } catch (error) {
      if (isAbsent(error)) return null;
      throw failure(`look at ${name}`, error);
    }
  }

  async blockNumber(node: string): Promise<string | null> {
    try {
      const found = await lstat(this.at(node), { bigint: true });
      return found.isBlockDevice() ? deviceNumber(found.rdev) : null;
    } catch (error) {
      if (isAbsent(error)) return null;
      throw failure(`look at ${node}`, error);
    }
  }

  async isClaimed(node: string): Promise<boolean> {
    try {
      // Without O_CREAT and on a block device: fails while anybody else has it exclusively, open(2).
      await (await open(this.at(node), constants.O_RDONLY | constants.O_EXCL)).close();
      return false;
    } catch (error) {
      if (errnoOf(error) === "EBUSY") return true;
      if (isAbsent(error) || errnoOf(error) === "ENXIO") return false;
      throw failure(`open ${node}`, error);
    }
  }

  async resolve(name: string): Promise<string> {
    const real = async (wanted: string): Promise<string> => {
      const found = await realpath(this.at(wanted));
      return this.#root === "" ? found : `/${path.relative(await realpath(this.#root), found)}`;
    };
    try {
      return await real(name);
    } catch (error) {
      if (!isAbsent(error)) throw failure(`resolve ${name}`, error);
    }
    try {
      return path.join(await real(path.dirname(name)), path.basename(name));
    } catch {
      return path.normalize(name); // its folder does not exist either: there is nothing to resolve
    }
  }

  async makeFolder(folder: string): Promise<void> {
    try {
      await mkdir(this.at(folder), { recursive: true, mode: 0o750 });
    } catch (error) {
      throw failure(`make folder ${folder}`, error);
    }
  }

  async removeFolder(folder: string): Promise<void> {
    try {
      await rmdir(this.at(folder));
    } catch (error) {
      if (!isAbsent(error)) throw failure(`remove folder ${folder}`, error);
    }
  }

  async makeFile(file: string): Promise<void> {
    try {
      await (await open(this.at(file), "a", 0o640)).close();
    } catch (error) {
      throw failure(`make file ${file}`, error);
    }
  }

  async removeFile(file: string): Promise<void> {
    try {
      await rm(this.at(file), { force: true });
    } catch (error) {
      throw failure(`remove file ${file}`, error);
    }
  }

  async space(folder: string): Promise<Space> {
    try {
      const found = await statfs(this.at(folder), { bigint: true });
      return {
        bytesTotal: found.blocks * found.bsize,
        bytesFree: found.bfree * found.bsize,
        bytesAvailable: found.bavail * found.bsize,
        inodesTotal: found.files,
        inodesFree: found.ffree,
      };
    } catch (error) {
      throw failure(`read the space of ${folder}`, error);
    }
  }

  async readStart(device: string, bytes: number): Promise<Buffer> {
    try {
      const opened = await open(this.at(device), constants.O_RDONLY);
      try {
        const start = Buffer.alloc(bytes);
        for (let done = 0; done < bytes; ) {
          const { bytesRead } = await opened.read(start, done, bytes - done, done);
          if (bytesRead === 0) throw new Error(`it ends after ${done} bytes`);
          done += bytesRead;
        }
        return start;
      } finally {
        await opened.close();
      }
    } catch (error) {
      throw failure(`read ${device}`, error);
    }
  }

  async connectFabrics(options: string): Promise<string> {
    try {
      await access(this.at(FABRICS));
    } catch (error) {
      const message = `Cannot connect: ${FABRICS} is missing; load the kernel module nvme-tcp on this node`;
      throw new SvcError("failed-precondition", message, { cause: error, fields: { errno: "" } });
    }
    try {
      const opened = await open(this.at(FABRICS), constants.O_RDWR);
      try {
        await opened.write(options);
        const { buffer, bytesRead } = await opened.read(Buffer.alloc(FABRICS_REPLY_BYTES));
        return buffer.toString("utf8", 0, bytesRead).trim();
      } finally {
        await opened.close();
      }
    } catch (error) {
      throw failure("connect through the fabrics device", error);
    }
  }

  /** Those that have been started and have not ended. */
  readonly #programs = new Set<Promise<unknown>>();

  /** Waits for the programs that run, but no longer than this: a mkfs that is cut off has to be made again. */
  async settled(limitMs: number): Promise<void> {
    const done = new AbortController();
    const all = Promise.all(this.#programs).finally(() => done.abort());
    await Promise.race([all, systemClock.sleep(limitMs, done.signal).catch(() => {})]);
  }

  async run(program: string, args: readonly string[], timeoutMs: number): Promise<ProgramResult> {
    const running = execa(program, args, {
      reject: false,
      timeout: timeoutMs,
      stdin: "ignore",
      env: { LC_ALL: "C" },
    });
    this.#programs.add(running);
    void running.finally(() => this.#programs.delete(running));
    // A program that waits in the kernel cannot be ended before the kernel lets it go, and then it is ended at once.
    const ended = new AbortController();
    const late = systemClock.sleep(timeoutMs + this.#killedMs, ended.signal).then(
      () => null,
      () => null, // it has ended
    );
    const result = await Promise.race([running, late]);
    ended.abort();
    if (result === null) {
      const stderr = `did not end after ${timeoutMs} ms, and cannot be ended: it waits in the kernel`;
      return { code: null, stdout: "", stderr };
    }
    const stderr = result.timedOut ? `ended after ${timeoutMs} ms` : result.stderr;
    const cannotStart = result.exitCode === undefined ? (result.message ?? "") : "";
    return {
      code: result.exitCode ?? null,
      stdout: result.stdout,
      stderr: stderr === "" ? cannotStart : stderr,
    };
  }
}
