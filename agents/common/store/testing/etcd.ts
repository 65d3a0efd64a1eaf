/**
 * A real etcd for tests: Debian's server on free loopback ports with its own data folder.
 *
 * Invariant: stop() ends the process and removes its data; kill() and start() keep the data.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../clock.ts";
import { EtcdStore } from "../etcd.ts";

const BINARY = "/usr/bin/etcd";
const READY_MS_MAX = 30_000;
const READY_POLL_MS = 50;

/** Why a test cannot run, or false. */
export function etcdMissing(): string | false {
  try {
    accessSync(BINARY);
    return false;
  } catch {
    return `${BINARY} is not installed: apt-get install etcd-server`;
  }
}

export async function freePort(host = "127.0.0.1"): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, host, () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

export class EtcdServer {
  readonly endpoint: string;
  readonly #dataDir: string;
  readonly #peer: string;
  #process: ChildProcess | null = null;

  private constructor(clientPort: number, peerPort: number) {
    this.endpoint = `http://localhost:${clientPort}`;
    this.#peer = `http://localhost:${peerPort}`;
    this.#dataDir = mkdtempSync(join(tmpdir(), "mayastor-etcd-"));
  }

  static async create(): Promise<EtcdServer> {
    const server = new EtcdServer(await freePort(), await freePort());
    await server.start();
    return server;
  }

  async start(): Promise<void> {
    const args = [
      ["--data-dir", this.#dataDir],
      ["--listen-client-urls", this.endpoint.replace("localhost", "127.0.0.1")],
      ["--advertise-client-urls", this.endpoint],
      ["--listen-peer-urls", this.#peer.replace("localhost", "127.0.0.1")],
      ["--initial-advertise-peer-urls", this.#peer],
      ["--initial-cluster", `default=${this.#peer}`],
    ].flat();
    const process = spawn(BINARY, args, { stdio: "ignore" });
    this.#process = process;
    const probe = new EtcdStore({ endpoints: this.endpoint, timeoutMs: 1000 });
    const startMs = systemClock.monotonicMs();
    try {
      for (;;) {
        if (process.exitCode !== null) throw new Error(`etcd ended with code ${process.exitCode}`);
        try {
          await probe.get("ready");
          return;
        } catch (error) {
          if (systemClock.monotonicMs() - startMs > READY_MS_MAX) throw error;
          await systemClock.sleep(READY_POLL_MS);
        }
      }
    } finally {
      await probe.close();
    }
  }

  /** Ends the process at once, as a crash would. */
  async kill(): Promise<void> {
    const process = this.#process;
    if (!process || process.exitCode !== null || process.signalCode !== null) return;
    const ended = new Promise((resolve) => process.once("exit", resolve));
    process.kill("SIGKILL");
    await ended;
    this.#process = null;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#dataDir, { recursive: true, force: true });
  }
}
