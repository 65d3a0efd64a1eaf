import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startCluster } from "../support/cluster.ts";

const VOLUME = "6d2a7a1f-1e4c-4e3d-9b58-7a1a6cf8d003";
const MIB = 1024 * 1024;
const WINDOW_SECONDS = 30;

test("an idle engine with a pool and a published volume stays under 1 % of a core and 200 MiB", async (t) => {
  // Default periods: what a user's engine sees.
  const cluster = await startCluster(t, { engines: 1, coreArgs: [] });
  await cluster.rest.createVolume(VOLUME, { size: 64 * MIB, replicas: 1 });
  await cluster.rest.publish(VOLUME);
  await sleep(5000);
  const before = cluster.usage("node-1");
  await sleep(WINDOW_SECONDS * 1000);
  const after = cluster.usage("node-1");
  assert.ok(before && after, "the engine has ended");
  const percent = ((after.cpuSeconds - before.cpuSeconds) / WINDOW_SECONDS) * 100;
  const rssMiB = after.rssBytes / MIB;
  t.diagnostic(
    `idle engine: ${percent.toFixed(2)} % of one core, ${rssMiB.toFixed(0)} MiB resident`,
  );
  assert.ok(percent <= 1, `idle engine used ${percent.toFixed(2)} % of a core`);
  assert.ok(rssMiB <= 200, `idle engine holds ${rssMiB.toFixed(0)} MiB`);
});
