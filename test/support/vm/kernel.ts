/**
 * Debian's stock kernel for the test VM: downloaded as a package, never installed; the ELF image taken
 * out of the bzImage (QEMU boots it through PVH, which saves the guest-side decompression), and the few
 * modules that a storage test wants. Kept in a cache folder outside the checkout, named by version.
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

/** Makes the kernel, module layer and initramfs if the cache does not have them yet. */
export function prepareKernel(): GuestKernel {
  const depends = sh("apt-cache", ["depends", "linux-image-amd64"]);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (!name) throw new Error("Cannot find Debian's kernel package: run apt-get update");
  const version = name.replace("linux-image-", "");
  const scripts = readFileSync(path.join(import.meta.dirname, "guest_init.sh"));
  const folder = path.join(cacheFolder(), version);
  const kernel: GuestKernel = {
    version,
    vmlinux: path.join(folder, "vmlinux"),
    initrd: path.join(folder, "initrd.cpio"),
    layer: path.join(folder, "layer"),
  };
  const done = path.join(folder, "init.done");
  if (existsSync(done) && readFileSync(done).equals(scripts)) return kernel;

  const work = path.join(cacheFolder(), `${version}.new`);
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  chmodSync(work, 0o777); // apt downloads as its own user
  sh("apt-get", ["-qq", "download", name], work);
  const deb = readdirSync(work).find((file) => file.endsWith(".deb"));
  if (!deb) throw new Error(`apt-get download ${name} gave no package`);
  const tree = path.join(work, "tree");
  sh("dpkg-deb", ["-x", path.join(work, deb), tree]);
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
  cpSync("/usr/bin/busybox", path.join(root, "bin", "busybox"));
  const list: string[] = [];
  for (const file of withDependencies(modulesDep, BOOT)) {
    const target = `/mod/${path.basename(file)}`;
    cpSync(path.join(from, file), path.join(root, target));
    list.push(target);
  }
  writeFileSync(path.join(root, "modules"), `${list.join("\n")}\n`);
  writeFileSync(path.join(root, "init"), scripts);
  chmodSync(path.join(root, "init"), 0o755);
  sh("bash", ["-c", `find . | busybox cpio -o -H newc > ../initrd.cpio 2>/dev/null`], root);

  rmSync(tree, { recursive: true });
  rmSync(root, { recursive: true });
  rmSync(path.join(work, deb));
  writeFileSync(path.join(work, "init.done"), scripts);
  rmSync(folder, { recursive: true, force: true });
  renameSync(work, folder);
  return kernel;
}
