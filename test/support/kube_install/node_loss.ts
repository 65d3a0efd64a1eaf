/** Step: a node that holds a replica dies with everything on it and comes back; the volume is rebuilt. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { until } from "../../../hack/cluster/local.ts";
import { PODS } from "./came_up.ts";
import type { DataVolume } from "./data_volume.ts";
import type { Installation } from "./installation.ts";

/** A silent node is NotReady after 40 s by default; its control-plane pods leave it 5 s later and start elsewhere. */
const DEGRADED_SECONDS = 180;
const REBUILT_SECONDS = 300;

export async function loseNode(
  t: TestContext,
  installation: Installation,
  volume: DataVolume,
): Promise<void> {
  const node = installation.cluster.nodes.find(({ name }) => name !== volume.target);
  assert.ok(node !== undefined);
  const start = performance.now();
  const tell = (what: string) =>
    t.diagnostic(`${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s: ${what}`);
  await node.stop();
  tell(`${node.name} is lost`);
  const { state } = await installation.untilVolume(volume.uuid, "Degraded", DEGRADED_SECONDS);
  tell("the volume is Degraded");
  assert.equal(state.target?.node, volume.target);
  await volume.untilWrites();
  tell("writes go on");
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
