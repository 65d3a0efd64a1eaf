/**
 * The Linux NVMe over Fabrics initiator, driven through /dev/nvme-fabrics and sysfs.
 *
 * Invariants: a volume is found by the NQN of its subsystem, never by a device number, so that all paths of a
 * multipath device count as one; connecting where a connection exists is no error; what the kernel calls a device is
 * trusted only when its namespace carries the volume's uuid.
 */
import { createHash } from "node:crypto";
import type { Clock } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { NodeSystem } from "./system.ts";

const CONTROLLERS = "/sys/class/nvme";
const SUBSYSTEMS = "/sys/class/nvme-subsystem";
const NAMESPACE = /^nvme\d+n\d+$/;
const PATH = /^nvme\d+c\d+n\d+$/;

const DEVICE_POLL_MS = 100;
const DEVICE_POLLS = 100;
const GONE_POLLS = 100;

export type NvmeController = {
  readonly name: string;
  readonly nqn: string;
  readonly state: string;
  readonly address: string;
  readonly port: string;
  readonly hostNqn: string;
  readonly hostId: string;
};

export type NvmeDevice = {
  /** e.g. nvme0n1 */
  readonly name: string;
  /** e.g. /dev/nvme0n1 */
  readonly node: string;
  /** major:minor */
  readonly number: string;
  readonly bytes: bigint;
};

export type ConnectOptions = {
  readonly nqn: string;
  readonly address: string;
  readonly port: number;
  readonly hostNqn: string;
  readonly keepAliveTmo: number | null;
  readonly reconnectDelay: number | null;
  readonly ctrlLossTmo: number | null;
  readonly nrIoQueues: number | null;
};

async function readController(system: NodeSystem, name: string): Promise<NvmeController | null> {
  const read = async (attribute: string) =>
    (await system.readText(`${CONTROLLERS}/${name}/${attribute}`)) ?? "";
  const nqn = await read("subsysnqn");
  if (nqn === "") return null; // going away
  const address = await read("address");
  return {
    name,
    nqn,
    state: await read("state"),
    address: /(?:^|,)traddr=([^,]*)/.exec(address)?.[1] ?? "",
    port: /(?:^|,)trsvcid=([^,]*)/.exec(address)?.[1] ?? "",
    hostNqn: await read("hostnqn"),
    hostId: (await read("hostid")).toLowerCase(),
  };
}

export async function listControllers(system: NodeSystem): Promise<NvmeController[]> {
  const names = (await system.list(CONTROLLERS)).filter((name) => /^nvme\d+$/.test(name));
  const read = await Promise.all(names.map((name) => readController(system, name)));
  return read.filter((controller) => controller !== null);
}

export async function controllersOf(system: NodeSystem, nqn: string): Promise<NvmeController[]> {
  return (await listControllers(system)).filter((controller) => controller.nqn === nqn);
}

/** The names of all NVMe subsystems that the kernel has. */
export async function subsystemNqns(system: NodeSystem): Promise<string[]> {
  const names = new Set((await listControllers(system)).map(({ nqn }) => nqn));
  for (const subsystem of await system.list(SUBSYSTEMS)) {
    const nqn = await system.readText(`${SUBSYSTEMS}/${subsystem}/subsysnqn`);
    if (nqn !== null && nqn !== "") names.add(nqn);
  }
  return [...names];
}

async function readDevice(system: NodeSystem, name: string): Promise<NvmeDevice | null> {
  const number = await system.readText(`/sys/block/${name}/dev`);
  const sectors = await system.readText(`/sys/block/${name}/size`);
  const node = `/dev/${name}`;
  if (!number || !sectors || !/^[1-9]\d*$/.test(sectors)) return null; // no namespace behind it yet
  // A plain file of that name (something wrote to a device that was gone), or an older node, is not the volume.
  if ((await system.blockNumber(node)) !== number) return null;
  return { name, node, number, bytes: BigInt(sectors) * 512n };
}

/** Namespaces of a subsystem: the multipath heads, or those of its controllers when multipath is off. */
async function namespacesOf(system: NodeSystem, nqn: string): Promise<string[]> {
  for (const subsystem of await system.list(SUBSYSTEMS)) {
    if ((await system.readText(`${SUBSYSTEMS}/${subsystem}/subsysnqn`)) !== nqn) continue;
    const heads = (await system.list(`${SUBSYSTEMS}/${subsystem}`)).filter((n) =>
      NAMESPACE.test(n),
    );
    if (heads.length > 0) return heads;
  }
  const found = new Set<string>();
  for (const { name } of await controllersOf(system, nqn)) {
    for (const entry of await system.list(`${CONTROLLERS}/${name}`)) {
      if (NAMESPACE.test(entry)) found.add(entry);
    }
  }
  return [...found];
}

