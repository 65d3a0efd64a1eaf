/**
 * The node service against the text of the CSI specification, call by call: missing and unsupported fields, unknown
 * ids, repeats, repeats that want something else, calls at the same time, combinations of capabilities, and the order
 * of the calls. What each call does is in node_test.ts.
 */
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
  W,
} from "./testing/rig.ts";

type Request = Parameters<Awaited<ReturnType<typeof start>>["expect"]>[2];
type Case = readonly [over: object, code: string];
/** A property set to undefined is a field that is missing. */
const plain = (value: object): Request => JSON.parse(JSON.stringify(value)) as Request;

const mode = (name: string, more: object = {}) => ({
  accessMode: { mode: name },
  mount: { fsType: "ext4" },
  ...more,
});
const readOnly = { fsType: "ext4", mountFlags: ["ro"] };
const UNSUPPORTED: readonly object[] = [
  rw, // neither block nor mount
  ...[{ mount: {} }, { block: {} }], // no access mode
  ...["UNKNOWN", "MULTI_NODE_MULTI_WRITER"].map((name) => mode(name)),
  ...["SINGLE_NODE_SINGLE_WRITER", "SINGLE_NODE_MULTI_WRITER"].map((name) => mode(name)),
  ...["SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY"].map((name) => mode(name)), // without ro
  mode("SINGLE_NODE_READER_ONLY", { mount: undefined, block: {} }),
  { ...rw, mount: { fsType: "ntfs" } },
];
const NO_PATHS = ["", "relative", "./x", "a\0b"];
const refused = (overs: readonly object[]): Case[] =>
  overs.map((over) => [over, "INVALID_ARGUMENT"]);

test("NodeStageVolume refuses what is missing, wrong or unknown, and touches nothing", async (t) => {
  const { system, expect } = await start(t);
  const cases: Case[] = [
    ...refused([{ volumeId: "" }, { volumeCapability: undefined }, { publishContext: undefined }]),
    ...refused(NO_PATHS.map((stagingTargetPath) => ({ stagingTargetPath }))),
    ...refused(UNSUPPORTED.map((volumeCapability) => ({ volumeCapability }))),
    ...refused(
      [
        ...[{ uri: "" }, { uri: "x" }, { uri: uriOf(W) }, { uri: uriOf(V).replace("nvmf", "nbd") }],
        ...[
          { uri: uriOf(V), ioTimeout: "-1" },
          { uri: uriOf(V), nvmeCtrlLossTmo: "1s" },
        ],
      ].map((publishContext) => ({ publishContext })),
    ),
    [{ volumeId: "no-uuid" }, "NOT_FOUND"],
  ];
  for (const [over, code] of cases) await expect(code, "NodeStageVolume", plain(stageOf(over)));
  assert.deepEqual([system.connects, system.programs], [[], []]);
});

test("NodeStageVolume takes every capability that it offers, and any secrets", async (t) => {
  const { ok } = await start(t);
  for (const volumeCapability of [
    ...[ext4, block, { ...rw, mount: {} }, mode("MULTI_NODE_SINGLE_WRITER")],
    ...[mode("SINGLE_NODE_READER_ONLY", { mount: readOnly })],
    mode("MULTI_NODE_READER_ONLY", { mount: readOnly }),
  ]) {
    const request = stageOf({ volumeCapability, secrets: { password: "x" } });
    await ok("NodeStageVolume", plain(request));
    await ok("NodeUnstageVolume", unstageOf());
  }
});

test("NodeStageVolume repeated is OK; with what does not fit it is ALREADY_EXISTS and all stays", async (t) => {
  const { system, ok, expect } = await start(t);
  const flags = (...mountFlags: string[]) => ({ ...rw, mount: { fsType: "ext4", mountFlags } });
  const first = flags("noatime,nodev");
  for (let round = 0; round < 2; round++) {
    await ok("NodeStageVolume", stageOf({ volumeCapability: first }));
  }
  await ok("NodeStageVolume", stageOf({ volumeCapability: flags("nodev") })); // has what it asks for
  const before = system.mounts;
  for (const over of [
    { volumeCapability: { ...rw, mount: { fsType: "xfs" } } },
    { volumeCapability: flags("noatime", "noexec") },
    { volumeCapability: block },
    { stagingTargetPath: "/kubelet/other" },
  ]) {
    await expect("ALREADY_EXISTS", "NodeStageVolume", stageOf(over));
  }
  assert.deepEqual([system.mounts, system.controllers], [before, ["nvme0"]]);
});

