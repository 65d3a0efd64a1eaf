import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { identityService, serveSocket } from "#common/csi/serve.ts";
import { CsiClient } from "../../test/support/csi/client.ts";
import { nodePluginService } from "./node_plugin.ts";
import { nvmeOperationsService } from "./nvme_operations.ts";
import { nodeService } from "./service.ts";
import { FakeSystem, fakeParts, MACHINE } from "./testing/fake_system.ts";

const V = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const W = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
const HOST = "nqn.2019-05.io.openebs:node-name:worker-1";
const uriOf = (uuid: string, ip = "10.1.0.5") =>
  `nvmf://${ip}:4421/nqn.2019-05.io.openebs:${uuid}?hostnqn=${HOST}`;
const STAGING = "/kubelet/staging";
const TARGET = "/kubelet/pods/a/mount";
const rw = { accessMode: { mode: "SINGLE_NODE_WRITER" } };
const ext4 = { ...rw, mount: { fsType: "ext4" } };
const block = { ...rw, block: {} };

const stageOf = (over: object = {}) => ({
  volumeId: V,
  publishContext: { uri: uriOf(V) },
  stagingTargetPath: STAGING,
  volumeCapability: ext4,
  ...over,
});
const publishOf = (over: object = {}) => ({
  volumeId: V,
  stagingTargetPath: STAGING,
  targetPath: TARGET,
  volumeCapability: ext4,
  ...over,
});
const unstageOf = (over: object = {}) => ({ volumeId: V, stagingTargetPath: STAGING, ...over });
const unpublishOf = (over: object = {}) => ({ volumeId: V, targetPath: TARGET, ...over });

/** The plugin on a fake node, over a real unix socket. */
async function start(t: TestContext) {
  const system = new FakeSystem(t);
  system.folder(path.dirname(TARGET));
  const parts = fakeParts(system);
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-node-"));
  const socket = path.join(folder, "csi.sock");
  const identity = identityService({ version: "1.2.3", isReady: async () => true });
  const server = await serveSocket(socket, [
    identity,
    nodeService(parts),
    nodePluginService(parts),
    nvmeOperationsService(parts.context),
  ]);
  const client = new CsiClient(`unix:${socket}`);
  t.after(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const expect = async (code: string, name: string, request: Parameters<CsiClient["call"]>[1]) => {
    const outcome = await client.call(name, request);
    assert.equal(outcome.code, code, `${name} ${JSON.stringify(request)}: ${outcome.message}`);
    return outcome;
  };
  return { system, client, expect, ok: expect.bind(null, "OK") };
}

test("identity and node info are as published", async (t) => {
  const { ok } = await start(t);
  assert.deepEqual((await ok("GetPluginInfo", {})).reply, {
    name: "io.openebs.csi-mayastor",
    vendorVersion: "1.2.3",
  });
  assert.deepEqual((await ok("GetPluginCapabilities", {})).reply, {
    capabilities: [
      { service: { type: "CONTROLLER_SERVICE" } },
      { service: { type: "VOLUME_ACCESSIBILITY_CONSTRAINTS" } },
    ],
  });
  assert.deepEqual((await ok("Probe", {})).reply, { ready: true });
  assert.deepEqual((await ok("NodeGetInfo", {})).reply, {
    nodeId: "worker-1",
    accessibleTopology: {
      segments: { "openebs.io/csi-node": "mayastor", "openebs.io/nodename": "worker-1" },
    },
  });
  assert.deepEqual((await ok("NodeGetCapabilities", {})).reply, {
    capabilities: ["STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "VOLUME_CONDITION"].map((type) => ({
      rpc: { type },
    })),
  });
});

