import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { ensure } from "./filesystem.ts";
import { parseMountinfo } from "./mounts.ts";
import { chooseHostId } from "./nvme.ts";
import { parseEndpoint, parseSeconds } from "./options.ts";
import { LinuxSystem } from "./system.ts";
import { parseNvmfUri } from "./uri.ts";

test("parseNvmfUri() reads address, port, NQN and hosts, and refuses what would smuggle options", () => {
  const nqn = "nqn.2019-05.io.openebs:ec4e66fb-3b33-4439-b504-d49aba53da26";
  assert.deepEqual(parseNvmfUri(`nvmf://[fd00::1]:4421/${nqn}?hostnqn=${nqn}`), {
    ...{ address: "fd00::1", port: 4421, nqn },
    hostNqns: [nqn],
  });
  assert.equal(parseNvmfUri(`nvmf://h/${nqn}`).port, 4420);
  for (const bad of [
    "",
    "x",
    `iscsi://h/${nqn}`,
    `nvmf:///${nqn}`,
    "nvmf://h/",
    `nvmf://h/${nqn},hostid=0`,
    `nvmf://h/${nqn}%zz`,
    `nvmf://h/${nqn}%ff`,
    `nvmf://h/${nqn}?hostnqn=${nqn}%2Cx`,
  ]) {
    assert.throws(() => parseNvmfUri(bad), { kind: "invalid-argument" }, bad);
  }
});

test("parseMountinfo() reads paths with blanks and skips what is no mount", () => {
  const text = `36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
garbage
37 35 0:5 /nvme0n1 /t rw - devtmpfs udev rw`;
  const [first, second, ...rest] = parseMountinfo(text);
  assert.equal(first?.path, "/mnt 2");
  assert.deepEqual(first?.options, ["rw", "noatime"]);
  assert.deepEqual([second?.fsType, second?.root, rest.length], ["devtmpfs", "/nvme0n1", 0]);
});

test("chooseHostId() never pairs an id with two host NQNs", () => {
  const machineId = "4c4c4544-0032-4a10-8036-b9c04f4c4d32";
  const used = "11111111-2222-4333-8444-555555555555";
  const wish = { hostNqn: "nqn.a", machineId };
  assert.equal(chooseHostId(wish, []), machineId);
  assert.equal(chooseHostId(wish, [{ hostNqn: "nqn.a", hostId: used }]), used);
  const derived = chooseHostId(wish, [{ hostNqn: "nqn.b", hostId: machineId }]);
  assert.match(derived, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(
    derived,
    chooseHostId({ ...wish, hostNqn: "nqn.c" }, [{ hostNqn: "nqn.b", hostId: machineId }]),
  );
});

test("options take seconds with and without unit, and endpoints with and without port", () => {
  assert.deepEqual(["30", "30s", "1m", "1500ms"].map(parseSeconds), [30, 30, 60, 2]);
  assert.equal(parseEndpoint("10.1.0.5"), "10.1.0.5:50051");
  assert.equal(parseEndpoint("[::]:10199"), "[::]:10199");
  for (const bad of ["", "a:b", "h:99999"]) {
    assert.throws(() => parseEndpoint(bad), { kind: "invalid-argument" }, bad);
  }
});

test("LinuxSystem's time limit holds for a program that does not end, and its end is waited for", async () => {
  const system = new LinuxSystem("", { killedMs: 200 });
  // What it leaves behind holds its output, so that it does not end with its process.
  const { code, stderr } = await system.run("sh", ["-c", "sleep 3 & wait"], 100);
  assert.equal(code, null);
  assert.match(stderr, /did not end after 100 ms, and cannot be ended/);
  const quick = new LinuxSystem();
  let isDone = false;
  const running = quick.run("sleep", ["0.3"], 10_000).then(() => {
    isDone = true;
  });
  await quick.settled(10_000);
  await running;
  assert.ok(isDone);
  const slow = quick.run("sleep", ["1"], 10_000);
  await quick.settled(10);
  assert.equal((await slow).code, 0, "nobody has ended it");
});

test("LinuxSystem runs programs without a shell and reports why one cannot run", async () => {
  const system = new LinuxSystem();
  assert.deepEqual(await system.run("echo", ["$HOME; x"], 10_000), {
    code: 0,
    stdout: "$HOME; x",
    stderr: "",
  });
  assert.equal((await system.run("false", [], 10_000)).code, 1);
  const missing = await system.run("no-such-program", [], 10_000);
  assert.equal(missing.code, null);
  assert.match(missing.stderr, /ENOENT/);
  const slow = await system.run("sleep", ["20"], 50);
  assert.equal(slow.code, null);
  assert.match(slow.stderr, /ended after 50 ms/);
});

test("LinuxSystem tells a device from a file of that name, and reads all that is asked for or fails", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-system-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const system = new LinuxSystem();
  const file = path.join(folder, "nvme0n1");
  writeFileSync(file, "0123456789");
  assert.equal(await system.blockNumber(file), null);
  assert.equal(await system.blockNumber(path.join(folder, "absent")), null);
  for (const disk of readdirSync("/sys/block").slice(0, 3)) {
    const number = readFileSync(`/sys/block/${disk}/dev`, "utf8").trim();
    const node = `/dev/${disk.replaceAll("!", "/")}`;
    if (existsSync(node)) assert.equal(await system.blockNumber(node), number, node);
  }
  assert.equal((await system.readStart(file, 10)).toString(), "0123456789");
  await assert.rejects(system.readStart(file, 11), /it ends after 10 bytes/);
  assert.equal(await system.isClaimed(path.join(folder, "absent")), false);
});

