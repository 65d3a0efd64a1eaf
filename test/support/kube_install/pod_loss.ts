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
  for (const { metadata } of before) {
    const others = await othersOf(installation, metadata.uid);
    const start = performance.now();
    const took = () => `${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s`;
    await installation.kubectl(["delete", "pod", "-n", "mayastor", metadata.name]);
    const replacement = await untilReplaced(installation, metadata.uid, others);
    const ready = took();
    await installation.untilVolume(volume.uuid, "Online", ONLINE_SECONDS);
    const online = took();
    await volume.untilWrites(120);
    assert.deepEqual(
      await othersOf(installation, replacement),
      others,
      `no other pod is replaced or restarted when ${metadata.name} goes`,
    );
    t.diagnostic(`${metadata.name}: Ready ${ready}, volume Online ${online}, writes ${took()}`);
  }
  const uids = new Set(before.map(({ metadata }) => metadata.uid));
  const after = await installation.pods();
  assert.equal(after.length, before.length);
  assert.ok(after.every(({ metadata }) => !uids.has(metadata.uid)));
}

/** How often the containers of all pods but one have been started again, by the pod's uid. */
async function othersOf(
  installation: Installation,
  uid: string,
): Promise<Readonly<Record<string, string>>> {
  const pods = await installation.pods();
  const others = pods.filter(({ metadata }) => metadata.uid !== uid);
  return Object.fromEntries(
    others.map(({ metadata, status }) => [
      metadata.uid,
      `${metadata.name}: ${(status.containerStatuses ?? [])
        .map(({ name, restartCount }) => `${name} ${restartCount}`)
        .toSorted()
        .join(", ")}`,
    ]),
  );
}

/** @returns the uid of the pod that has come for it */
async function untilReplaced(
  installation: Installation,
  uid: string,
  others: Readonly<Record<string, string>>,
): Promise<string> {
  await until(
    "the deleted pod gone",
    async () => (await installation.pods()).every(({ metadata }) => metadata.uid !== uid),
    { seconds: 60, everyMs: 500 },
  );
  await installation.untilReady(PODS, READY_SECONDS);
  const pods = await installation.pods();
  assert.ok(pods.every(isReady));
  const fresh = pods.map(({ metadata }) => metadata.uid).filter((one) => !(one in others));
  assert.equal(fresh.length, 1, "one pod has come for it");
  return fresh[0] ?? "";
}
