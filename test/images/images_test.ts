/**
 * The container images themselves: built from this checkout, unpacked, and their programs run as a container runtime
 * would run them.
 */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { after, before, test } from "node:test";
import { execa } from "execa";
import { writeSecrets } from "../../hack/images/machine.ts";
import { type BuiltImage, buildImages } from "../../hack/images/main.ts";
import { PROGRAMS } from "../../hack/images/programs.ts";
import { buildClusterImages } from "../../hack/images/thirdparty.ts";
import { type UnpackedImage, unpackArchive } from "../../hack/images/unpack.ts";
import { runInImage } from "../support/chroot.ts";

const UNPRIVILEGED = "65532:65532";
const ON_NODES = ["csi-node", "io-engine"];
/** Beyond it something that does not belong there got in. */
const UNPACKED_BYTES_MAX = 160e6;
const CHECKOUT = path.resolve(import.meta.dirname, "../..");

let folder = "";
let built: readonly BuiltImage[] = [];
const unpacked = new Map<string, UnpackedImage>();

function image(name: string): UnpackedImage {
  const found = unpacked.get(name);
  assert.ok(found, `${name} was built and unpacked`);
  return found;
}

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "mayastor-images-"));
  built = await buildImages({ log: (line) => console.log(line) });
  for (const archive of new Set(built.map((one) => one.archive))) {
    for (const one of await unpackArchive(archive, path.join(folder, "own"))) {
      const name = built.find(({ reference }) => reference === one.reference)?.name;
      if (name !== undefined) unpacked.set(name, one);
    }
  }
});

after(async () => {
  await rm(folder, { recursive: true, force: true });
});

test("buildImages makes one image per program, for this machine", () => {
  assert.deepEqual([...unpacked.keys()].sort(), PROGRAMS.map(({ name }) => name).sort());
  for (const { config } of unpacked.values()) {
    assert.equal(config.os, "linux");
    assert.equal(config.architecture, process.arch === "x64" ? "amd64" : process.arch);
  }
});

for (const { name } of PROGRAMS) {
  test(`${name} starts as the image's user on a read-only root`, async () => {
    const { config } = image(name).config;
    assert.equal(config.User, ON_NODES.includes(name) ? "0:0" : UNPRIVILEGED);
    assert.deepEqual(config.Entrypoint, [name]); // the charts also call it by this name
    let bestMs = Number.POSITIVE_INFINITY;
    for (let run = 0; run < 3; run++) {
      const start = performance.now();
      const { exitCode, all } = await runInImage(image(name), { args: ["--help"] });
      bestMs = Math.min(bestMs, performance.now() - start);
      assert.equal(exitCode, 0, String(all));
      assert.match(String(all), new RegExp(`(^|\\s)${name}\\b`, "m"));
    }
    const { stdout } = await execa("du", ["-sb", image(name).rootfs]);
    const bytes = Number(stdout.split("\t")[0]);
    console.log(
      `${name}: ${(bytes / 1e6).toFixed(1)} MB unpacked, --help in ${bestMs.toFixed(0)} ms`,
    );
    assert.ok(bytes < UNPACKED_BYTES_MAX, `${bytes} bytes`);
  });

  test(`${name} runs the pinned Node and has neither shell nor package manager`, async () => {
    const { stdout } = await runInImage(image(name), { command: ["/usr/bin/node", "--version"] });
    assert.equal(stdout, process.version);
    const programs = await readdir(path.join(image(name).rootfs, "usr/bin"));
    for (const left of ["sh", "bash", "dash", "apt", "dpkg", "npm"]) {
      assert.ok(!programs.includes(left), left);
    }
  });

  test(`${name} keeps nothing of the machine that built it`, async () => {
    const { configText, layerFiles, rootfs } = image(name);
    for (const file of layerFiles) {
      assert.doesNotMatch(file, /(^|\/)(\.npmrc|npmrc|ca\.pem|apt\.conf|sources\.list)$/);
    }
    const secrets = await writeSecrets(folder, { apt: true });
    const patterns = [CHECKOUT, path.join(os.homedir(), ".cache")];
    for (const id of ["npmrc", "apt.conf", "sources.list"]) {
      const file = secrets.get(id);
      assert.ok(file, id);
      const lines = (await readFile(file, "utf8")).split("\n");
      patterns.push(...lines.filter((line) => line.length > 8));
    }
    const registry = /^registry\s*=\s*https?:\/\/([^/\s]+)/m.exec(patterns.join("\n"))?.[1];
    if (registry !== undefined) patterns.push(registry);
    const list = path.join(folder, "patterns");
    await writeFile(list, `${patterns.join("\n")}\n`);
    const { stdout } = await execa("grep", ["-rlF", "-f", list, rootfs], { reject: false });
    assert.equal(stdout, "", "files that name the machine");
    for (const pattern of patterns) assert.ok(!configText.includes(pattern), pattern);
  });

  test(`${name} has no program that changes its user, and no file open to all`, async () => {
    const find = async (...what: string[]) =>
      (await execa("find", [image(name).rootfs, "-xdev", ...what])).stdout;
    assert.equal(await find("-type", "f", "-perm", "/6000"), "");
    assert.equal(await find("-not", "-type", "l", "-perm", "/002", "-not", "-name", "tmp"), "");
  });
}

