/**
 * Step: each pod of the installation is deleted once. It comes back Ready, the others stay, and the volume that is
 * being written meanwhile is Online again before the next one goes.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { until } from "../../../hack/cluster/local.ts";
import { PODS } from "./came_up.ts";
import type { DataVolume } from "./data_volume.ts";
import { type Installation, isReady } from "./installation.ts";

const READY_SECONDS = 180;
const ONLINE_SECONDS = 240;

export async function deleteEveryPod(
  t: TestContext,
  installation: Installation,
  volume: DataVolume,
): Promise<void> {
  const before = await installation.pods();
  const restarts = before.flatMap(({ status }) => status.containerStatuses ?? []);
  for (const { metadata } of before) {
    const start = performance.now();
    const took = () => `${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s`;
    await installation.kubectl(["delete", "pod", "-n", "mayastor", metadata.name]);
    await untilReplaced(installation, metadata.uid);
    const ready = took();
    await installation.untilVolume(volume.uuid, "Online", ONLINE_SECONDS);
    const online = took();
    await volume.untilWrites(120);
    t.diagnostic(`${metadata.name}: Ready ${ready}, volume Online ${online}, writes ${took()}`);
  }
  const uids = new Set(before.map(({ metadata }) => metadata.uid));
  const after = await installation.pods();
  assert.ok(after.every(({ metadata }) => !uids.has(metadata.uid)));
  assert.ok(restarts.length > 0);
}

async function untilReplaced(installation: Installation, uid: string): Promise<void> {
  await until(
    "the deleted pod gone",
    async () => (await installation.pods()).every(({ metadata }) => metadata.uid !== uid),
    { seconds: 60, everyMs: 500 },
  );
  await installation.untilReady(PODS, READY_SECONDS);
  assert.ok((await installation.pods()).every(isReady));
}