test("every node call refuses missing and malformed fields, and touches nothing", async (t) => {
  const { system, expect, ok } = await start(t);
  const mode = (name: string) => ({ accessMode: { mode: name }, mount: { fsType: "ext4" } });
  const reader = { accessMode: { mode: "SINGLE_NODE_READER_ONLY" } };
  const bad: [string, object][] = [
    ...[{ volumeId: "" }, { stagingTargetPath: "" }, { stagingTargetPath: "relative" }].map(
      (over): [string, object] => ["NodeStageVolume", stageOf(over)],
    ),
    ["NodeStageVolume", { ...stageOf(), volumeCapability: undefined }],
    ["NodeStageVolume", stageOf({ publishContext: {} })],
    ["NodeStageVolume", stageOf({ publishContext: { uri: "iscsi://h/x" } })],
    ["NodeStageVolume", stageOf({ publishContext: { uri: uriOf(W) } })],
    ...["30s", "0", "4294968"].map((ioTimeout): [string, object] => [
      "NodeStageVolume",
      stageOf({ publishContext: { uri: uriOf(V), ioTimeout } }),
    ]),
    ["NodeStageVolume", stageOf({ volumeCapability: { ...rw } })],
    ["NodeStageVolume", stageOf({ volumeCapability: { block: {} } })],
    ["NodeStageVolume", stageOf({ volumeCapability: { ...rw, mount: { fsType: "ntfs" } } })],
    ["NodeStageVolume", stageOf({ volumeCapability: mode("MULTI_NODE_MULTI_WRITER") })],
    ["NodeStageVolume", stageOf({ volumeCapability: mode("MULTI_NODE_READER_ONLY") })],
    ...[{ volumeId: "" }, { stagingTargetPath: "" }].map((over): [string, object] => [
      "NodeUnstageVolume",
      unstageOf(over),
    ]),
    ...[{ volumeId: "" }, { targetPath: "" }, { stagingTargetPath: "" }].map(
      (over): [string, object] => ["NodePublishVolume", publishOf(over)],
    ),
    ["NodePublishVolume", { ...publishOf(), volumeCapability: undefined }],
    ["NodePublishVolume", publishOf()], // not staged
    ["NodePublishVolume", publishOf({ volumeCapability: block, readonly: true })],
    [
      "NodePublishVolume",
      publishOf({ volumeCapability: { block: {}, ...reader }, readonly: true }),
    ],
    ...[{ volumeId: "" }, { targetPath: "" }].map((over): [string, object] => [
      "NodeUnpublishVolume",
      unpublishOf(over),
    ]),
    ["NodeGetVolumeStats", { volumePath: "/x" }],
    ["NodeGetVolumeStats", { volumeId: V }],
  ];
  for (const [name, request] of bad) {
    await expect("INVALID_ARGUMENT", name, JSON.parse(JSON.stringify(request)));
  }
  for (const id of ["no-uuid", W]) {
    await ok("NodeUnstageVolume", unstageOf({ volumeId: id }));
    await ok("NodeUnpublishVolume", unpublishOf({ volumeId: id }));
    await expect("NOT_FOUND", "NodeGetVolumeStats", { volumeId: id, volumePath: "/x" });
  }
  await expect("NOT_FOUND", "NodeStageVolume", stageOf({ volumeId: "no-uuid" }));
  await expect("UNIMPLEMENTED", "NodeExpandVolume", { volumeId: V, volumePath: "/x" });
  assert.deepEqual([system.connects, system.programs], [[], []]);
});

test("a file system goes up and down, each call repeated, and leaves nothing", async (t) => {
  const { system, ok } = await start(t);
  const twice = async (name: string, request: object) => {
    await ok(name, JSON.parse(JSON.stringify(request)));
    return await ok(name, JSON.parse(JSON.stringify(request)));
  };
  const publishContext = { uri: uriOf(V), ioTimeout: "45", nvmeKeepAliveTmo: "7" };
  await twice("NodeStageVolume", stageOf({ publishContext }));
  assert.deepEqual(system.connects, [
    `nqn=nqn.2019-05.io.openebs:${V},hostnqn=${HOST},hostid=${MACHINE},transport=tcp,traddr=10.1.0.5,trsvcid=4421,keep_alive_tmo=7,reconnect_delay=10,ctrl_loss_tmo=45,nr_io_queues=4`,
  ]);
  assert.equal(await system.readText("/sys/class/nvme/nvme0/nvme0c0n1/queue/io_timeout"), "45000");
  assert.deepEqual(system.programs, [
    "blkid -p -o export /dev/nvme0n1",
    "blkid -p -o export /dev/nvme0n1",
    "mkfs.ext4 /dev/nvme0n1",
    `mount -t ext4 /dev/nvme0n1 ${STAGING}`,
  ]);
  await twice("NodePublishVolume", publishOf());
  const stats = await ok("NodeGetVolumeStats", { volumeId: V, volumePath: TARGET });
  assert.match(JSON.stringify(stats.reply), /"unit":"BYTES".*"unit":"INODES".*is reachable/);
  await twice("NodeUnpublishVolume", unpublishOf());
  await twice("NodeUnstageVolume", unstageOf());
  assert.deepEqual([system.mounts, system.controllers], [[], []]);
  assert.equal(await system.kind(TARGET), null);
  // Again: what is on the volume is kept, and checked.
  await ok("NodeStageVolume", stageOf());
  assert.deepEqual(system.programs.slice(-3), [
    "blkid -p -o export /dev/nvme1n1",
    "fsck.ext4 -p /dev/nvme1n1",
    `mount -t ext4 /dev/nvme1n1 ${STAGING}`,
  ]);
});

