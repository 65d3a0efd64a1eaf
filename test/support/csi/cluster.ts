/**
 * Three engines, their pools as the operator makes them, and the CSI controller, for a guest that is a node of theirs.
 * Invariant: the first engine listens on 127.0.0.1, the one address of the host that a guest reaches.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { freeAddresses, LocalCluster } from "../../../hack/cluster/local.ts";
import { QUICK_CORE } from "../cluster.ts";
import { clearOnSignal } from "../interrupts.ts";
import type { CsiClient } from "./client.ts";
import { bundle, startController } from "./programs.ts";

const LABELS = { "openebs.io/created-by": "operator-diskpool" };

export type CsiCluster = {
  readonly cluster: LocalCluster;
  readonly controller: CsiClient;
  /** The folder with csi_node.cjs and csi_client.cjs. */
  readonly bundles: string;
};

export async function startCsiCluster(t: TestContext): Promise<CsiCluster> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-csi-"));
  t.after(async () => {
    await LocalCluster.clear(path.join(folder, "cluster")); // reads the folder: before it goes
    rmSync(folder, { recursive: true, force: true });
  });
  clearOnSignal(folder, path.join(folder, "cluster"));
  const cluster = await LocalCluster.create({
    folder: path.join(folder, "cluster"),
    engines: 3,
    diskMiB: 896,
    // The guest reaches the host's 127.0.0.1 alone: the nexus is there.
    addresses: ["127.0.0.1", ...(await freeAddresses(2))],
    coreArgs: QUICK_CORE,
  });
  mkdirSync(path.join(folder, "bundles"));
  const bundles = path.join(folder, "bundles");
  await Promise.all([
    cluster.start(),
    bundle("agents/csi-node/main.ts", path.join(bundles, "csi_node.cjs")),
    bundle("test/support/csi/client.ts", path.join(bundles, "csi_client.cjs")),
  ]);
  for (const { name, pool, disk } of cluster.nodes) {
    const body = { disks: [`aio://${disk}`], labels: LABELS };
    await cluster.rest.request("PUT", `/nodes/${name}/pools/${pool}`, body);
  }
  const controller = await startController(t, { restUrl: cluster.rest.url, folder });
  return { cluster, controller, bundles };
}
