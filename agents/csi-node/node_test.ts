/** The CSI calls of the node plugin: what each does, its repeats, and what it refuses. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { MACHINE } from "./testing/fake_system.ts";
import {
  block,
  HOST,
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
  W,
} from "./testing/rig.ts";

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
    ...[{ volumeId: "" }, { targetPath: "" }, { targetPath: "relative" }].map(
      (over): [string, object] => ["NodePublishVolume", publishOf(over)],
    ),
    ["NodePublishVolume", { ...publishOf(), volumeCapability: undefined }],
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
    "FAILED_PRECONDITION",
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