test("NodeStageVolume of a volume that is not where its URI leads is UNAVAILABLE, and leaves nothing", async (t) => {
  const { system, expect } = await start(t);
  system.connectError = "EIO"; // there is no such subsystem at the target
  await expect("UNAVAILABLE", "NodeStageVolume", stageOf());
  assert.deepEqual([system.controllers, system.mounts], [[], []]);
});

test("NodeUnstageVolume: missing fields, unknown ids, repeats", async (t) => {
  const { system, ok, expect } = await start(t);
  for (const over of [{ volumeId: "" }, ...NO_PATHS.map((path) => ({ stagingTargetPath: path }))]) {
    await expect("INVALID_ARGUMENT", "NodeUnstageVolume", plain(unstageOf(over)));
  }
  for (const volumeId of [V, W, "no-uuid", "../x"]) {
    await ok("NodeUnstageVolume", unstageOf({ volumeId })); // was never staged
  }
  await ok("NodeStageVolume", stageOf());
  for (let round = 0; round < 2; round++) await ok("NodeUnstageVolume", unstageOf());
  assert.deepEqual([system.controllers, system.mounts], [[], []]);
});

test("NodePublishVolume refuses what is missing, wrong or unknown, and mounts nothing", async (t) => {
  const { system, ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf());
  const before = [system.mounts, system.programs.length];
  const cases: Case[] = [
    ...refused([{ volumeId: "" }, { volumeCapability: undefined }]),
    ...refused(NO_PATHS.map((targetPath) => ({ targetPath }))),
    ...refused(["relative", "a\0b"].map((stagingTargetPath) => ({ stagingTargetPath }))),
    ...refused(UNSUPPORTED.map((volumeCapability) => ({ volumeCapability }))),
    ...refused([{ volumeCapability: block }, { volumeCapability: block, readonly: true }]),
    // STAGE_UNSTAGE_VOLUME is offered: a code of its own.
    [{ stagingTargetPath: "" }, "FAILED_PRECONDITION"],
    [{ volumeId: "no-uuid" }, "NOT_FOUND"],
  ];
  for (const [over, code] of cases) {
    await expect(code, "NodePublishVolume", plain(publishOf(over)));
  }
  assert.deepEqual([system.mounts, system.programs.length], before);
  assert.equal(await system.kind(TARGET), null);
});

test("NodePublishVolume before NodeStageVolume is FAILED_PRECONDITION, whatever the capability", async (t) => {
  const { system, ok, expect } = await start(t);
  const publish = (over: object) =>
    expect("FAILED_PRECONDITION", "NodePublishVolume", publishOf(over));
  for (const volumeCapability of [ext4, block]) await publish({ volumeCapability });
  await publish({ volumeId: W });
  await ok("NodeStageVolume", stageOf());
  await publish({ volumeId: W });
  await publish({ stagingTargetPath: "/kubelet/elsewhere" });
  await ok("NodeUnstageVolume", unstageOf());
  await publish({});
  assert.deepEqual([system.mounts, await system.kind(TARGET)], [[], null]);
});

test("NodePublishVolume repeated is OK; with what does not fit it is ALREADY_EXISTS", async (t) => {
  const { ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf());
  for (let round = 0; round < 2; round++) await ok("NodePublishVolume", publishOf());
  await expect("ALREADY_EXISTS", "NodePublishVolume", publishOf({ readonly: true }));
  const noexec = { ...rw, mount: { fsType: "ext4", mountFlags: ["noexec"] } };
  await expect("ALREADY_EXISTS", "NodePublishVolume", publishOf({ volumeCapability: noexec }));
  // Kubernetes publishes a ReadWriteOnce volume to every pod of its node.
  const second = `${TARGET}-2`;
  await ok("NodePublishVolume", publishOf({ targetPath: second, readonly: true }));
  await expect("INTERNAL", "NodeUnstageVolume", unstageOf());
  for (const targetPath of [second, TARGET])
    await ok("NodeUnpublishVolume", unpublishOf({ targetPath }));
  await ok("NodeUnstageVolume", unstageOf());
});

