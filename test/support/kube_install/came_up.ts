/** Step: the pods come up, the drivers are registered, pools and nodes are shown as documented. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { DRIVER_NAME } from "#common/csi/driver.ts";
import { until } from "../../../hack/cluster/local.ts";
import { COLUMNS, NAMESPACE, readTable } from "./documented.ts";
import { DISK, type Installation } from "./installation.ts";

const READY_SECONDS_MAX = 180;

/** Pods of each component on three nodes. */
export const PODS = {
  etcd: 3,
  "agent-core": 1,
  "api-rest": 1,
  "io-engine": 3,
  "operator-diskpool": 1,
  "csi-controller": 1,
  "csi-node": 3,
} as const;

/** Containers of a pod of each component, as `READY` shows them. */
const CONTAINERS: Readonly<Record<keyof typeof PODS, number>> = {
  etcd: 1,
  "agent-core": 1,
  "api-rest": 1,
  "io-engine": 2,
  "operator-diskpool": 1,
  "csi-controller": 3,
  "csi-node": 2,
};

export async function checkCameUp(t: TestContext, installation: Installation): Promise<void> {
  await installation.apply();
  const seconds = await installation.untilReady(PODS, READY_SECONDS_MAX);
  for (const [component, took] of Object.entries(seconds))
    t.diagnostic(`Ready after ${took.toFixed(0).padStart(4)} s: ${component}`);

  const text = await installation.kubectl(["get", "pods", "-n", NAMESPACE]);
  const rows = readTable(text, COLUMNS.pods);
  for (const [component, count] of Object.entries(CONTAINERS)) {
    const own = rows.filter(({ NAME = "" }) => NAME.startsWith(`mayastor-${component}-`));
    assert.ok(own.length > 0, `a pod of ${component} in:\n${text}`);
    for (const row of own) {
      assert.equal(row["READY"], `${count}/${count}`, row["NAME"]);
      assert.equal(row["STATUS"], "Running", row["NAME"]);
    }
  }
  await checkRegistered(installation);
}

/** The kubelet of each node has taken the driver in, with the topology that it reports. */
async function checkRegistered(installation: Installation): Promise<void> {
  for (const { name } of installation.cluster.nodes) {
    const found = await until(
      `the CSI driver on ${name}`,
      async () => {
        const { spec } = await installation.json<{
          spec: { drivers: { name: string; nodeID: string; topologyKeys: string[] }[] | null };
        }>(["get", "csinode", name]);
        return spec.drivers?.find((driver) => driver.name === DRIVER_NAME);
      },
      { seconds: 60, everyMs: 500 },
    );
    assert.equal(found.nodeID, name);
    assert.deepEqual(found.topologyKeys.toSorted(), ["openebs.io/csi-node", "openebs.io/nodename"]);
    const { metadata } = await installation.json<{ metadata: { labels: Record<string, string> } }>([
      ...["get", "node", name],
    ]);
    assert.equal(metadata.labels["openebs.io/csi-node"], "mayastor");
    assert.equal(metadata.labels["openebs.io/nodename"], name);
  }
}

/** DiskPools become Online; `kubectl get dsp` and the plugin's tables have the documented columns and values. */
export async function checkTables(installation: Installation): Promise<void> {
  const { nodes } = installation.cluster;
  const show = () => installation.kubectl(["get", "dsp", "-n", NAMESPACE]);
  await until(
    "every DiskPool Online",
    async () => {
      const rows = readTable(await show(), COLUMNS.diskPools);
      return rows.length === nodes.length && rows.every(({ STATE }) => STATE === "Online");
    },
    { seconds: 60, everyMs: 500 },
  ).catch(async (error: unknown) => {
    throw new Error(`${String(error)}\n${await show()}\n${await installation.explain()}`);
  });
  for (const [index, row] of readTable(await show(), COLUMNS.diskPools).entries()) {
    assert.equal(row["NAME"], `pool-on-node-${index + 1}`);
    assert.equal(row["NODE"], nodes[index]?.name);
    assert.equal(row["POOL_STATUS"], "Online");
    assert.equal(row["USED"], "0");
    assert.match(row["CAPACITY"] ?? "", /^\d{10}$/);
    assert.equal(row["AVAILABLE"], row["CAPACITY"]);
  }
  const engines = readTable(await installation.plugin("get", "nodes"), COLUMNS.nodes);
  assert.deepEqual(
    engines.toSorted((a, b) => (a["ID"] ?? "").localeCompare(b["ID"] ?? "")),
    nodes.map(({ name, address }) => ({
      ID: name,
      "GRPC ENDPOINT": `${address}:10124`,
      STATUS: "Online",
      CORDONED: "false",
    })),
  );
  const pools = readTable(await installation.plugin("get", "pools"), COLUMNS.pools);
  assert.equal(pools.length, nodes.length);
  for (const row of pools) {
    assert.equal(row["MANAGED"], "true");
    assert.equal(row["STATUS"], "Online");
    assert.equal(row["ALLOCATED"], "0 B");
    assert.ok(row["DISKS"]?.startsWith(DISK), row["DISKS"]);
  }
}