test("connection settings come from the publish context, then from ioTimeout, then from the command line", async (t) => {
  const { system, ok } = await start(t);
  const lines: [Record<string, string>, RegExp][] = [
    [{}, /trsvcid=4421,ctrl_loss_tmo=1980,nr_io_queues=4$/],
    [{ ioTimeout: "10" }, /,reconnect_delay=1,ctrl_loss_tmo=10,/],
    [{ ioTimeout: "60", nvmeCtrlLossTmo: "90" }, /,reconnect_delay=10,ctrl_loss_tmo=90,/],
  ];
  for (const [more, expected] of lines) {
    await ok("NodeStageVolume", stageOf({ publishContext: { uri: uriOf(V), ...more } }));
    assert.match(system.connects.at(-1) ?? "", expected);
    await ok("NodeUnstageVolume", unstageOf());
  }
});

test("staging refuses what is in the way, and detaches what it attached", async (t) => {
  const { system, expect, ok } = await start(t);
  system.addMount({ at: STAGING });
  await expect("ALREADY_EXISTS", "NodeStageVolume", stageOf());
  await expect("INTERNAL", "NodeUnstageVolume", unstageOf()); // not ours to unmount
  assert.deepEqual([system.controllers, system.mounts.length], [[], 1]);
  system.reboot();

  system.contents.set(V, "xfs");
  await expect("FAILED_PRECONDITION", "NodeStageVolume", stageOf());
  assert.equal(system.contents.get(V), "xfs", "the other file system is kept");
  system.contents.delete(V);
  for (const [program, code] of [
    ["blkid", "INTERNAL"],
    ["mkfs.ext4", "INTERNAL"],
    ["mount", "INTERNAL"],
  ] as const) {
    system.failures.set(program, {
      code: program === "blkid" ? 4 : 1,
      stdout: "",
      stderr: "broken",
    });
    await expect(code, "NodeStageVolume", stageOf());
    assert.deepEqual(system.controllers, [], `${program} failed: nothing stays connected`);
    system.failures.clear();
  }
  for (const error of ["ECONNREFUSED", "EIO"]) {
    system.connectError = error;
    await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
  }
  system.connectError = "EINVAL";
  const refused = await expect("INVALID_ARGUMENT", "NodeStageVolume", stageOf());
  assert.match(refused.message, /the kernel refuses these options.*traddr=10\.1\.0\.5/);
  system.connectError = null;
  await ok("NodeStageVolume", stageOf());
  await expect(
    "ALREADY_EXISTS",
    "NodeStageVolume",
    stageOf({ stagingTargetPath: "/kubelet/other" }),
  );
  const asXfs = { ...rw, mount: { fsType: "xfs" } };
  await expect("ALREADY_EXISTS", "NodeStageVolume", stageOf({ volumeCapability: asXfs }));
});

test("publishing checks the stage, the place and earlier publications", async (t) => {
  const { system, expect, ok } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await expect("INTERNAL", "NodePublishVolume", publishOf({ targetPath: "/no/such/folder" }));
  await expect(
    "INVALID_ARGUMENT",
    "NodePublishVolume",
    publishOf({ stagingTargetPath: "/kubelet/x" }),
  );
  const asXfs = { ...rw, mount: { fsType: "xfs" } };
  await expect("INVALID_ARGUMENT", "NodePublishVolume", publishOf({ volumeCapability: asXfs }));
  await expect("INVALID_ARGUMENT", "NodePublishVolume", publishOf({ volumeCapability: block }));
  assert.equal(await system.kind(TARGET), null, "a refused publication leaves no folder");

  await ok("NodePublishVolume", publishOf({ readonly: true }));
  assert.deepEqual(system.mounts.find(({ at }) => at === TARGET)?.options, ["ro"]);
  assert.equal(system.mounts.length, 2, "the detour is gone");
  await ok("NodePublishVolume", publishOf({ readonly: true }));
  await expect("ALREADY_EXISTS", "NodePublishVolume", publishOf());
  await expect("INTERNAL", "NodeUnstageVolume", unstageOf());
  await ok("NodeUnpublishVolume", unpublishOf());

  system.addMount({ at: TARGET });
  await expect("ALREADY_EXISTS", "NodePublishVolume", publishOf());
  await expect("FAILED_PRECONDITION", "NodeUnpublishVolume", unpublishOf());
});

