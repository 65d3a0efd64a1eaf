/**
 * Debian's stock kernel for the test VM: downloaded as a package, never installed; the ELF image taken
 * out of the bzImage (QEMU boots it through PVH, which saves the guest-side decompression), and the few
 * modules that a storage test wants. Kept in a cache folder outside the checkout, named by version.
 * So is the guest's first program, a busybox that needs no library: the package conflicts with the busybox
 * that an installed Debian has, and taking that one's place would change the machine.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { zstdDecompressSync } from "node:zlib";

/** What the guest may load later with modprobe. */
const WANTED = [
  "nvme-tcp",
  "nvme-fabrics",
  "ext4",
  "xfs",
  "btrfs",
  "crc32c_generic",
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

function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache");
  return path.join(base, "mayastor", "vm");
}

function sh(command: string, args: readonly string[], cwd?: string): string {
  return execFileSync(command, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 26,
  });
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

const APT = ["-qq", "-o", "Acquire::Retries=3"];

/** What Debian's mirrors have of it; the lists of packages are fetched first where they lack it. */
function kernelPackage(): string {
  const find = () => {
    try {
      return /Depends: (linux-image-\S+)/.exec(
        sh("apt-cache", ["depends", "linux-image-amd64"]),
      )?.[1];
    } catch {
      return undefined; // apt-cache knows no such package: the same as none found
    }
  };
  const found = find();
  if (found !== undefined) return found;
  sh("apt-get", [...APT, "update"]);
  const name = find();
  if (name === undefined)
    throw new Error(
      "Cannot find the package linux-image-amd64: the guest boots Debian's kernel, and apt's sources have none",
    );
  return name;
}

/** Downloads a package into `folder` and unpacks it to `tree`. */
function unpackPackage(name: string, folder: string, tree: string): void {
  const into = path.join(folder, `${name}.deb`);
  mkdirSync(into);
  chmodSync(into, 0o777); // apt downloads as its own user
  try {
    sh("apt-get", [...APT, "download", name], into);
  } catch {
    sh("apt-get", [...APT, "update"]); // lists of an older mirror name what is no longer there
    sh("apt-get", [...APT, "download", name], into);
  }
  const deb = readdirSync(into).find((file) => file.endsWith(".deb"));
  if (!deb) throw new Error(`apt-get download ${name} gave no package`);
  sh("dpkg-deb", ["-x", path.join(into, deb), tree]);
  rmSync(into, { recursive: true });
}

/** Makes the kernel, module layer and initramfs if the cache does not have them yet. */
export function prepareKernel(): GuestKernel {
  const name = kernelPackage();
  const version = name.replace("linux-image-", "");
  const init = readFileSync(path.join(import.meta.dirname, "guest_init.sh"));
  const folder = path.join(cacheFolder(), version);
  const kernel: GuestKernel = {
    version,
    vmlinux: path.join(folder, "vmlinux"),
    initrd: path.join(folder, "initrd.cpio"),
    layer: path.join(folder, "layer"),
  };
  const done = path.join(folder, "init.done");
  const made = `${init}# busybox-static\n`; // another way of making it: another text
  if (existsSync(done) && readFileSync(done, "utf8") === made) return kernel;

  const work = path.join(cacheFolder(), `${version}.new`);
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  const tree = path.join(work, "tree");
  unpackPackage(name, work, tree);
  unpackPackage("busybox-static", work, tree);
  const busybox = path.join(tree, "bin", "busybox");
  if (!isStaticProgram(readFileSync(busybox)))
    throw new Error("Cannot make the guest's initramfs: busybox-static's busybox needs libraries");
  writeFileSync(
    path.join(work, "vmlinux"),
    extractVmlinux(readFileSync(path.join(tree, "boot", `vmlinuz-${version}`))),
  );

  sh("depmod", ["-b", tree, version]);
  const from = path.join(tree, "lib", "modules", version);
  const to = path.join(work, "layer", "usr", "lib", "modules", version);
  const modulesDep = readFileSync(path.join(from, "modules.dep"), "utf8");
  mkdirSync(to, { recursive: true });
  for (const link of ["lib"]) sh("ln", ["-s", `usr/${link}`, path.join(work, "layer", link)]);
  for (const file of withDependencies(modulesDep, [...WANTED, ...BOOT])) {
    mkdirSync(path.dirname(path.join(to, file)), { recursive: true });
    cpSync(path.join(from, file), path.join(to, file));
  }
  for (const file of ["modules.builtin", "modules.builtin.modinfo", "modules.order"])
    cpSync(path.join(from, file), path.join(to, file));
  sh("depmod", ["-b", path.join(work, "layer"), version]);

  const root = path.join(work, "initramfs");
  for (const dir of ["bin", "dev", "proc", "sys", "m/host", "m/kernel", "m/rw", "new", "mod"])
    mkdirSync(path.join(root, dir), { recursive: true });
  cpSync(busybox, path.join(root, "bin", "busybox"));
  const list: string[] = [];
  for (const file of withDependencies(modulesDep, BOOT)) {
    const target = `/mod/${path.basename(file)}`;
    cpSync(path.join(from, file), path.join(root, target));
    list.push(target);
  }
  writeFileSync(path.join(root, "modules"), `${list.join("\n")}\n`);
  writeFileSync(path.join(root, "init"), init);
  chmodSync(path.join(root, "init"), 0o755);
  sh("bash", ["-c", `find . | ./bin/busybox cpio -o -H newc > ../initrd.cpio 2>/dev/null`], root);

  rmSync(tree, { recursive: true });
  rmSync(root, { recursive: true });
  writeFileSync(path.join(work, "init.done"), made);
  rmSync(folder, { recursive: true, force: true });
  renameSync(work, folder);
  return kernel;
}