/** The block device of a volume; null while there is none. */
export async function findDevice(
  system: NodeSystem,
  { nqn, uuid }: { readonly nqn: string; readonly uuid: string },
): Promise<NvmeDevice | null> {
  for (const name of await namespacesOf(system, nqn)) {
    const wwid = await system.readText(`/sys/block/${name}/wwid`);
    if (wwid === null) continue;
    if (wwid.toLowerCase() !== `uuid.${uuid}`) {
      throw new SvcError(
        "internal",
        `Cannot use device ${name} of ${nqn}: it is namespace "${wwid}", not uuid.${uuid}`,
      );
    }
    const device = await readDevice(system, name);
    if (device !== null) return device;
  }
  return null;
}

/** A uuid made from two texts: the same for the same ones. */
function derivedUuid(...texts: readonly string[]): string {
  const hex = createHash("sha256").update(texts.join("\n")).digest("hex");
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 3) | 8).toString(16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}

/**
 * The host id that goes with a host NQN. Kernels refuse a known id with another NQN and the reverse, so what present
 * connections use decides; else it is the machine's own.
 */
export function chooseHostId(
  { hostNqn, machineId }: { readonly hostNqn: string; readonly machineId: string },
  present: readonly Pick<NvmeController, "hostNqn" | "hostId">[],
): string {
  const same = present.find((one) => one.hostNqn === hostNqn && one.hostId !== "");
  if (same) return same.hostId;
  const isTaken = present.some((one) => one.hostId === machineId);
  return isTaken ? derivedUuid(machineId, hostNqn) : machineId;
}

/** What is written to the fabrics device. */
export function fabricsOptions(options: ConnectOptions, hostId: string): string {
  const optional = [
    ["keep_alive_tmo", options.keepAliveTmo],
    ["reconnect_delay", options.reconnectDelay],
    ["ctrl_loss_tmo", options.ctrlLossTmo],
    ["nr_io_queues", options.nrIoQueues],
  ] as const;
  return [
    `nqn=${options.nqn}`,
    `hostnqn=${options.hostNqn}`,
    `hostid=${hostId}`,
    "transport=tcp",
    `traddr=${options.address}`,
    `trsvcid=${options.port}`,
    ...optional.flatMap(([name, value]) => (value === null ? [] : [`${name}=${value}`])),
  ].join(",");
}

/** The connection leads to this address. */
export function isAt(controller: NvmeController, { address, port }: ConnectOptions): boolean {
  return controller.address === address && controller.port === String(port);
}

/** Addresses that are being connected to now: the kernel shows their controllers before they are live. */
const connecting = new WeakMap<NodeSystem, Map<string, number>>();

const addressKey = ({ nqn, address, port }: ConnectOptions): string => `${nqn} ${address} ${port}`;

/** Does the work while nobody takes what it makes for a dead path. */
async function whileConnecting<T>(
  system: NodeSystem,
  options: ConnectOptions,
  work: () => Promise<T>,
): Promise<T> {
  const all = connecting.get(system) ?? new Map<string, number>();
  connecting.set(system, all);
  const key = addressKey(options);
  all.set(key, (all.get(key) ?? 0) + 1);
  try {
    return await work();
  } finally {
    const left = (all.get(key) ?? 1) - 1;
    if (left > 0) all.set(key, left);
    else all.delete(key);
  }
}

/**
 * Makes sure that there is a connection to this address; true when it was made now.
 * @throws {SvcError} `unavailable`, `failed-precondition` (no kernel module), `invalid-argument` (its options)
 */
