/**
 * What is measured: a raw file, a replica and two nexuses, served by io-engines of their own.
 * The engines run without control plane and without etcd, so nothing else uses the machine.
 * Invariant: close() leaves no process and no file.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync } from "node:fs";
import path from "node:path";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { NexusRpc } from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { ReplicaRpc } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { callsOn, openChannel } from "#common/rpc/grpc.ts";
import { freeAddresses, until } from "../../hack/cluster/local.ts";
import { ProcessTable } from "../../hack/cluster/process.ts";

const root = path.resolve(import.meta.dirname, "..", "..");
const MIB = 1024 * 1024;
/** A replica is this much larger than the volume: labels before and after the data. */
const REPLICA_EXTRA_MIB = 8;
const POOL_EXTRA_MIB = 96;

export interface Target {
  readonly name: string;
  readonly uri: string;
  /** Names of the engines that do the work. */
  readonly engines: readonly string[];
}

export interface RigOptions {
  readonly folder: string;
  readonly volumeMiB: number;
  readonly poll: boolean;
}

interface Engine {
  readonly name: string;
  readonly address: string;
  readonly rpc: ReturnType<typeof connect>;
}

function connect(address: string) {
  const channel = openChannel(`${address}:10124`);
  const settings = { deadlineMs: 60_000 };
  return {
    pools: callsOn(channel, PoolRpc, settings),
    replicas: callsOn(channel, ReplicaRpc, settings),
    nexuses: callsOn(channel, NexusRpc, settings),
    close: () => channel.close(),
  };
}

const uuid = (kind: number, index: number): string =>
  `b0000000-0000-4000-8000-${String(kind).padStart(6, "0")}${String(index).padStart(6, "0")}`;

function makeFile(file: string, bytes: number): void {
  const fd = openSync(file, "w");
  ftruncateSync(fd, bytes);
  closeSync(fd);
}

export class Rig {
  readonly targets: Target[] = [];
  readonly #options: RigOptions;
  readonly #processes: ProcessTable;
  readonly #engines: Engine[] = [];

  private constructor(options: RigOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true });
    this.#processes = new ProcessTable(options.folder);
  }

  static async start(options: RigOptions): Promise<Rig> {
    const rig = new Rig(options);
    try {
      await rig.#build();
    } catch (error) {
      const logs = rig.#processes.names.map((n) => `${n}: ${rig.#processes.logTail(n, 5)}`);
      await rig.close();
      throw new Error(`Cannot build the bench rig\n${logs.join("\n")}`, { cause: error });
    }
    return rig;
  }

  pids(names: readonly string[]): number[] {
    return names.flatMap((name) => this.#processes.pid(name) ?? []);
  }

  async close(): Promise<void> {
    for (const engine of this.#engines) engine.rpc.close();
    await this.#processes.endAll("SIGTERM");
    rmSync(this.#options.folder, { recursive: true, force: true });
  }

  async #build(): Promise<void> {
    const { folder, volumeMiB } = this.#options;
    const raw = path.join(folder, "raw.img");
    makeFile(raw, volumeMiB * MIB);
    this.targets.push({ name: "raw file", uri: `uring://${raw}`, engines: [] });
    const addresses = await freeAddresses(3, 20);
    await Promise.all(addresses.map((address, i) => this.#startEngine(i, address)));
    const [first, ...others] = this.#engines.toSorted((a, b) => a.name.localeCompare(b.name));
    if (first === undefined) throw new Error("no engine");

    // Three sets of replicas: each target has data of its own.
    const local = await this.#replica(first, 1, false);
    const alone = await this.#replica(first, 2, true);
    const mirrored = await this.#replica(first, 3, false);
    const remote: string[] = [];
    for (const engine of others) remote.push(await this.#replica(engine, 3, true));

    this.targets.push({ name: "replica over TCP", uri: alone, engines: [first.name] });
    this.targets.push({
      name: "nexus, 1 local child",
      uri: await this.#nexus(first, 1, [local]),
      engines: [first.name],
    });
    this.targets.push({
      name: "nexus, 3 children",
      uri: await this.#nexus(first, 2, [mirrored, ...remote]),
      engines: this.#engines.map((engine) => engine.name),
    });
  }

  async #startEngine(index: number, address: string): Promise<void> {
    const name = `engine-${index + 1}`;
    const core = String(index % navigator.hardwareConcurrency);
    const args = ["-N", name, "-g", `${address}:10124`, "-l", core];
    if (this.#options.poll) args.push("--poll");
    this.#processes.start(
      name,
      [process.execPath, "--import", "tsx", "engine/ts/main.ts", ...args],
      { cwd: root, env: { MY_POD_IP: address } },
    );
    const rpc = connect(address);
    this.#engines.push({ name, address, rpc });
    await until(
      `${name} answers`,
      async () => {
        if (!this.#processes.isAlive(name)) {
          throw new Error(`it has ended: ${this.#processes.logTail(name)}`);
        }
        return await rpc.pools.listPools({});
      },
      { seconds: 60 },
    );
    const file = path.join(this.#options.folder, `${name}.img`);
    const sets = index === 0 ? 3 : 1;
    const replicaMiB = this.#options.volumeMiB + REPLICA_EXTRA_MIB;
    makeFile(file, (sets * replicaMiB + POOL_EXTRA_MIB) * MIB);
    await rpc.pools.createPool({ name: `pool-${name}`, disks: [`uring://${file}`] });
  }

  async #replica(engine: Engine, set: number, share: boolean): Promise<string> {
    const id = uuid(set, Number(engine.name.slice(-1)));
    const replica = await engine.rpc.replicas.createReplica({
      name: id,
      uuid: id,
      pooluuid: `pool-${engine.name}`,
      size: BigInt((this.#options.volumeMiB + REPLICA_EXTRA_MIB) * MIB),
      thin: false,
      share: share ? ShareProtocol.NVMF : ShareProtocol.NONE,
    });
    return replica.uri;
  }

  async #nexus(engine: Engine, set: number, children: readonly string[]): Promise<string> {
    const id = uuid(100 + set, 0);
    await engine.rpc.nexuses.createNexus({
      name: id,
      uuid: id,
      size: BigInt(this.#options.volumeMiB * MIB),
      minCntlId: 1,
      maxCntlId: 0xffef,
      children: [...children],
    });
    const published = await engine.rpc.nexuses.publishNexus({
      uuid: id,
      key: "",
      share: ShareProtocol.NVMF,
    });
    const uri = published.nexus?.deviceUri ?? "";
    if (uri === "") throw new Error(`Cannot publish nexus ${id}: it has no device URI`);
    return uri;
  }
}
