/** The node plugin after what goes wrong on a node: devices lost, targets moved, file systems in doubt or in use. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  block,
  ext4,
  publishOf,
  rw,
  STAGING,
  stageOf,
  start,
  TARGET,
  unpublishOf,
  unstageOf,
  uriOf,
  V,
} from "./testing/rig.ts";

test("a volume whose target moved gets the new path and loses the dead one", async (t) => {
  const { system, expect, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  system.put("/sys/class/nvme/nvme0/state", "connecting\n");
  assert.match(
    JSON.stringify((await ok("NodeGetVolumeStats", { volumeId: V, volumePath: STAGING })).reply),
    /"abnormal":true,"message":"no path to the target works: nvme0 is connecting"/,
  );
  await ok("NodeStageVolume", stageOf({ publishContext: { uri: uriOf(V, "10.1.0.6") } }));
  assert.deepEqual(system.controllers, ["nvme1"]);
  assert.deepEqual(
    system.mounts.map(({ at }) => at),
    [STAGING],
    "still mounted, on the same device",
  );
  // The context of a VolumeAttachment is never renewed: the former address, where nobody listens any more.
  system.connectError = "ECONNREFUSED";
  const dials = system.connects.length;
  await ok("NodeStageVolume", stageOf());
  assert.deepEqual([system.connects.length, system.controllers], [dials + 1, ["nvme1"]]);
  // A path over which the target refuses I/O is none; what is mounted stays all the same.
  system.put("/sys/class/nvme/nvme1/nvme0c1n1/ana_state", "inaccessible\n");
  await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
  assert.deepEqual([system.mounts.length, system.controllers], [1, ["nvme1"]]);
  await ok("NodeUnstageVolume", unstageOf());
});

for (const volumeCapability of [ext4, { ...rw, mount: { fsType: "xfs" } }, block]) {
  const what = "block" in volumeCapability ? "raw block" : volumeCapability.mount.fsType;
  test(`what a lost device left at a pod's path is no hindrance: ${what}`, async (t) => {
    const { system, ok } = await start(t);
    const there = () => system.mounts.filter(({ at }) => at === TARGET).length;
    for (const isWanted of [false, true]) {
      await ok("NodeStageVolume", stageOf({ volumeCapability }));
      await ok("NodePublishVolume", publishOf({ volumeCapability }));
      for (const name of system.controllers) system.removeController(name); // its ctrl_loss_tmo is over
      await ok("NodeStageVolume", stageOf({ volumeCapability })); // as a second pod's start does
      const stats = await ok("NodeGetVolumeStats", { volumeId: V, volumePath: TARGET });
      assert.match(JSON.stringify(stats.reply), /"abnormal":true,"message":"its device was lost/);
      if (isWanted) await ok("NodePublishVolume", publishOf({ volumeCapability }));
      else await ok("NodeUnpublishVolume", unpublishOf());
      assert.equal(there(), isWanted ? 1 : 0);
      await ok("NodeUnpublishVolume", unpublishOf());
      await ok("NodeUnstageVolume", unstageOf());
    }
    assert.deepEqual([system.mounts, await system.kind(TARGET)], [[], null]);
  });
}

test("an xfs that has shut itself down is a condition of the volume, and does not keep its pod", async (t) => {
  const { system, ok } = await start(t);
  const volumeCapability = { ...rw, mount: { fsType: "xfs" } };
  await ok("NodeStageVolume", stageOf({ volumeCapability }));
  await ok("NodePublishVolume", publishOf({ volumeCapability }));
  const stats = async () =>
    (await ok("NodeGetVolumeStats", { volumeId: V, volumePath: TARGET })).reply;
  system.shutDown.add(TARGET);
  assert.deepEqual(await stats(), {
    volumeCondition: { abnormal: true, message: "the file system does not answer: EIO" },
  });
  await ok("NodePublishVolume", publishOf({ volumeCapability }));
  system.shutDown.clear();
  for (const name of system.controllers) system.removeController(name);
  assert.deepEqual(await stats(), {
    volumeCondition: { abnormal: true, message: "the volume is not attached to this node" },
  });
  await ok("NodeUnpublishVolume", unpublishOf());
});

test("an xfs whose mkfs was cut short is made again; one that merely looks torn is kept", async (t) => {
  const { system, expect, ok } = await start(t);
  const request = stageOf({ volumeCapability: { ...rw, mount: { fsType: "xfs" } } });
  system.contents.set(V, "xfs-unfinished");
  await expect("FAILED_PRECONDITION", "NodeStageVolume", stageOf()); // asked for as ext4
  system.failures.set("blkid", { code: 2, stdout: "", stderr: "" });
  const torn = await expect("INTERNAL", "NodeStageVolume", request);
  assert.match(torn.message, /it is kept as it is\. Repair it by hand, or, .* wipefs -a/);
  system.failures.clear();
  assert.equal(system.contents.get(V), "xfs-unfinished");
  await ok("NodeStageVolume", request);
  assert.deepEqual(system.programs.slice(-2), [
    system.programs.findLast((line) => line.startsWith("mkfs.xfs -f /dev/nvme")),
    system.programs.findLast((line) => line.startsWith("mount -t xfs")),
  ]);
  await ok("NodeUnstageVolume", unstageOf());
  const made = () => system.programs.filter((line) => line.startsWith("mkfs")).length;
  assert.equal(made(), 1);
  await ok("NodeStageVolume", request);
  assert.equal(made(), 1, "the finished one is kept");
});

test("after the device was lost, or the node rebooted, the volume is cleaned up and staged again", async (t) => {
  const { system, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await ok("NodePublishVolume", publishOf());
  system.removeController("nvme0"); // the kernel's patience (ctrl_loss_tmo) is over; the mounts stay
  await ok("NodeUnpublishVolume", unpublishOf());
  await ok("NodeStageVolume", stageOf());
  assert.deepEqual(
    system.mounts.map(({ at }) => at),
    [STAGING],
  );
  await ok("NodePublishVolume", publishOf());
  system.reboot();
  await ok("NodeUnpublishVolume", unpublishOf());
  await ok("NodeUnstageVolume", unstageOf());
  await ok("NodeStageVolume", stageOf());
  await ok("NodePublishVolume", publishOf());
});

test("a file system that another mount namespace holds is not disconnected", async (t) => {
  const { system, expect, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  system.folder("/proc/fs/ext4/nvme0n1");
  await expect("FAILED_PRECONDITION", "NodeUnstageVolume", unstageOf());
  assert.deepEqual(system.controllers, ["nvme0"]);
  system.drop("/proc/fs/ext4/nvme0n1");
  await ok("NodeUnstageVolume", unstageOf());
  assert.deepEqual(system.controllers, []);
});

for (const fsType of ["ext4", "xfs", "btrfs"]) {
  test(`${fsType} that is still mounted out of sight is not disconnected, nor its data lost`, async (t) => {
    const { system, expect, ok } = await start(t);
    await ok("NodeStageVolume", stageOf({ volumeCapability: { ...rw, mount: { fsType } } }));
    system.claimed.add("/dev/nvme0n1");
    await expect("FAILED_PRECONDITION", "NodeUnstageVolume", unstageOf());
    assert.deepEqual(system.controllers, ["nvme0"]);
    system.claimed.clear();
    await ok("NodeUnstageVolume", unstageOf());
    assert.deepEqual(system.controllers, []);
  });
}

for (const fsType of ["ext4", "xfs", "btrfs"]) {
  test(`a volume with ${fsType} that cannot be read for a while is never formatted`, async (t) => {
    const { system, expect, ok } = await start(t);
    system.contents.set(V, fsType);
    const request = stageOf({ volumeCapability: { ...rw, mount: { fsType } } });
    const made = () => system.programs.filter((line) => line.startsWith("mkfs"));
    system.failures.set("blkid", { code: 2, stdout: "", stderr: "" }); // what blkid says when reads fail
    system.readFails = true;
    await expect("INTERNAL", "NodeStageVolume", request);
    system.readFails = false; // the paths are back just after blkid has looked
    await expect("INTERNAL", "NodeStageVolume", request);
    assert.deepEqual([made(), system.controllers], [[], []]);
    let looks = 0;
    system.onRun = async (program) => {
      if (program === "blkid" && ++looks === 2) system.failures.clear();
    };
    await ok("NodeStageVolume", request);
    assert.deepEqual([made(), system.contents.get(V)], [[], fsType]);
  });
}

test("a device node that is a plain file, or another device, is not taken for the volume", async (t) => {
  const { system, expect } = await start(t);
  system.bogusNodes.add("/dev/nvme0n1");
  await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
  assert.deepEqual([system.programs, system.controllers], [[], []]);
});
