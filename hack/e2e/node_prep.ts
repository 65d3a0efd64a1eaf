/**
 * Step: scripts/node-prep over ssh, as an operator runs it: applied, applied again with nothing left to do, taken back.
 *
 * Why this machine and not kind's nodes: they are containers without an sshd, and the kernel that is prepared is this
 * machine's.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { execa } from "execa";
import { connects, freePort, writeSshFiles } from "../../test/support/ssh_node.ts";
import { until } from "../cluster/local.ts";

const MAIN = path.resolve(import.meta.dirname, "../../scripts/node-prep/main.ts");
/** Few: kind's nodes share this machine's memory with everything else. */
const HUGEPAGES = 64;

/** Where node-prep finds its node. */
export interface Reach {
  /** For --host. */
  readonly host: string;
  /** A file for ssh. */
  readonly sshConfig: string;
}

/** An sshd of this user's own on loopback, which lets nobody else in. */
export class OwnSshd implements Reach {
  readonly host: string;
  readonly sshConfig: string;
  readonly #base: string;
  readonly #child: ChildProcess;

  private constructor(from: {
    host: string;
    sshConfig: string;
    base: string;
    child: ChildProcess;
  }) {
    this.host = from.host;
    this.sshConfig = from.sshConfig;
    this.#base = from.base;
    this.#child = from.child;
  }

  /** @throws when there is no /usr/sbin/sshd, or it does not start */
  static async start(): Promise<OwnSshd> {
    const base = mkdtempSync(path.join(os.tmpdir(), "mayastor-sshd-"));
    const port = await freePort();
    const folder = path.join(base, "server");
    const sshConfig = writeSshFiles({ ...{ base, folder, seenAs: folder, port }, more: [] });
    const argv = ["-D", "-e", "-f", path.join(folder, "sshd_config")];
    const child = spawn("/usr/sbin/sshd", argv, { stdio: ["ignore", "ignore", "inherit"] });
    child.once("error", () => {}); // seen below: nobody listens
    const host = `${os.userInfo().username}@127.0.0.1:${port}`;
    const sshd = new OwnSshd({ host, sshConfig, base, child });
    try {
      await until("sshd", () => connects(port), { seconds: 20 });
    } catch (error) {
      await sshd.stop();
      throw error;
    }
    return sshd;
  }

  async stop(): Promise<void> {
    const { exitCode, signalCode, pid } = this.#child;
    if (exitCode === null && signalCode === null && pid !== undefined) {
      const gone = new Promise((resolve) => this.#child.once("exit", resolve));
      this.#child.kill();
      await gone;
    }
    rmSync(this.#base, { recursive: true, force: true });
  }
}

async function nodePrep({ host, sshConfig }: Reach, args: readonly string[]): Promise<string> {
  const words = ["--import", "tsx", MAIN, `--host=${host}`, `--ssh-config=${sshConfig}`, ...args];
  const { exitCode, stdout, stderr } = await execa(process.execPath, words, { reject: false });
  assert.equal(exitCode, 0, `node-prep ${args.join(" ")}:\n${stdout}\n${stderr}`);
  return `${stdout}\n${stderr}`;
}

/** A dry run, the preparation, and once more. @throws when the node is not ready or the second run changes something */
export async function prepare(reach: Reach, log: (line: string) => void): Promise<void> {
  const wanted = [`--hugepages=${HUGEPAGES}`];
  log(await nodePrep(reach, wanted));
  log(await nodePrep(reach, [...wanted, "--apply"]));
  const again = await nodePrep(reach, [...wanted, "--apply"]);
  assert.doesNotMatch(again, /^[^\n]*: changed \S+$/m, `a second run changes nothing:\n${again}`);
}

/** What was there before prepare(). */
export async function undo(reach: Reach): Promise<void> {
  await nodePrep(reach, ["--undo", "--apply"]);
}
