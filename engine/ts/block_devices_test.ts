import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { listBlockDevices, parseMountinfo, parseUdev, type Roots } from "./block_devices.ts";

const folder = await mkdtemp(join(tmpdir(), "mayastor-sysfs-"));
after(() => rm(folder, { recursive: true, force: true }));
const roots: Roots = {
  sys: join(folder, "sys"),
  udev: join(folder, "udev"),
  mountinfo: join(folder, "mountinfo"),
};

async function file(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${text}\n`);
}

async function disk(path: string, files: Record<string, string>): Promise<void> {
  const device = join(roots.sys, "devices", path);
  for (const [name, text] of Object.entries(files)) await file(join(device, name), text);
  const name = path.split("/").at(-1) ?? "";
  const entry = join(roots.sys, "class/block", name);
  await mkdir(dirname(entry), { recursive: true });
  await symlink(device, entry);
}

await disk("pci/sda", { dev: "8:0", size: "1000", "queue/rotational": "1" });
await disk("pci/sda/sda1", { dev: "8:1", size: "900", partition: "1" });
await disk("pci/sdb", { dev: "8:16", size: "2000", "device/model": "Disk B" });
await disk("pci/sdc", { dev: "8:32", size: "2000" });
await disk("pci/sdd", { dev: "8:48", size: "0" });
await disk("pci/sr0", { dev: "11:0", size: "2000" });
await disk("pci/sde", { dev: "8:64", size: "2000", "holders/dm-0": "" });
await disk("nvme/nvme9n1", {
  dev: "259:3",
  size: "2000",
  "device/model": "Mayastor NVMe controller",
});
await file(
  join(roots.udev, "b8:1"),
  "S:disk/by-id/one\nE:ID_PART_ENTRY_TYPE=0fc63daf-8483-4772-8e79-3d69d8477de4\n" +
    "E:ID_PART_ENTRY_SCHEME=gpt\nE:ID_PART_ENTRY_UUID=u1\nE:ID_PART_ENTRY_NAME=data",
);
await file(roots.mountinfo, "25 1 8:32 / /mnt/with\\040space rw - xfs /dev/sdc rw");

test("listBlockDevices() offers only empty disks and Linux partitions", async () => {
  const devices = await listBlockDevices({ all: false }, roots);
  assert.deepEqual(
    devices.map((device) => device.devname),
    ["/dev/sda1", "/dev/sdb"],
  );
});

test("listBlockDevices() describes disks and partitions", async () => {
  const devices = await listBlockDevices({ all: true }, roots);
  assert.equal(devices.length, 8);
  const sdb = devices.find((device) => device.devname === "/dev/sdb");
  assert.equal(sdb?.size, 2000n);
  assert.equal(sdb?.model, "Disk B");
  assert.equal(sdb?.devtype, "disk");
  assert.equal(sdb?.devpath, "/devices/pci/sdb");
  const sda1 = devices.find((device) => device.devname === "/dev/sda1");
  assert.equal(sda1?.devtype, "partition");
  assert.equal(sda1?.isRotational, true);
  assert.deepEqual(sda1?.devlinks, ["/dev/disk/by-id/one"]);
  assert.deepEqual(sda1?.partition, {
    parent: "/dev/sda",
    number: 1,
    name: "data",
    scheme: "gpt",
    typeid: "0fc63daf-8483-4772-8e79-3d69d8477de4",
    uuid: "u1",
  });
  const sdc = devices.find((device) => device.devname === "/dev/sdc");
  assert.deepEqual(sdc?.filesystem, {
    fstype: "xfs",
    label: "",
    uuid: "",
    mountpoints: ["/mnt/with space"],
  });
});

test("listBlockDevices() works on this machine and where there is no sysfs", async () => {
  await listBlockDevices({ all: true });
  const nowhere = { sys: join(folder, "none"), udev: "", mountinfo: "" };
  assert.deepEqual(await listBlockDevices({ all: true }, nowhere), []);
});

test("parseMountinfo() collects every mount point of a device", () => {
  const mounts = parseMountinfo(
    "1 2 8:1 / / rw - ext4 a rw\n2 2 8:1 /x /y rw shared:1 - ext4 a rw",
  );
  assert.deepEqual(mounts.get("8:1"), { fstype: "ext4", points: ["/", "/y"] });
});

test("parseUdev() reads properties and links", () => {
  const { values, links } = parseUdev("I:1\nE:A=b=c\nS:x\nnonsense");
  assert.equal(values.get("A"), "b=c");
  assert.deepEqual(links, ["/dev/x"]);
});
