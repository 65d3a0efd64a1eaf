/**
 * One io-engine process for a test: started on its own loopback address with the published default
 * ports, ended with the test. Its log is kept for the message when something goes wrong.
 * Invariants: ready() resolves only once the engine serves calls; close() leaves no process behind.
 */
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { BdevRpc } from "#common/proto/generated/mayastor/v1/bdev_pb.ts";
import { HostRpc } from "#common/proto/generated/mayastor/v1/host_pb.ts";
import { NexusRpc } from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { ReplicaRpc } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { StatsRpc } from "#common/proto/generated/mayastor/v1/stats_pb.ts";
import { callsOn, openChannel } from "#common/rpc/grpc.ts";

const root = path.resolve(import.meta.dirname, "..", "..");
const CALL_MS = 60_000;

export type EngineSettings = {
  readonly name: string;
  /** A loopback address of its own: 127.x.y.z. */
  readonly address: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
};

export class EngineProcess {
  readonly settings: EngineSettings;
  readonly log: string[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<number>;
  readonly #channel;
  readonly pool;
  readonly replica;
  readonly nexus;
  readonly bdev;
  readonly host;
  readonly stats;

  constructor(settings: EngineSettings) {
    this.settings = settings;
    const own = ["-g", `${settings.address}:10124`, "-N", settings.name, "-l", "0"];
    const args = ["--import", "tsx", "engine/ts/main.ts", ...own, ...(settings.args ?? [])];
    const env = { ...process.env, MY_POD_IP: settings.address, ...settings.env };
    const child = spawn(process.execPath, args, {
      cwd: root,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.log.push(line));
    }
    this.#exited = new Promise((resolve) =>
      child.once("close", (code, signal) => resolve(code ?? (signal === "SIGKILL" ? 137 : 128))),
    );
    this.#channel = openChannel(`${settings.address}:10124`);
    const calls = { deadlineMs: CALL_MS };
    this.pool = callsOn(this.#channel, PoolRpc, calls);
    this.replica = callsOn(this.#channel, ReplicaRpc, calls);
    this.nexus = callsOn(this.#channel, NexusRpc, calls);
    this.bdev = callsOn(this.#channel, BdevRpc, calls);
    this.host = callsOn(this.#channel, HostRpc, calls);
    this.stats = callsOn(this.#channel, StatsRpc, calls);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Starts an engine and waits until it serves; @throws with its log when it ends instead. */
  static async start(settings: EngineSettings): Promise<EngineProcess> {
    const engine = new EngineProcess(settings);
    const ended = engine.#exited.then((code) => {
      throw new Error(`io-engine ${settings.name} ended with ${code}:\n${engine.log.join("\n")}`);
    });
    const lines = engine.#child.stdout;
    const serving = new Promise<void>((resolve) => {
      lines?.on("data", () => {
        if (engine.log.some((line) => line.includes('"msg":"serving"'))) resolve();
      });
    });
    ended.catch(() => {}); // after the race it is only an exit
    await Promise.race([serving, ended]);
    return engine;
  }

  /** SIGTERM, then its exit code. */
  async stop(): Promise<number> {
    this.#child.kill("SIGTERM");
    return await this.#leave();
  }

  /** SIGKILL: a crash. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#leave();
  }

  async #leave(): Promise<number> {
    const code = await this.#exited;
    this.#channel.close();
    return code;
  }
}
