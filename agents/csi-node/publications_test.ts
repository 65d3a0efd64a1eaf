import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { listMounts } from "./mounts.ts";
import { listControllers } from "./nvme.ts";
import {
  block,
  publishOf,
  STAGING,
  stageOf,
  start,
  TARGET,
  unpublishOf,
  unstageOf,
  uriOf,
  V,
} from "./testing/rig.ts";

const NQN = `nqn.2019-05.io.openebs:${V}`;
const named = (generation: number, more: object = {}) => {
  const uri = uriOf(generation === 0 ? V : `${V}:${generation}`);
  return { publishContext: { uri }, ...more };
};

type Rig = Awaited<ReturnType<typeof start>>;
const nqns = async ({ system }: Rig) =>
  (await listControllers(system)).map(({ nqn }) => nqn).sort();
/** As after a cut: the kernel tries to come back. */
const cutOff = ({ system }: Rig) => {
  for (const name of system.controllers)
    system.put(`/sys/class/nvme/${name}/state`, "connecting\n");
};
const mountsAt = async ({ system }: Rig, at: string) =>
  (await listMounts(system))
    .filter((mount) => mount.path === at)
    .map(({ number, root }) => `${number}${root}`);

describe("a node that was cut off", () => {
  for (const [what, volumeCapability] of [
    ["a file system", undefined],
    ["raw block", block],
  ] as const) {
    test(`stages a later publication with nothing of the earlier one left: ${what}`, async (t) => {
      const rig = await start(t);
      const access = volumeCapability === undefined ? {} : { volumeCapability };
      await rig.ok("NodeStageVolume", stageOf({ ...named(0), ...access }));
      await rig.ok("NodePublishVolume", publishOf({ ...named(0), ...access }));
      const before = (await mountsAt(rig, TARGET)).join();
      cutOff(rig);

      await rig.ok("NodeStageVolume", stageOf({ ...named(2), ...access }));
      assert.deepEqual(await nqns(rig), [`${NQN}:2`]);
      assert.deepEqual(await mountsAt(rig, TARGET), [], "the earlier pod's mount is gone");
      await rig.ok("NodePublishVolume", publishOf({ ...named(2), ...access }));
      assert.notEqual((await mountsAt(rig, TARGET)).join(), before, "of another device");
      assert.equal((await mountsAt(rig, TARGET)).length, 1);
      await rig.ok("NodeUnpublishVolume", unpublishOf());
      await rig.ok("NodeUnstageVolume", unstageOf());
      assert.deepEqual(await nqns(rig), []);
    });
  }

  test("disconnects the earlier publication before it unmounts anything of it", async (t) => {
    const rig = await start(t);
    await rig.ok("NodeStageVolume", stageOf(named(0)));
    cutOff(rig);
    let connectedAtUnmount: string[] | null = null;
    rig.system.onRun = async (program) => {
      if (program === "umount") connectedAtUnmount ??= await nqns(rig);
    };
    await rig.ok("NodeStageVolume", stageOf(named(1)));
    assert.deepEqual(connectedAtUnmount, []);
    assert.ok(rig.system.programs.includes(`umount -l ${STAGING}`));
  });

  test("does not publish the mount of an earlier publication as the present one", async (t) => {
    const rig = await start(t);
    await rig.ok("NodeStageVolume", stageOf(named(0)));
    cutOff(rig);
    await rig.expect("FAILED_PRECONDITION", "NodePublishVolume", publishOf(named(1)));
    assert.deepEqual(await mountsAt(rig, TARGET), []);
  });

  test("unpublishes and unstages what it has, whatever it is called", async (t) => {
    const rig = await start(t);
    await rig.ok("NodeStageVolume", stageOf(named(3)));
    await rig.ok("NodePublishVolume", publishOf(named(3)));
    await rig.ok("NodeUnpublishVolume", unpublishOf());
    await rig.ok("NodeUnstageVolume", unstageOf());
    assert.deepEqual(await nqns(rig), []);
    assert.deepEqual(await mountsAt(rig, STAGING), []);
  });
});

describe("a request of an earlier publication", () => {
  test("takes nothing from a later one", async (t) => {
    const rig = await start(t);
    await rig.ok("NodeStageVolume", stageOf(named(2)));
    await rig.expect("FAILED_PRECONDITION", "NodeStageVolume", stageOf(named(1)));
    cutOff(rig); // its target restarts
    await rig.expect("FAILED_PRECONDITION", "NodeStageVolume", stageOf(named(1)));
    assert.deepEqual(await nqns(rig), [`${NQN}:2`]);
    assert.equal((await mountsAt(rig, STAGING)).length, 1);
  });

  test("with the documented name waits while a numbered one works and nobody can say which is later", async (t) => {
    const rig = await start(t);
    await rig.ok("NodeStageVolume", stageOf(named(2)));
    await rig.expect("UNAVAILABLE", "NodeStageVolume", stageOf(named(0)));
    assert.deepEqual(await nqns(rig), [`${NQN}:2`]);
  });

  test("the control plane says which publication is the present one", async (t) => {
    let served = `${V}:2`;
    const readVolume = async () =>
      ({ spec: {}, state: { target: { deviceUri: uriOf(served) } } }) as never;
    const rig = await start(t, { readVolume });
    await rig.ok("NodeStageVolume", stageOf(named(2)));
    await rig.expect("FAILED_PRECONDITION", "NodeStageVolume", stageOf(named(0)));
    served = V; // every host has left the numbered ones since
    await rig.ok("NodeStageVolume", stageOf(named(0)));
    assert.deepEqual(await nqns(rig), [NQN]);
  });
});

test("NodeStageVolume refuses what is no name of the volume", async (t) => {
  const rig = await start(t);
  for (const name of [`${V}:0`, `${V}:x`, `${V}:1:2`, `${V}x`, `${V}:`, V.replace("e", "f")]) {
    const publishContext = { uri: uriOf(name) };
    await rig.expect("INVALID_ARGUMENT", "NodeStageVolume", stageOf({ publishContext }));
  }
});

test("NvmeConnect gives the publication that is attached one more path, and no other one", async (t) => {
  const rig = await start(t);
  await rig.ok("NodeStageVolume", stageOf(named(2)));
  await rig.ok("NvmeConnect", { uri: uriOf(`${V}:2`, "10.1.0.6") });
  assert.deepEqual(await nqns(rig), [`${NQN}:2`, `${NQN}:2`]);
  await rig.expect("NOT_FOUND", "NvmeConnect", { uri: uriOf(`${V}:3`, "10.1.0.6") });
  await rig.expect("NOT_FOUND", "NvmeConnect", { uri: uriOf(V, "10.1.0.6") });
  assert.deepEqual(await nqns(rig), [`${NQN}:2`, `${NQN}:2`]);
});
