/**
 * Debian's stock kernels for the test VM: downloaded as packages, never installed; the ELF image taken
 * out of the bzImage (QEMU boots it through PVH, which saves the guest-side decompression), and the few
 * modules that a storage test wants. Kept in a cache folder outside the checkout, named by version.
 * So is the guest's first program, a busybox that needs no library: the package conflicts with the busybox
 * that an installed Debian has, and taking that one's place would change the machine.
 *
 * Two kernels: the oldest that hosts of volumes may have, and the newest that Debian has packages of. Which
 * version a suite has is looked up by fetch.ts, and written down: the tests themselves have no network.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { dependencies, openSuite, type Suite, sh, unpackPackage, update } from "./apt.ts";

/** Debian's suites by their code names, in which the kernels are looked for. */
const SUITES = { oldest: "bookworm", newest: "sid" } as const;
export type KernelChoice = keyof typeof SUITES;

/** Which kernel a test's guest boots: MAYASTOR_GUEST_KERNEL, or the oldest. */
export function chosenKernel(): KernelChoice {
  const choice = process.env["MAYASTOR_GUEST_KERNEL"] ?? "oldest";
  if (choice !== "oldest" && choice !== "newest")
    throw new Error(`MAYASTOR_GUEST_KERNEL is ${choice}: it may be oldest or newest`);
  return choice;
}

/** What the guest may load later with modprobe. */
const WANTED = [
  "nvme-tcp",
  "nvme-fabrics",
  "ext4",
  "xfs",
  "btrfs",
  "crc32c_generic", // none in newer kernels: a library there
  "crc32c-intel",
];
/** What it needs before it has a root. */
const BOOT = [
  "virtio_pci",
  "virtio_console",
  "9pnet_virtio",
  "9p",
  "overlay",
  "virtio_net",
  "virtio_rng",
];

export interface GuestKernel {
  readonly version: string;
  readonly vmlinux: string;
  readonly initrd: string;
  readonly layer: string;
}

export function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache");
  return path.join(base, "mayastor", "vm");
}

/** The ELF image inside an x86 bzImage (Linux boot protocol: setup_sects, payload_offset, payload_length). */
export function extractVmlinux(bzImage: Buffer): Buffer {
  if (bzImage.toString("latin1", 0x202, 0x206) !== "HdrS")
    throw new Error("Not a bzImage: no HdrS signature");
  const setupSects = bzImage[0x1f1] || 4;
  const payloadOffset = bzImage.readUInt32LE(0x248);
  const payloadLength = bzImage.readUInt32LE(0x24c);
  const start = (setupSects + 1) * 512 + payloadOffset;
  // The last four bytes are the uncompressed size, not part of the stream.
  const payload = bzImage.subarray(start, start + payloadLength - 4);
  if (payload.readUInt32BE(0) === 0x28b52ffd) return zstdDecompressSync(payload);
  if (payload.readUInt32BE(0) === 0xfd377a58) {
    return execFileSync("xz", ["-dc"], { input: payload, maxBuffer: 1 << 28 });
  }
  throw new Error(`Unknown kernel compression: payload starts ${payload.toString("hex", 0, 4)}`);
}

/** Module files (relative to the modules folder) of `names` with all they depend on, in load order. */
function withDependencies(modulesDep: string, names: readonly string[]): string[] {
  const deps = new Map<string, string[]>();
  for (const line of modulesDep.split("\n")) {
    const [file, rest] = line.split(":");
    if (file) deps.set(file, (rest ?? "").trim().split(" ").filter(Boolean));
  }
  const order: string[] = [];
  const add = (file: string) => {
    if (order.includes(file)) return;
    for (const dep of deps.get(file) ?? []) add(dep);
    if (!order.includes(file)) order.push(file);
  };
  for (const name of names) {
    const pattern = new RegExp(`/${name.replace(/[-_]/g, "[-_]")}\\.ko(\\.xz)?$`);
    const file = [...deps.keys()].find((candidate) => pattern.test(candidate));
    if (file) add(file); // not found: built in
  }
  return order;
}

const PT_INTERP = 3;

/** Whether a 64-bit little-endian ELF program starts without a loader, and so without any library. */
export function isStaticProgram(elf: Buffer): boolean {
  if (elf.toString("latin1", 0, 4) !== "\x7fELF" || elf[4] !== 2 || elf[5] !== 1)
    throw new Error("Not a 64-bit little-endian ELF program");
  const [offset, size, count] = [
    Number(elf.readBigUInt64LE(0x20)),
    elf.readUInt16LE(0x36),
    elf.readUInt16LE(0x38),
  ];
  return Array.from({ length: count }, (_, index) => elf.readUInt32LE(offset + index * size)).every(
    (type) => type !== PT_INTERP,
  );
}

