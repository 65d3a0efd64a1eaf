/**
 * A node for tests: the plugin's own file code on a temporary tree, with a kernel and programs that act on that tree:
 * the fabrics device makes and removes sysfs entries, mount and umount keep /proc/self/mountinfo, mkfs remembers what
 * it made. What is on a volume outlives its connection, as on real storage.
 * Only tests import this.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { ManualClock } from "#common/clock.ts";
import { VolumeGuard } from "#common/csi/guard.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { NQN_PREFIX } from "#common/nqn.ts";
import { volumeOfName } from "#common/types/publication.ts";
import type { NodeContext } from "../context.ts";
import { LinuxSystem, type PathKind, type ProgramResult } from "../system.ts";
import type { ReadVolume } from "../whereabouts.ts";

type FakeMount = {
  readonly at: string;
  readonly number: string;
  root: string;
  readonly fsType: string;
  readonly source: string;
  options: string[];
};

const volumeOfNqn = (nqn: string): string => volumeOfName(nqn.replace(`${NQN_PREFIX}:`, ""));
const OK: ProgramResult = { code: 0, stdout: "", stderr: "" };
const failed = (stderr: string, code = 32): ProgramResult => ({ code, stdout: "", stderr });

export class FakeSystem extends LinuxSystem {
  readonly root: string;
  /** Lines that the fabrics device got. */
  readonly connects: string[] = [];
  readonly programs: string[] = [];
  /** By volume uuid: the file system on it; `xfs-unfinished` is what a mkfs.xfs that was cut short leaves. */
  readonly contents = new Map<string, string>();
  /** Errno of the next connection attempts. */
  connectError: string | null = null;
  /** Addresses where nothing listens. */
  readonly silent = new Set<string>();
  /** Addresses of targets that have no namespace. */
  readonly empty = new Set<string>();
  /** Program name -> what it answers instead. */
  readonly failures = new Map<string, ProgramResult>();
  /** Called between a successful connection and its answer. */
  onConnect: () => void = () => {};
  /** Called before a program runs. */
  onRun: (program: string) => Promise<void> = async () => {};
  /** Device nodes that somebody out of sight has exclusively. */
  readonly claimed = new Set<string>();
  /** Device nodes that are something else: a plain file of that name. */
  readonly bogusNodes = new Set<string>();
  /** Paths where an xfs that has shut itself down is mounted; one whose device is gone has done so too. */
  readonly shutDown = new Set<string>();
  /** Devices give errors instead of data. */
  readFails = false;
  #mounts: FakeMount[] = [];
  #next = 0;
  readonly #controllers = new Map<string, { nqn: string; device: string }>();

  constructor(t: { after(callback: () => void): void }) {
    const root = mkdtempSync(path.join(os.tmpdir(), "csi-node-test-"));
    super(root);
    this.root = root;
    t.after(() => rmSync(root, { recursive: true, force: true }));
    this.put("/dev/nvme-fabrics", "");
    this.#writeMounts();
  }

  /** The next run of a program waits until it is released. */
  holdUp(program: string): { readonly started: Promise<void>; readonly release: () => void } {
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const started = new Promise<void>((resolve) => {
      this.onRun = async (name) => {
        if (name !== program) return;
        this.onRun = async () => {};
        resolve();
        await released;
      };
    });
    return { started, release };
  }

  put(file: string, text: string): void {
    mkdirSync(path.dirname(this.at(file)), { recursive: true });
    writeFileSync(this.at(file), text);
  }

  folder(name: string): void {
    mkdirSync(this.at(name), { recursive: true });
  }

  drop(name: string): void {
    rmSync(this.at(name), { recursive: true, force: true });
  }

  get mounts(): readonly { readonly at: string; readonly options: readonly string[] }[] {
    return this.#mounts.map(({ at, options }) => ({ at, options }));
  }

  get controllers(): string[] {
    return [...this.#controllers.keys()];
  }

  #writeMounts(): void {
    const lines = this.#mounts.map(
      (m, index) =>
        `${index + 30} 1 ${m.number} ${m.root} ${m.at} ${m.options.join(",")} shared:1 - ${m.fsType} ${m.source} rw`,
    );
    this.put("/proc/self/mountinfo", `${lines.join("\n")}\n`);
  }

  override async connectFabrics(line: string): Promise<string> {
    this.connects.push(line);
    if (this.connectError !== null) {
      const message = `Cannot connect through the fabrics device: ${this.connectError}`;
      throw new SvcError("internal", message, { fields: { errno: this.connectError } });
    }
    const options = new Map(line.split(",").map((pair) => pair.split("=", 2) as [string, string]));
    const nqn = options.get("nqn") ?? "";
    if (this.silent.has(options.get("traddr") ?? "")) {
      throw new SvcError("internal", "Cannot connect", { fields: { errno: "ECONNREFUSED" } });
    }
    const index = this.#next++;
    const known = [...this.#controllers.values()].find((one) => one.nqn === nqn)?.device;
    const device = known ?? `nvme${index}n1`;
    const name = `nvme${index}`;
    this.#controllers.set(name, { nqn, device });
    const put = (attribute: string, text: string) =>
      this.put(`/sys/class/nvme/${name}/${attribute}`, `${text}\n`);
    put("subsysnqn", nqn);
    put("state", "live");
    put("address", `traddr=${options.get("traddr")},trsvcid=${options.get("trsvcid")}`);
    put("hostnqn", options.get("hostnqn") ?? "");
    put("hostid", options.get("hostid") ?? "");
    put("delete_controller", "");
    if (this.empty.has(options.get("traddr") ?? "")) return `instance=${index},cntlid=1`;
    put(`${device.replace("n1", `c${index}n1`)}/queue/io_timeout`, "30000");
    this.put(`/sys/class/nvme-subsystem/nvme-subsys-${device}/subsysnqn`, `${nqn}\n`);
    this.folder(`/sys/class/nvme-subsystem/nvme-subsys-${device}/${device}`);
    this.put(`/sys/block/${device}/dev`, `259:${device.slice(4, -2)}\n`);
    this.put(`/sys/block/${device}/size`, "204800\n");
    this.put(`/sys/block/${device}/wwid`, `uuid.${volumeOfNqn(nqn)}\n`);
    this.put(`/dev/${device}`, "x".repeat(16));
    this.onConnect();
    return `instance=${index},cntlid=1`;
  }

  /** The kernel gives up a connection; the last one takes the device along. */
  removeController(name: string): void {
    const gone = this.#controllers.get(name);
    if (!gone) return;
    this.#controllers.delete(name);
    this.drop(`/sys/class/nvme/${name}`);
    if ([...this.#controllers.values()].some((one) => one.device === gone.device)) return;
    for (const at of [
      `/sys/class/nvme-subsystem/nvme-subsys-${gone.device}`,
      `/sys/block/${gone.device}`,
    ]) {
      this.drop(at);
    }
    this.drop(`/dev/${gone.device}`);
    // As the kernel shows a bind mount of a file that was removed.
    for (const mount of this.#mounts) {
      if (mount.root === `/${gone.device}`) mount.root += "//deleted";
    }
    this.#writeMounts();
  }

  override async kind(name: string): Promise<PathKind | null> {
    const mount = this.#mounts.findLast(({ at }) => at === name);
    const isLost = mount?.fsType === "xfs" && !existsSync(this.at(mount.source));
    if (this.shutDown.has(name) || isLost) {
      throw new SvcError("internal", `Cannot look at ${name}: EIO`, { fields: { errno: "EIO" } });
    }
    return await super.kind(name);
  }

  override async writeText(file: string, text: string): Promise<void> {
    await super.writeText(file, text);
    const controller = /^\/sys\/class\/nvme\/(nvme\d+)\/delete_controller$/.exec(file)?.[1];
    if (controller !== undefined) this.removeController(controller);
  }

  override async blockNumber(node: string): Promise<string | null> {
    if (this.bogusNodes.has(node) || (await this.kind(node)) === null) return null;
    return await this.readText(`/sys/block/${path.basename(node)}/dev`);
  }

  override async isClaimed(node: string): Promise<boolean> {
    return this.claimed.has(node);
  }

  override async readStart(device: string, bytes: number): Promise<Buffer> {
    if (this.readFails) throw new SvcError("internal", `Cannot read ${device}: EIO`);
    const start = Buffer.alloc(bytes);
    const type = this.contents.get(this.#uuidOf(device));
    if (type === "ext4") start.writeUInt16LE(0xef53, 1024 + 56);
    if (type?.startsWith("xfs")) start.write("XFSB", 0);
    if (type === "xfs-unfinished") start.writeUInt8(1, 126);
    if (type === "btrfs") start.write("_BHRfS_M", 0x10040);
    return start;
  }

  #uuidOf(node: string): string {
    const device = path.basename(node);
    const nqn = [...this.#controllers.values()].find((one) => one.device === device)?.nqn;
    return volumeOfNqn(nqn ?? "");
  }

  override async run(program: string, args: readonly string[]): Promise<ProgramResult> {
    this.programs.push([program, ...args].join(" "));
    await this.onRun(program);
    const failure = this.failures.get(program);
    if (failure) return failure;
    const last = args.at(-1) ?? "";
    if (program === "blkid") {
      const type = this.contents.get(this.#uuidOf(last));
      return type
        ? { ...OK, stdout: `DEVNAME=${last}\nTYPE=${type.split("-")[0]}` }
        : failed("", 2);
    }
    if (program.startsWith("mkfs.")) {
      this.contents.set(this.#uuidOf(last), program.slice(5));
      return OK;
    }
    if (program === "mount") return this.#mount(args);
    if (program === "umount") {
      const index = this.#mounts.findLastIndex((one) => one.at === last);
      if (index < 0) return failed("not mounted");
      this.#mounts.splice(index, 1);
      this.#writeMounts();
    }
    return OK;
  }

  #mount(args: readonly string[]): ProgramResult {
    const [source = "", at = ""] = args.slice(-2);
    const given = args[args.indexOf("-o") + 1] ?? "";
    const flags = args.includes("-o") ? given.split(",") : [];
    if (flags[0] === "remount") {
      const mount = this.#mounts.findLast((one) => one.at === at);
      if (!mount) return failed("not mounted");
      const own = flags.filter((flag) => flag !== "remount" && flag !== "bind");
      const other = own.includes("ro") ? "rw" : own.includes("rw") ? "ro" : "";
      mount.options = [...new Set([...mount.options.filter((flag) => flag !== other), ...own])];
    } else if (args[0] === "--bind" && source.startsWith("/dev/")) {
      const root = `/${path.basename(source)}`;
      this.#mounts.push({
        at,
        root,
        number: "0:5",
        fsType: "devtmpfs",
        source: "devtmpfs",
        options: ["rw"],
      });
    } else if (args[0] === "--bind") {
      const from = this.#mounts.findLast((one) => one.at === source);
      if (!from) return failed(`${source} is not a mount`);
      this.#mounts.push({ ...from, at, options: [...from.options] }); // a bind mount is born with the flags
    } else {
      if (this.contents.get(this.#uuidOf(source)) === "xfs-unfinished") {
        return failed("Structure needs cleaning");
      }
      const minor = path.basename(source).slice(4, -2);
      const number = args[1] === "btrfs" ? `0:4${minor}` : `259:${minor}`; // btrfs: an anonymous one
      const options = flags.includes("ro") ? flags : ["rw", ...flags];
      this.#mounts.push({ at, number, root: "/", fsType: args[1] ?? "", source, options });
    }
    this.#writeMounts();
    return OK;
  }

  /** Another file system's mount. */
  addMount(mount: Partial<FakeMount> & { at: string }): void {
    this.folder(mount.at);
    this.#mounts.push({
      number: "8:1",
      root: "/",
      fsType: "ext4",
      source: "/dev/sda1",
      options: ["rw"],
      ...mount,
    });
    this.#writeMounts();
  }

  /** Power loss: connections and mounts are gone, what is stored stays. */
  reboot(): void {
    for (const name of this.controllers) this.removeController(name);
    this.#mounts = [];
    this.#writeMounts();
  }
}

/** Time passes by itself: a poll is over as soon as it starts. */
export class QuickClock extends ManualClock {
  override async sleep(ms: number): Promise<void> {
    await super.advance(ms);
  }
}

export const MACHINE = "4c4c4544-0032-4a10-8036-b9c04f4c4d32";

export function fakeParts(
  system: FakeSystem,
  readVolume: ReadVolume | null = null,
): {
  context: NodeContext;
  guard: VolumeGuard;
  nodeSegments: Record<string, string>;
} {
  const context: NodeContext = {
    system,
    clock: new QuickClock(),
    log: silentLog,
    nodeName: "worker-1",
    machineId: MACHINE,
    detourFolder: "/tmp/detour",
    readVolume,
    defaults: { nrIoQueues: 4, ctrlLossTmo: 1980, keepAliveTmo: null },
  };
  return { context, guard: new VolumeGuard(), nodeSegments: { "openebs.io/csi-node": "mayastor" } };
}