test("LinuxSystem names the absent and refuses to make a sysfs file", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-system-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const system = new LinuxSystem();
  const absent = path.join(folder, "absent");
  assert.deepEqual(
    [await system.readText(absent), await system.list(absent), await system.kind(absent)],
    [null, [], null],
  );
  await assert.rejects(system.writeText(absent, "1"), { fields: { errno: "ENOENT" } });
  assert.equal(await system.kind(absent), null);
  const { bytesTotal, bytesAvailable } = await system.space(folder);
  assert.ok(bytesTotal >= bytesAvailable);
});

test("LinuxSystem sees that a file system mounted in another namespace holds its device", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-claim-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const image = path.join(folder, "image");
  writeFileSync(image, "");
  truncateSync(image, 16 * 1024 * 1024);
  if (spawnSync("mkfs.ext4", ["-q", image]).status !== 0) return t.skip("needs mkfs.ext4");
  const attached = spawnSync("losetup", ["--find", "--show", image], { encoding: "utf8" });
  const device = attached.stdout?.trim() ?? "";
  if (attached.status !== 0) return t.skip(`needs a loop device: ${attached.stderr}`);
  t.after(() => spawnSync("losetup", ["--detach", device]));
  const system = new LinuxSystem();
  assert.equal(await system.isClaimed(device), false);
  const script = `mount -t ext4 ${device} ${folder} && echo mounted && read -r end`;
  const holder = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", script]);
  t.after(() => holder.kill("SIGKILL"));
  const said = await Promise.race([once(holder.stdout, "data"), once(holder, "exit")]);
  if (!String(said[0]).includes("mounted")) return t.skip("needs the right to mount");
  assert.equal(
    parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).some(
      ({ source }) => source === device,
    ),
    false,
  );
  assert.equal(await system.isClaimed(device), true);
  holder.stdin.end();
  await once(holder, "exit");
});

test("ensure() makes an xfs again that the real mkfs.xfs left unfinished, and keeps every other one", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-xfs-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const node = path.join(folder, "image");
  writeFileSync(node, "");
  truncateSync(node, 320 * 1024 * 1024); // sparse: mkfs.xfs wants 300 MiB
  const device = { name: "image", node, number: "0:0", bytes: 320n * 1024n * 1024n };
  const system = new LinuxSystem();
  if ((await system.run("mkfs.xfs", ["-V"], 10_000)).code !== 0) return t.skip("needs mkfs.xfs");
  const xfsDb = (command: string) =>
    spawnSync("xfs_db", ["-x", "-c", "sb 0", "-c", command, node], { encoding: "utf8" }).stdout;
  assert.equal(await ensure(system, device, "xfs"), "made");
  const uuid = xfsDb("print uuid");
  assert.match(uuid, /^uuid = [0-9a-f-]{36}$/m);
  assert.equal(await ensure(system, device, "xfs"), "kept");
  assert.equal(xfsDb("print uuid"), uuid);
  // As a mkfs.xfs that is killed leaves it: with a checksum that is right.
  assert.match(xfsDb("write inprogress 1"), /inprogress = 1/);
  assert.equal(await ensure(system, device, "xfs"), "made");
  assert.match(xfsDb("print inprogress"), /inprogress = 0/);
  assert.notEqual(xfsDb("print uuid"), uuid);
});