/** What is known of a suite's kernel: the version and its packages, or why there is none. */
interface Found {
  readonly version: string;
  readonly packages: readonly string[];
}
type Known = Found | { readonly missing: string };

const knownFile = (choice: KernelChoice) => path.join(cacheFolder(), `${choice}.json`);

function known(choice: KernelChoice): Known | null {
  const file = knownFile(choice);
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Known) : null; // written below
}

function remember(choice: KernelChoice, found: Known): void {
  mkdirSync(cacheFolder(), { recursive: true });
  const file = knownFile(choice);
  writeFileSync(`${file}.${process.pid}`, `${JSON.stringify(found)}\n`);
  renameSync(`${file}.${process.pid}`, file);
}

const suiteOf = (choice: KernelChoice): Suite =>
  openSuite(SUITES[choice], path.join(cacheFolder(), "apt", SUITES[choice]));

/** The packages of a kernel image: itself, or in newer suites those it is split into. */
export function imagePackages(image: string, itsDependencies: readonly string[]): string[] {
  const version = image.replace("linux-image-", "");
  const parts = ["base", "binary", "modules"].map((part) => `linux-${part}-${version}`);
  return parts.every((part) => itsDependencies.includes(part)) ? parts : [image];
}

/** Looks up what the mirror has now. @throws when it has none, or cannot be reached. */
function lookUp(suite: Suite): Found {
  const find = () =>
    dependencies(suite, "linux-image-amd64").find((name) => name.startsWith("linux-image-"));
  // The machine's own lists are its own to refresh; another suite's are here for this alone.
  let image = suite.options.length === 0 ? find() : undefined;
  if (image === undefined) {
    update(suite);
    image = find();
  }
  if (image === undefined)
    throw new Error(
      `Cannot find the package linux-image-amd64 in Debian's ${suite.name}: the guest boots Debian's kernel, and the mirror of apt's sources has none`,
    );
  return {
    version: image.replace("linux-image-", ""),
    packages: imagePackages(image, dependencies(suite, image)),
  };
}

const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim().split("\n").slice(-2).join(" ");

/**
 * Looks up and downloads a kernel, for tests to come that have no network. One that was had before serves when the
 * mirror cannot be reached. @returns null when there is none; then missingKernel() says why.
 */
export function fetchKernel(choice: KernelChoice): GuestKernel | null {
  const before = known(choice);
  try {
    const found = lookUp(suiteOf(choice));
    const kernel = makeKernel(choice, found);
    remember(choice, found);
    forgetOldKernels();
    return kernel;
  } catch (error) {
    const reason = reasonOf(error);
    if (before !== null && "version" in before && isMade(before.version)) {
      console.error(`the ${choice} kernel is ${before.version}, had before; now: ${reason}`);
      return kernelOf(before.version);
    }
    remember(choice, { missing: reason });
    return null;
  }
}

/** Why the chosen kernel's tests cannot run here; false when they can. */
export function missingKernel(choice: KernelChoice = chosenKernel()): string | false {
  try {
    prepareKernel(choice);
    return false;
  } catch (error) {
    return `there is no ${choice} kernel of Debian (${SUITES[choice]}) to boot: ${reasonOf(error)}`;
  }
}

/** The chosen kernel, fetched where it was not yet. */
export function prepareKernel(choice: KernelChoice = chosenKernel()): GuestKernel {
  const before = known(choice);
  if (before !== null && "missing" in before) throw new Error(before.missing);
  const found = before ?? lookUp(suiteOf(choice));
  const kernel = makeKernel(choice, found);
  if (before === null) remember(choice, found);
  return kernel;
}

const KEEP_DAYS = 30;

/** Kernels that no test has booted for a month go: newer ones took their place. */
function forgetOldKernels(): void {
  for (const name of readdirSync(cacheFolder())) {
    const done = path.join(cacheFolder(), name, "init.done");
    if (!existsSync(done)) continue;
    if (Date.now() - statSync(done).mtimeMs > KEEP_DAYS * 86_400_000)
      rmSync(path.join(cacheFolder(), name), { recursive: true });
  }
}

function kernelOf(version: string): GuestKernel {
  const folder = path.join(cacheFolder(), version);
  return {
    version,
    vmlinux: path.join(folder, "vmlinux"),
    initrd: path.join(folder, "initrd.cpio"),
    layer: path.join(folder, "layer"),
  };
}

