/** The services of the node plugin besides CSI: freeze, thaw, find, and one more path. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { block, STAGING, stageOf, start, unstageOf, uriOf, V } from "./testing/rig.ts";

test("file systems are frozen, thawed and found", async (t) => {
  const { system, ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await ok("FreezeFS", { volumeId: V });
  system.failures.set("fsfreeze", { code: 1, stdout: "", stderr: "Device or resource busy" });
  await ok("FreezeFS", { volumeId: V });
  system.failures.set("fsfreeze", { code: 1, stdout: "", stderr: "Input/output error" });
  await expect("INTERNAL", "UnfreezeFS", { volumeId: V });
  assert.match(system.programs.at(-1) ?? "", /^fsfreeze --unfreeze \/kubelet\/staging$/);
  assert.deepEqual((await ok("FindVolume", { volumeId: V })).reply, {
    volumeType: "VOLUME_TYPE_FILESYSTEM",
    devicePath: "/dev/nvme0n1",
  });
});

test("a file system is frozen only where it is mounted, and never while somebody may unmount it", async (t) => {
  const { system, ok, expect } = await start(t);
  const frozen = () => system.programs.filter((line) => line.startsWith("fsfreeze"));
  await ok("NodeStageVolume", stageOf());
  const unmounting = system.holdUp("umount");
  const unstaging = ok("NodeUnstageVolume", unstageOf());
  await unmounting.started;
  await expect("ABORTED", "FreezeFS", { volumeId: V.toUpperCase() });
  unmounting.release();
  await unstaging;
  await ok("NodeStageVolume", stageOf());
  const freezing = system.holdUp("fsfreeze");
  const calling = ok("FreezeFS", { volumeId: V });
  await freezing.started;
  await expect("ABORTED", "NodeUnstageVolume", unstageOf());
  freezing.release();
  await calling;
  assert.deepEqual(frozen(), [`fsfreeze --freeze ${STAGING}`]);
  system.addMount({ at: STAGING }); // over it: its path leads elsewhere
  await expect("FAILED_PRECONDITION", "FreezeFS", { volumeId: V });
  assert.equal(frozen().length, 1);
});

test("a freeze that does not end in time is thawed", async (t) => {
  const { system, ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf());
  system.failures.set("fsfreeze", { code: null, stdout: "", stderr: "ended after 30000 ms" });
  const frozen = await expect("INTERNAL", "FreezeFS", { volumeId: V });
  assert.match(frozen.message, /may be frozen: call UnfreezeFS/);
  assert.deepEqual(system.programs.slice(-2), [
    `fsfreeze --freeze ${STAGING}`,
    `fsfreeze --unfreeze ${STAGING}`,
  ]);
});

test("NvmeConnect gives an attached volume one more path, whatever its calls wait for", async (t) => {
  const { system, ok, expect } = await start(t);
  const timeoutOf = (name: string) =>
    system.readText(`/sys/class/nvme/${name}/nvme0c${name.slice(4)}n1/queue/io_timeout`);
  const moved = { uri: uriOf(V, "10.1.0.6"), publishContext: { map: { ioTimeout: "45" } } };
  await expect("NOT_FOUND", "NvmeConnect", moved);
  assert.deepEqual(system.connects, []);
  const making = system.holdUp("mkfs.ext4");
  const staging = ok("NodeStageVolume", stageOf());
  await making.started;
  await ok("NvmeConnect", moved);
  await ok("NvmeConnect", moved);
  assert.deepEqual(system.controllers, ["nvme0", "nvme1"]);
  assert.match(system.connects.at(-1) ?? "", /traddr=10\.1\.0\.6,.*ctrl_loss_tmo=45/);
  assert.deepEqual(await Promise.all(["nvme0", "nvme1"].map(timeoutOf)), ["45000", "45000"]);
  making.release();
  await staging;
  const nqn = "nqn.2019-05.io.openebs";
  for (const uri of ["", "nvmf://h/x", `nvmf://h/${nqn}:some-name`, `nvmf://h/${nqn}.x:${V}`]) {
    await expect("INVALID_ARGUMENT", "NvmeConnect", { uri });
  }
  const bad = { uri: uriOf(V, "10.1.0.7"), publishContext: { map: { ioTimeout: "0" } } };
  await expect("INVALID_ARGUMENT", "NvmeConnect", bad);
  system.connectError = "ECONNREFUSED";
  await expect("UNAVAILABLE", "NvmeConnect", { uri: uriOf(V, "10.1.0.7") });
  assert.deepEqual(system.controllers, ["nvme0", "nvme1"]);
  await ok("NodeUnstageVolume", unstageOf());
  assert.deepEqual(system.controllers, []);
});

test("NvmeConnect does not bring back a volume that is detached meanwhile", async (t) => {
  const { system, ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf({ volumeCapability: block }));
  system.onConnect = () => system.put("/sys/class/nvme/nvme0/state", "deleting\n");
  await expect("NOT_FOUND", "NvmeConnect", { uri: uriOf(V, "10.1.0.6") });
  assert.deepEqual(system.controllers, ["nvme0"]);
  await expect("NOT_FOUND", "NvmeConnect", { uri: uriOf(V, "10.1.0.6") });
  assert.equal(system.connects.length, 2, "it is not even tried");
});
