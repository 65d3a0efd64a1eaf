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

/** What goes on in the background has run these. */
async function untilFreezes(
  system: { readonly programs: readonly string[] },
  wanted: readonly string[],
): Promise<void> {
  while (fsfreezes(system).length < wanted.length) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(fsfreezes(system), wanted);
}

const fsfreezes = (system: { readonly programs: readonly string[] }) =>
  system.programs.flatMap((line) => /^fsfreeze --(\w+)/.exec(line)?.[1] ?? []);

test("a freeze is thawed after its limit, unless it is asked for again; and when the plugin ends", async (t) => {
  const { system, clock, freezer, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await ok("FreezeFS", { volumeId: V });
  await clock.advance(59_000);
  await ok("FreezeFS", { volumeId: V.toUpperCase() });
  await clock.advance(59_000);
  assert.deepEqual(fsfreezes(system), ["freeze", "freeze"]);
  await clock.advance(1_000);
  await untilFreezes(system, ["freeze", "freeze", "unfreeze"]);
  await ok("FreezeFS", { volumeId: V });
  await ok("UnfreezeFS", { volumeId: V });
  await clock.advance(120_000);
  assert.deepEqual(fsfreezes(system).slice(3), ["freeze", "unfreeze"]);
  await ok("FreezeFS", { volumeId: V });
  await freezer.close();
  assert.deepEqual(fsfreezes(system).slice(5), ["freeze", "unfreeze"]);
});

test("a thaw that fails is tried again until nothing is frozen", async (t) => {
  const { system, clock, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await ok("FreezeFS", { volumeId: V });
  system.failures.set("fsfreeze", { code: 1, stdout: "", stderr: "Input/output error" });
  await clock.advance(60_000);
  await untilFreezes(system, ["freeze", "unfreeze"]);
  system.failures.delete("fsfreeze");
  while (fsfreezes(system).length < 3) {
    await clock.advance(5_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await clock.advance(60_000);
  assert.deepEqual(fsfreezes(system), ["freeze", "unfreeze", "unfreeze"]);
});

test("what a killed plugin left frozen is thawed by the next one", async (t) => {
  const { system, freezer, ok } = await start(t);
  await freezer.thawLeft();
  assert.deepEqual(fsfreezes(system), []);
  await ok("NodeStageVolume", stageOf());
  await freezer.thawLeft();
  assert.deepEqual(fsfreezes(system), ["unfreeze"]);
});

test("nobody on the network freezes or thaws, unless that is allowed", async (t) => {
  const { system, ok, expect } = await start(t, { mayFreeze: false });
  await ok("NodeStageVolume", stageOf());
  await expect("PERMISSION_DENIED", "FreezeFS", { volumeId: V });
  await expect("PERMISSION_DENIED", "UnfreezeFS", { volumeId: V });
  await ok("FindVolume", { volumeId: V });
  assert.deepEqual(fsfreezes(system), []);
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
