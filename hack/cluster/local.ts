/**
 * A whole cluster on this machine: etcd, agent-core, api-rest and io-engines as processes of their own,
 * each engine on its own loopback address with the product's default ports and file-backed disks.
 * Why: the quickstart, the integration tests and the benches run the real programs, nothing less.
 * Invariants: everything lives in one folder; stop() leaves no process; a folder left by a killed run
 * can be cleared by clear().
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { claimFolder, isClaimed, ownFolder, removeOwn } from "./folder.ts";
import { ProcessTable } from "./process.ts";
import { RestClient } from "./rest.ts";

const root = path.resolve(import.meta.dirname, "..", "..");

export interface LocalClusterOptions {
  readonly folder: string;
  readonly engines: number;
  readonly diskMiB: number;
  /** Loopback addresses of the engines; free ones are picked when absent. */
  readonly addresses?: readonly string[];
  /** Where to look for free ports; the product's own when absent. */
  readonly firstPort?: number;
  /** More options for agent-core, e.g. shorter periods in tests. */
  readonly coreArgs?: readonly string[];
  /** More options for each io-engine. */
  readonly engineArgs?: readonly string[];
  readonly engineEnv?: Readonly<Record<string, string>>;
  /** Ends the calls to REST; start() and createPools() take their own. */
  readonly signal?: AbortSignal;
}

export interface EngineNode {
  readonly name: string;
  readonly address: string;
  readonly disk: string;
  readonly pool: string;
}

