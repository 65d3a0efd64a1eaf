/**
 * Steps: a node dies with everything on it and comes back while a volume is written; the volume is rebuilt.
 * Once the node of the agents, with a replica and a member of etcd: they have to come up elsewhere. Once the node that
 * serves the volume: its writer waits until the target is there again.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { until } from "../../../hack/cluster/local.ts";
import { PODS } from "./came_up.ts";
import type { ClusterNode } from "./cluster_under_test.ts";
import type { DataVolume } from "./data_volume.ts";
import type { Installation } from "./installation.ts";

/** A silent node is NotReady after 40 s by default; its control-plane pods leave it 5 s later and start elsewhere. */
const NOTICED_SECONDS = 180;
const REBUILT_SECONDS = 300;

function stopwatch(t: TestContext): (what: string) => void {
  const start = performance.now();
  return (what) =>
    t.diagnostic(`${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s: ${what}`);
}

async function bringBack(
  installation: Installation,
  { node, volume }: { readonly node: ClusterNode; readonly volume: DataVolume },
  tell: (what: string) => void,
): Promise<void> {
  await node.start();
  await until(
    `${node.name} Ready`,
    async () => {
      const line = await installation.kubectl(["get", "node", node.name, "--no-headers"]);
      return line.split(/\s+/)[1] === "Ready";
    },
    { seconds: 120, everyMs: 500 },
  );
  tell(`${node.name} is back`);
  await installation.untilVolume(volume.uuid, "Online", REBUILT_SECONDS);
  tell("the volume is rebuilt and Online");
  await volume.untilWrites();
  await installation.untilReady(PODS, 180);
  tell("every pod is Ready again");
}

export async function loseAgentsNode(
  t: TestContext,
  installation: Installation,
  volume: DataVolume,
): Promise<void> {
  const node = installation.cluster.node(await installation.nodeOf("agent-core"));
  assert.notEqual(node.name, volume.target);
  const tell = stopwatch(t);
  await node.stop();
  tell(`${node.name} is lost`);
  const { state } = await installation.untilVolume(volume.uuid, "Degraded", NOTICED_SECONDS);
  tell("the volume is Degraded");
  assert.equal(state.target?.node, volume.target);
  await volume.untilWrites();
  tell("writes go on");
  await bringBack(installation, { node, volume }, tell);
}

export async function loseTargetNode(
  t: TestContext,
  installation: Installation,
  volume: DataVolume,
): Promise<void> {
  const node = installation.cluster.node(volume.target);
  const tell = stopwatch(t);
  await node.stop();
  tell(`${node.name} is lost`);
  const seen = await until(
    "the volume without its target",
    async () => {
      const { state } = await installation.volume(volume.uuid);
      return state.status === "Online" || state.status === "Degraded" ? null : state.status;
    },
    { seconds: NOTICED_SECONDS, everyMs: 500 },
  );
  tell(`the volume is ${seen}`);
  await bringBack(installation, { node, volume }, tell);
  const { state } = await installation.volume(volume.uuid);
  assert.equal(state.target?.node, volume.target, "the target is where its writer looks for it");
}