export async function connect(
  system: NodeSystem,
  options: ConnectOptions,
  machineId: string,
): Promise<boolean> {
  const present = await listControllers(system);
  const mine = present.filter(({ nqn }) => nqn === options.nqn);
  if (mine.some((one) => isAt(one, options) && !one.state.startsWith("delet"))) return false;
  const hostId = chooseHostId({ hostNqn: options.hostNqn, machineId }, present);
  const line = fabricsOptions(options, hostId);
  try {
    await whileConnecting(system, options, () => system.connectFabrics(line));
    return true;
  } catch (error) {
    const errno = error instanceof SvcError ? error.fields["errno"] : undefined;
    if (errno === "EALREADY") return false;
    if (errno === "") throw error;
    if (errno === "EINVAL") {
      throw new SvcError(
        "invalid-argument",
        `Cannot connect: the kernel refuses these options, its log may say why: ${line}`,
        { cause: error },
      );
    }
    const where = `${options.address}:${options.port}`;
    throw new SvcError(
      "unavailable",
      `Cannot connect to ${options.nqn} at ${where}: ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

/** Some connection of the volume carries I/O: it is live, and its target says that the namespace is reachable there. */
export async function hasUsablePath(system: NodeSystem, nqn: string): Promise<boolean> {
  for (const { name, state } of await controllersOf(system, nqn)) {
    if (state !== "live") continue;
    const paths = (await system.list(`${CONTROLLERS}/${name}`)).filter(
      (entry) => PATH.test(entry) || NAMESPACE.test(entry),
    );
    for (const entry of paths) {
      // Absent without multipath or ANA: such a path is as good as its connection.
      const ana = await system.readText(`${CONTROLLERS}/${name}/${entry}/ana_state`);
      if (ana === null || ana === "optimized" || ana === "non-optimized") return true;
    }
  }
  return false;
}

/** @throws {SvcError} `unavailable` when no device appears in time */
export async function waitForDevice(
  system: NodeSystem,
  wanted: { readonly nqn: string; readonly uuid: string },
  clock: Clock,
): Promise<NvmeDevice> {
  for (let poll = 0; poll < DEVICE_POLLS; poll++) {
    const device = await findDevice(system, wanted);
    if (device !== null) return device;
    await clock.sleep(DEVICE_POLL_MS);
  }
  throw new SvcError(
    "unavailable",
    `Cannot attach volume ${wanted.uuid}: no block device for ${wanted.nqn} within ${(DEVICE_POLL_MS * DEVICE_POLLS) / 1000} s`,
  );
}

/** True once the namespace shows on the connection to this address; false when it does not in time. */
export async function waitForPath(
  system: NodeSystem,
  options: ConnectOptions,
  clock: Clock,
): Promise<boolean> {
  for (let poll = 0; poll < DEVICE_POLLS; poll++) {
    for (const one of await controllersOf(system, options.nqn)) {
      if (!isAt(one, options)) continue;
      const entries = await system.list(`${CONTROLLERS}/${one.name}`);
      if (entries.some((entry) => PATH.test(entry) || NAMESPACE.test(entry))) return true;
    }
    await clock.sleep(DEVICE_POLL_MS);
  }
  return false;
}

/** Sets how long the kernel waits for one I/O, on every path of the volume. */
export async function setIoTimeout(
  system: NodeSystem,
  { nqn, device, seconds }: { nqn: string; device: NvmeDevice; seconds: number },
): Promise<void> {
  const queues = [`/sys/block/${device.name}/queue`];
  for (const { name } of await controllersOf(system, nqn)) {
    for (const entry of await system.list(`${CONTROLLERS}/${name}`)) {
      if (PATH.test(entry)) queues.push(`${CONTROLLERS}/${name}/${entry}/queue`);
    }
  }
  for (const queue of queues) {
    // The head of a multipath device has no timeout of its own.
    if ((await system.readText(`${queue}/io_timeout`)) === null) continue;
    await system.writeText(`${queue}/io_timeout`, String(seconds * 1000));
  }
}

async function remove(system: NodeSystem, { name }: NvmeController): Promise<void> {
  try {
    await system.writeText(`${CONTROLLERS}/${name}/delete_controller`, "1");
  } catch (error) {
    if ((await system.readText(`${CONTROLLERS}/${name}/subsysnqn`)) !== null) throw error; // else: gone already
  }
}

/** Drops connections to former addresses of a volume that do not work any more; not those that are only being made. */
export async function dropDeadPaths(system: NodeSystem, options: ConnectOptions): Promise<void> {
  const all = await controllersOf(system, options.nqn);
  if (!all.some((one) => isAt(one, options) && one.state === "live")) return;
  for (const one of all) {
    if (isAt(one, options) || one.state === "live" || one.state === "new") continue;
    const isComing = [...(connecting.get(system)?.keys() ?? [])].some((key) => {
      const [nqn, address, port] = key.split(" ");
      return (
        nqn === options.nqn && isAt(one, { ...options, address: address ?? "", port: Number(port) })
      );
    });
    if (!isComing) await remove(system, one);
  }
}

/** Ends the volume's connection to one address. */
export async function dropPath(system: NodeSystem, options: ConnectOptions): Promise<void> {
  for (const one of await controllersOf(system, options.nqn)) {
    if (isAt(one, options)) await remove(system, one);
  }
}

/** Ends every connection of a volume. @throws {SvcError} `internal` when the kernel keeps one */
export async function disconnect(system: NodeSystem, nqn: string, clock: Clock): Promise<void> {
  for (const controller of await controllersOf(system, nqn)) await remove(system, controller);
  for (let poll = 0; poll < GONE_POLLS; poll++) {
    if ((await controllersOf(system, nqn)).length === 0) return;
    await clock.sleep(DEVICE_POLL_MS);
  }
  throw new SvcError("internal", `Cannot disconnect ${nqn}: the kernel keeps its controllers`);
}