test("a stage that is read-only is published read-only alone, and remounted when wanted otherwise", async (t) => {
  const { expect, ok, system } = await start(t);
  const readOnly = { ...rw, mount: { fsType: "ext4", mountFlags: ["ro"] } };
  await ok("NodeStageVolume", stageOf({ volumeCapability: readOnly }));
  await expect("INVALID_ARGUMENT", "NodePublishVolume", publishOf());
  await ok("NodePublishVolume", publishOf({ volumeCapability: readOnly }));
  await ok("NodeUnpublishVolume", unpublishOf());
  await ok("NodeStageVolume", stageOf());
  assert.deepEqual(
    system.mounts.map(({ options }) => options),
    [["rw"]],
  );
});

test("a raw block volume is a device file at its target", async (t) => {
  const { system, expect, ok } = await start(t);
  for (let round = 0; round < 2; round++) {
    await ok("NodeStageVolume", stageOf({ volumeCapability: block }));
    await ok("NodePublishVolume", publishOf({ volumeCapability: block }));
  }
  assert.deepEqual(system.programs, [`mount --bind /dev/nvme0n1 ${TARGET}`]);
  const stats = await ok("NodeGetVolumeStats", { volumeId: V, volumePath: TARGET });
  assert.match(JSON.stringify(stats.reply), /"total":"104857600"/);
  assert.deepEqual((await ok("FindVolume", { volumeId: V })).reply, {
    volumeType: "VOLUME_TYPE_RAWBLOCK",
    devicePath: "/dev/nvme0n1",
  });
  await expect("FAILED_PRECONDITION", "FreezeFS", { volumeId: V });
  await expect("INTERNAL", "NodeUnstageVolume", unstageOf());
  await ok("NodeUnpublishVolume", unpublishOf());
  await ok("NodeUnstageVolume", unstageOf());
  assert.equal(await system.kind(TARGET), null);
  await expect("NOT_FOUND", "FindVolume", { volumeId: V });
});

test("only one operation a volume runs at a time; other volumes are not held up", async (t) => {
  const { system, expect, ok } = await start(t);
  const making = system.holdUp("mkfs.ext4");
  const first = ok("NodeStageVolume", stageOf());
  await making.started;
  await expect("ABORTED", "NodeStageVolume", stageOf());
  await expect("ABORTED", "NodeUnstageVolume", unstageOf());
  await expect("ABORTED", "NodePublishVolume", publishOf());
  const other = {
    publishContext: { uri: uriOf(W) },
    volumeCapability: block,
    stagingTargetPath: "/w",
  };
  await ok("NodeStageVolume", stageOf({ volumeId: W, ...other }));
  making.release();
  await first;
  await ok("NodePublishVolume", publishOf());
});

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

test("btrfs, whose mounts have a number of their own, goes up and down like the others", async (t) => {
  const { system, expect, ok } = await start(t);
  const volumeCapability = { ...rw, mount: { fsType: "btrfs" } };
  for (let round = 0; round < 2; round++) {
    await ok("NodeStageVolume", stageOf({ volumeCapability }));
    await ok("NodePublishVolume", publishOf({ volumeCapability }));
  }
  await expect("INTERNAL", "NodeUnstageVolume", unstageOf());
  const stats = await ok("NodeGetVolumeStats", { volumeId: V, volumePath: TARGET });
  assert.match(JSON.stringify(stats.reply), /"unit":"BYTES".*is reachable/);
  await ok("FreezeFS", { volumeId: V });
  await ok("NodeUnpublishVolume", unpublishOf());
  await ok("NodeUnstageVolume", unstageOf());
  assert.deepEqual([system.mounts, system.controllers], [[], []]);
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