test("csi-node makes, checks and names every file system it offers", async () => {
  const { rootfs } = image("csi-node");
  const disk = path.join(rootfs, "disk");
  const run = async (...command: string[]) => {
    const { exitCode, all } = await runInImage(image("csi-node"), { command, devices: true });
    assert.equal(exitCode, 0, `${command.join(" ")}: ${all}`);
    return String(all);
  };
  // The root is read-only for them: a disk is a device node there.
  for (const type of ["ext4", "xfs", "btrfs"]) {
    await writeFile(disk, "");
    await truncate(disk, 400 * 2 ** 20);
    const { stdout: device } = await execa("losetup", ["--find", "--show", disk]);
    try {
      await run(`mkfs.${type}`, device);
      assert.match(
        await run("blkid", "-p", "-o", "export", device),
        new RegExp(`^TYPE=${type}$`, "m"),
      );
      if (type === "ext4") await run("fsck.ext4", "-p", device);
    } finally {
      await execa("losetup", ["--detach", device]);
      await rm(disk);
    }
  }
  for (const program of ["mount", "umount", "fsfreeze"]) await run(program, "--version");
});

test("io-engine loads its native part, serves and stops cleanly", async () => {
  const address = "127.91.7.1";
  const running = runInImage(image("io-engine"), {
    args: [`-g${address}:10124`, "-Nimage-test", "-l0"],
    devices: true,
  });
  let output = "";
  const serving = new Promise<void>((resolve) => {
    running.all?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('"serving"')) resolve();
    });
  });
  await Promise.race([serving, running]);
  assert.match(output, /"serving"/, output);
  running.kill("SIGTERM");
  const { exitCode } = await running;
  assert.equal(exitCode, 0, output);
  assert.match(output, /"stopped"/);
});

test("stand-ins of other images start", async () => {
  const images = await buildClusterImages();
  const expected: Readonly<Record<string, readonly string[]>> = {
    busybox: ["sh", "-c", "nc -h 2>&1 | grep -- -z && date && sleep 0"],
    etcd: ["etcd", "--version"],
    fio: ["fio", "--version"],
  };
  for (const { name, archive } of images) {
    const [one] = await unpackArchive(archive, path.join(folder, name));
    assert.ok(one);
    const command = expected[name];
    if (command !== undefined) {
      const { exitCode, all } = await runInImage(one, { command });
      assert.equal(exitCode, 0, `${name}: ${all}`);
      continue;
    }
    const pause = runInImage(one, { timeoutMs: 300 }); // ended by SIGTERM, as a pod is
    const { exitCode, all } = await pause;
    assert.equal(exitCode, 0, `${name}: ${all}`);
  }
});