const initScript = () => readFileSync(path.join(import.meta.dirname, "guest_init.sh"));
/** Another way of making it: another text. */
const madeFrom = () => `${initScript()}# busybox-static\n`;

function isMade(version: string): boolean {
  const done = path.join(cacheFolder(), version, "init.done");
  if (!existsSync(done) || readFileSync(done, "utf8") !== madeFrom()) return false;
  utimesSync(done, new Date(), new Date());
  return true;
}

/** A module's file as the guest gets it: plain, since unpacking is slow in there. */
function copyModule(from: string, to: string): void {
  mkdirSync(path.dirname(to), { recursive: true });
  if (from.endsWith(".xz"))
    writeFileSync(to, execFileSync("xz", ["-dc", from], { maxBuffer: 1 << 28 }));
  else cpSync(from, to);
}
const plainName = (file: string) => file.replace(/\.xz$/, "");

/** Makes the kernel, module layer and initramfs if the cache does not have them yet. */
function makeKernel(choice: KernelChoice, found: Found): GuestKernel {
  if (isMade(found.version)) return kernelOf(found.version);
  mkdirSync(cacheFolder(), { recursive: true });
  const work = mkdtempSync(path.join(cacheFolder(), `${found.version}.new-`));
  try {
    makeIn(work, suiteOf(choice), found);
    const folder = path.join(cacheFolder(), found.version);
    rmSync(folder, { recursive: true, force: true });
    renameSync(work, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return kernelOf(found.version);
}

function makeIn(work: string, suite: Suite, { version, packages }: Found): void {
  chmodSync(work, 0o755); // apt downloads as its own user
  const tree = path.join(work, "tree");
  for (const folder of ["usr/bin", "usr/sbin", "usr/lib"])
    mkdirSync(path.join(tree, folder), { recursive: true });
  for (const link of ["bin", "sbin", "lib"]) symlinkSync(`usr/${link}`, path.join(tree, link));
  for (const name of packages) unpackPackage(suite, name, work, tree);
  unpackPackage({ name: "this machine's", options: [] }, "busybox-static", work, tree);
  const busybox = path.join(tree, "bin", "busybox");
  if (!isStaticProgram(readFileSync(busybox)))
    throw new Error("Cannot make the guest's initramfs: busybox-static's busybox needs libraries");
  const from = path.join(tree, "lib", "modules", version);
  const image = [path.join(tree, "boot", `vmlinuz-${version}`), path.join(from, "vmlinuz")].find(
    (file) => existsSync(file),
  );
  if (image === undefined)
    throw new Error(`Cannot boot ${version}: ${packages.join(", ")} have no image`);
  writeFileSync(path.join(work, "vmlinux"), extractVmlinux(readFileSync(image)));

  sh("depmod", ["-b", tree, version]);
  const to = path.join(work, "layer", "usr", "lib", "modules", version);
  const modulesDep = readFileSync(path.join(from, "modules.dep"), "utf8");
  mkdirSync(to, { recursive: true });
  symlinkSync("usr/lib", path.join(work, "layer", "lib"));
  for (const file of withDependencies(modulesDep, [...WANTED, ...BOOT]))
    copyModule(path.join(from, file), path.join(to, plainName(file)));
  for (const file of ["modules.builtin", "modules.builtin.modinfo", "modules.order"])
    cpSync(path.join(from, file), path.join(to, file));
  sh("depmod", ["-b", path.join(work, "layer"), version]);

  const root = path.join(work, "initramfs");
  for (const dir of ["bin", "dev", "proc", "sys", "m/host", "m/kernel", "m/rw", "new", "mod"])
    mkdirSync(path.join(root, dir), { recursive: true });
  cpSync(busybox, path.join(root, "bin", "busybox"));
  const list: string[] = [];
  for (const file of withDependencies(modulesDep, BOOT)) {
    const target = `/mod/${plainName(path.basename(file))}`;
    copyModule(path.join(from, file), path.join(root, target));
    list.push(target);
  }
  writeFileSync(path.join(root, "modules"), `${list.join("\n")}\n`);
  writeFileSync(path.join(root, "init"), initScript());
  chmodSync(path.join(root, "init"), 0o755);
  sh("bash", ["-c", `find . | ./bin/busybox cpio -o -H newc > ../initrd.cpio 2>/dev/null`], root);

  rmSync(tree, { recursive: true });
  rmSync(root, { recursive: true });
  writeFileSync(path.join(work, "init.done"), madeFrom());
}