test("NodeUnpublishVolume: missing fields, unknown ids, repeats", async (t) => {
  const { system, ok, expect } = await start(t);
  for (const over of [{ volumeId: "" }, ...NO_PATHS.map((targetPath) => ({ targetPath }))]) {
    await expect("INVALID_ARGUMENT", "NodeUnpublishVolume", plain(unpublishOf(over)));
  }
  for (const volumeId of [V, W, "no-uuid"])
    await ok("NodeUnpublishVolume", unpublishOf({ volumeId }));
  await ok("NodeStageVolume", stageOf());
  await ok("NodeUnpublishVolume", unpublishOf()); // was never published
  await ok("NodePublishVolume", publishOf());
  for (let round = 0; round < 2; round++) await ok("NodeUnpublishVolume", unpublishOf());
  assert.deepEqual(
    system.mounts.map(({ at }) => at),
    [STAGING],
  );
});

test("NodeGetVolumeStats: missing fields; a volume that is not at the path is NOT_FOUND", async (t) => {
  const { system, ok, expect } = await start(t);
  const stats = (over: object = {}) => ({ volumeId: V, volumePath: TARGET, ...over });
  for (const over of [{ volumeId: "" }, { volumePath: "" }]) {
    await expect("INVALID_ARGUMENT", "NodeGetVolumeStats", plain(stats(over)));
  }
  for (const volumePath of [...NO_PATHS.slice(1), "some/path"]) {
    await expect("NOT_FOUND", "NodeGetVolumeStats", plain(stats({ volumePath })));
  }
  for (const volumeId of [V, W, "no-uuid"])
    await expect("NOT_FOUND", "NodeGetVolumeStats", stats({ volumeId }));
  await ok("NodeStageVolume", stageOf());
  await expect("NOT_FOUND", "NodeGetVolumeStats", stats()); // is not published there
  await ok("NodePublishVolume", publishOf());
  for (const volumePath of [TARGET, STAGING]) {
    const staged = { stagingTargetPath: STAGING };
    await ok("NodeGetVolumeStats", stats({ volumePath, ...staged }));
  }
  system.addMount({ at: "/kubelet/alien" });
  await expect("NOT_FOUND", "NodeGetVolumeStats", stats({ volumePath: "/kubelet/alien" }));
  await ok("NodeUnpublishVolume", unpublishOf());
  await expect("NOT_FOUND", "NodeGetVolumeStats", stats());
});

test("calls at the same time for one volume: the second is ABORTED, reading is not", async (t) => {
  const { system, ok, expect } = await start(t);
  await ok("NodeStageVolume", stageOf());
  await ok("NodePublishVolume", publishOf());
  const unmounting = system.holdUp("umount");
  const first = ok("NodeUnpublishVolume", unpublishOf());
  await unmounting.started;
  for (const [name, request] of [
    ["NodeStageVolume", stageOf()],
    ["NodeUnstageVolume", unstageOf()],
    ["NodePublishVolume", publishOf()],
    ["NodeUnpublishVolume", unpublishOf()],
    ["NodeUnpublishVolume", unpublishOf({ volumeId: V.toUpperCase() })],
  ] as const) {
    await expect("ABORTED", name, request);
  }
  await ok("NodeGetVolumeStats", { volumeId: V, volumePath: STAGING });
  await ok("NodeUnpublishVolume", unpublishOf({ volumeId: W, targetPath: `${TARGET}-w` }));
  unmounting.release();
  await first;
  const detaching = system.holdUp("umount");
  const second = ok("NodeUnstageVolume", unstageOf());
  await detaching.started;
  await expect("ABORTED", "NodeStageVolume", stageOf());
  detaching.release();
  await second;
  await ok("NodeStageVolume", stageOf());
});

test("NodeExpandVolume is not offered: UNIMPLEMENTED, whatever its fields", async (t) => {
  const { expect } = await start(t);
  await expect("UNIMPLEMENTED", "NodeExpandVolume", {});
  await expect("UNIMPLEMENTED", "NodeExpandVolume", { volumeId: V, volumePath: TARGET });
});