/** Can this address and port be listened on? */
function isFree(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen({ host: address, port, exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}

/** The first free port at or after `preferred` on 127.0.0.1. */
export async function freePort(preferred: number): Promise<number> {
  for (let port = preferred; port < preferred + 200; port++) {
    if (await isFree("127.0.0.1", port)) return port;
  }
  throw new Error(`No free port between ${preferred} and ${preferred + 200} on 127.0.0.1`);
}

/** Loopback addresses on which the product's ports are all free. */
export async function freeAddresses(count: number, from = 2): Promise<string[]> {
  const found: string[] = [];
  for (let last = from; last < 250 && found.length < count; last++) {
    const address = `127.0.0.${last}`;
    const free = await Promise.all([10124, 8420, 4421].map((port) => isFree(address, port)));
    if (free.every(Boolean)) found.push(address);
  }
  if (found.length < count)
    throw new Error("No loopback address has ports 10124, 8420 and 4421 free");
  return found;
}

/** Polls until `check` gives a value; the error tells what was waited for and what was seen last. */
export async function until<T>(
  what: string,
  check: () => Promise<T | null | undefined | false>,
  options: { seconds: number; everyMs?: number; signal?: AbortSignal | undefined } = {
    seconds: 30,
  },
): Promise<T> {
  const deadline = Date.now() + options.seconds * 1000;
  let last: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const value = await check();
      if (value !== null && value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      const seen = last instanceof Error ? `; last error: ${last.message}` : "";
      throw new Error(`Waited ${options.seconds} s for: ${what}${seen}`);
    }
    await sleep(options.everyMs ?? 100, undefined, { signal: options.signal });
  }
}

export class LocalCluster {
  readonly folder: string;
  readonly nodes: readonly EngineNode[];
  readonly rest: RestClient;
  readonly processes: ProcessTable;
  readonly etcdPort: number;
  readonly corePort: number;
  readonly #options: LocalClusterOptions;
  readonly #ports: { readonly peer: number; readonly https: number; readonly http: number };

  private constructor(
    options: LocalClusterOptions,
    nodes: readonly EngineNode[],
    ports: { etcd: number; peer: number; core: number; http: number; https: number },
  ) {
    this.folder = options.folder;
    this.#options = options;
    this.nodes = nodes;
    this.etcdPort = ports.etcd;
    this.corePort = ports.core;
    this.#ports = ports;
    this.rest = new RestClient(`http://127.0.0.1:${ports.http}`, options.signal);
    this.processes = new ProcessTable(options.folder);
  }

  /**
   * Ends what an earlier run in this folder left running and removes the folder; with `keepOthers` only the
   * cluster's own files, so that what somebody else put there meanwhile stays.
   * @throws before anything is touched, when no local cluster made the folder or others may write to it
   */
  static async clear(
    folder: string,
    { keepOthers = false }: { keepOthers?: boolean } = {},
  ): Promise<{ ended: string[]; kept: string[] }> {
    if (!existsSync(folder)) return { ended: [], kept: [] };
    ownFolder(folder);
    if (!isClaimed(folder) && readdirSync(folder).length > 0)
      throw new Error(
        `Cannot clear ${folder}: it is not empty and no local cluster made it; nothing was removed`,
      );
    const table = new ProcessTable(folder);
    const ended = table.names;
    await table.endAll("SIGKILL");
    if (keepOthers) return { ended, kept: removeOwn(folder) };
    rmSync(folder, { recursive: true, force: true });
    return { ended, kept: [] };
  }

  /**
   * Picks addresses and ports, makes the disks; nothing runs yet.
   * @throws when the folder holds something that no local cluster put there, or others may write to it
   */
  static async create(options: LocalClusterOptions): Promise<LocalCluster> {
    claimFolder(options.folder);
    mkdirSync(path.join(options.folder, "disks"), { recursive: true });
    const addresses = options.addresses ?? (await freeAddresses(options.engines));
    const nodes = addresses.slice(0, options.engines).map((address, index): EngineNode => {
      const disk = path.join(options.folder, "disks", `disk-${index + 1}.img`);
      const file = openSync(disk, "w");
      ftruncateSync(file, options.diskMiB * 1024 * 1024);
      closeSync(file);
      return { name: `node-${index + 1}`, address, disk, pool: `pool-${index + 1}` };
    });
    const { firstPort } = options;
    // Two clusters that start at the same moment look in different places.
    const etcd = await freePort(firstPort ?? 12379 + (process.pid % 1000) * 4);
    const peer = await freePort(etcd + 1);
    const core = await freePort(firstPort === undefined ? 50051 : peer + 1);
    const http = await freePort(firstPort === undefined ? 8081 : core + 1);
    const https = await freePort(http + 1);
    return new LocalCluster(options, nodes, { etcd, peer, core, http, https });
  }

  #start(name: string, command: readonly string[], env?: Record<string, string>): void {
    this.processes.start(name, command, { cwd: root, ...(env ? { env } : {}) });
  }

  #node(main: string, ...args: readonly string[]): string[] {
    return [process.execPath, main, ...args]; // Node 24 runs typed sources itself
  }

  /** I/O never enters JavaScript: a small heap is enough and keeps the engine's memory low. */
  #engine(...args: readonly string[]): string[] {
    const flags = ["--max-old-space-size=96", "--max-semi-space-size=2"];
    return [process.execPath, ...flags, "engine/ts/main.ts", ...args];
  }

  startEtcd(): void {
    const client = `http://127.0.0.1:${this.etcdPort}`;
    const peer = `http://127.0.0.1:${this.#ports.peer}`;
    this.#start("etcd", [
      "etcd",
      ...["--name", "local", "--data-dir", path.join(this.folder, "etcd")],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--initial-cluster", `local=${peer}`, "--logger", "zap", "--log-level", "warn"],
    ]);
  }

  startCore(): void {
    const args = ["-g", `127.0.0.1:${this.corePort}`, "-s", `http://localhost:${this.etcdPort}`];
    this.#start(
      "agent-core",
      this.#node("agents/core/main.ts", ...args, ...(this.#options.coreArgs ?? [])),
      {
        NOPLATFORM_UUID: "local",
      },
    );
  }

  startRest(): void {
    const args = [
      "--http",
      `127.0.0.1:${this.#ports.http}`,
      "--https",
      `127.0.0.1:${this.#ports.https}`,
    ];
    const core = ["-z", `http://127.0.0.1:${this.corePort}`, "--no-auth", "--dummy-certificates"];
    this.#start("api-rest", this.#node("agents/rest/main.ts", ...args, ...core));
  }

  /** `name`: of the process, where it is not the node's. */
  startEngine(node: EngineNode, name = node.name): void {
    const index = Math.max(0, this.nodes.indexOf(node));
    const cores = navigator.hardwareConcurrency;
    const args = [
      ...["-N", node.name, "-g", `${node.address}:10124`, "-l", String(index % cores)],
      ...["-R", `http://127.0.0.1:${this.corePort}`, "-p", `http://localhost:${this.etcdPort}`],
    ];
    this.#start(name, this.#engine(...args, ...(this.#options.engineArgs ?? [])), {
      MY_POD_IP: node.address,
      NEXUS_NVMF_ANA_ENABLE: "1",
      NEXUS_NVMF_RESV_ENABLE: "1",
      NOPLATFORM_UUID: "local",
      ...this.#options.engineEnv,
    });
  }

  /** Ends an engine: SIGKILL is a crash, SIGTERM a clean stop. */
  async endEngine(node: EngineNode, how: "SIGKILL" | "SIGTERM"): Promise<void> {
    await this.processes.end(node.name, how);
  }

  /** Starts everything and waits until every node is Online. */
  async start(signal?: AbortSignal): Promise<void> {
    this.startEtcd();
    await until(
      "etcd to listen",
      async () => {
        if (!this.processes.isAlive("etcd")) throw new Error("etcd has ended");
        return !(await isFree("127.0.0.1", this.etcdPort));
      },
      { seconds: 30, signal },
    ).catch((error: unknown) => {
      throw this.explain(error);
    });
    this.startCore();
    this.startRest();
    for (const node of this.nodes) this.startEngine(node);
    await this.untilNodesOnline(60, signal);
  }

  async untilNodesOnline(seconds: number, signal?: AbortSignal): Promise<void> {
    try {
      await until(
        "every node Online",
        async () => {
          const dead = ["etcd", "agent-core", "api-rest", ...this.nodes.map((n) => n.name)].find(
            (name) => !this.processes.isAlive(name),
          );
          if (dead) throw new Error(`${dead} has ended`);
          const online = (await this.rest.nodes()).filter(
            (node) => node.state?.status === "Online",
          );
          return online.length === this.nodes.length;
        },
        { seconds, signal },
      );
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** The error with the last words of every program that has ended. */
  explain(error: unknown): Error {
    const names = ["etcd", "agent-core", "api-rest", ...this.nodes.map((node) => node.name)];
    const ended = names.filter(
      (name) => !this.processes.isAlive(name) && existsSync(this.processes.logFile(name)),
    );
    const text = ended.map(
      (name) => `--- ${name} has ended; its last words:\n${this.processes.logTail(name)}`,
    );
    const message = error instanceof Error ? error.message : String(error);
    if (this.processes.isAlive("agent-core")) {
      text.push(`--- agent-core's last words:\n${this.processes.logTail("agent-core", 12)}`);
    }
    return new Error([message, ...text, `Logs: ${path.join(this.folder, "log")}`].join("\n"), {
      cause: error,
    });
  }

  /** A pool on every node's disk; returns when all are Online. */
  async createPools(signal?: AbortSignal): Promise<void> {
    await Promise.all(
      this.nodes.map((node) => this.rest.createPool(node.name, node.pool, `aio://${node.disk}`)),
    );
    await until(
      "every pool Online",
      async () => {
        const online = (await this.rest.pools()).filter((pool) => pool.state?.status === "Online");
        return online.length === this.nodes.length;
      },
      { seconds: 30, signal },
    );
  }

  /** Ends everything; keeps the folder. */
  async stop(how: NodeJS.Signals = "SIGTERM"): Promise<void> {
    // Engines first: their clean stop writes to etcd. Then the agents, etcd last.
    await Promise.all(this.nodes.map((node) => this.processes.end(node.name, how)));
    await this.processes.end("api-rest", how);
    await this.processes.end("agent-core", how);
    await this.processes.endAll(how);
  }

  /** Resident memory (bytes) and CPU time (seconds) of a program, from /proc. */
  usage(name: string): { rssBytes: number; cpuSeconds: number } | null {
    const pid = this.processes.pid(name);
    if (pid === null) return null;
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]); // utime + stime, 100 a second on Linux
    return {
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024,
      cpuSeconds: ticks / 100,
    };
  }
}
