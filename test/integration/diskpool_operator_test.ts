/** operator-diskpool as a process: an API server double over real HTTP, a real api-rest and a real engine. */
import assert from "node:assert/strict";
import { closeSync, ftruncateSync, mkdtempSync, openSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import {
  type KubeObject,
  TestApiServer,
} from "../../agents/common/kubernetes/testing/api_server.ts";
import { LocalCluster, until } from "../../hack/cluster/local.ts";
import { ownPlace, QUICK_CORE } from "../support/cluster.ts";
import { clearOnSignal } from "../support/interrupts.ts";

const NS = "/api/v1/namespaces/mayastor";
const POOLS = "/apis/openebs.io/v1alpha1/namespaces/mayastor/diskpools";
const CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/mayastor/leases";
const FINALIZER = "openebs.io/diskpool-protection";
const MIB = 1024 * 1024;

type Status = {
  readonly state: string;
  readonly cr_state: string;
  readonly pool_status?: string;
  readonly capacity: number;
  readonly used: number;
  readonly available: number;
};

function writeKubeconfig(folder: string, server: string): string {
  const file = path.join(folder, "kubeconfig.json");
  const config = {
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{ name: "test", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "test", user: { token: "secret" } }],
  };
  writeFileSync(file, JSON.stringify(config)); // JSON is YAML
  return file;
}

function holderOf(lease: KubeObject | undefined): string {
  const spec = lease?.["spec"] as { holderIdentity?: string } | undefined; // a Lease
  return spec?.holderIdentity ?? "nobody";
}

function makeDisk(folder: string, name: string): string {
  const file = path.join(folder, `${name}.img`);
  const disk = openSync(file, "w");
  ftruncateSync(disk, 128 * MIB);
  closeSync(disk);
  return `aio://${file}`;
}

test("operator-diskpool keeps DiskPools and pools alike", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  const api = new TestApiServer();
  t.after(async () => {
    await LocalCluster.clear(folder);
    await api.stop();
  });
  clearOnSignal(folder);
  await api.start();
  const cluster = await LocalCluster.create({
    ...{ folder, engines: 1, diskMiB: 256, coreArgs: QUICK_CORE, ...ownPlace(1) },
  });
  const kubeconfig = writeKubeconfig(folder, api.url);
  const startOperator = () => {
    const args = ["-e", cluster.rest.url, "-nmayastor", "--request-timeout=5s", "--interval=1s"];
    cluster.processes.start(
      "operator",
      [process.execPath, "agents/diskpool-operator/main.ts", ...args],
      {
        cwd: path.resolve(import.meta.dirname, "..", ".."),
        env: { KUBECONFIG: kubeconfig, MY_POD_NAME: "operator-0" },
      },
    );
  };
  startOperator();
  await cluster.start();
  const [node] = cluster.nodes;
  assert.ok(node);

  const apply = (name: string, disk: string, on = node.name) =>
    api.put(POOLS, {
      apiVersion: "openebs.io/v1alpha1",
      kind: "DiskPool",
      metadata: { name, namespace: "mayastor" },
      spec: { node: on, disks: [disk] },
    });
  const statusOf = (name: string) => api.find(POOLS, name)?.["status"] as Status | undefined;
  const untilStatus = async (name: string, wanted: Partial<Status>) => {
    try {
      await until(
        `${name} ${JSON.stringify(wanted)}`,
        async () => {
          const status = statusOf(name) ?? {};
          return Object.entries(wanted).every(([key, value]) =>
            Object.entries(status).some(([k, v]) => k === key && v === value),
          );
        },
        { seconds: 40 },
      );
    } catch (error) {
      const last = `${JSON.stringify(api.find(POOLS, name))}\n${cluster.processes.logTail("operator", 20)}`;
      throw new Error(`${String(error)}\n${last}`);
    }
  };
  type Event = KubeObject & {
    readonly involvedObject: { readonly name: string };
    readonly [key: string]: unknown;
  };
  const eventsOf = (name: string) =>
    (api.all(`${NS}/events`) as Event[]).filter((event) => event.involvedObject.name === name);
  const untilEvent = (name: string, action: string) =>
    until(
      `event ${action} of ${name}`,
      async () => eventsOf(name).find((event) => event["action"] === action),
      { seconds: 40 },
    );
  const online = { state: "Online", cr_state: "Created", pool_status: "Online" } as const;

  await t.test("makes the CRD and leads", async () => {
    const crd = await until("the CRD", async () => api.find(CRDS, "diskpools.openebs.io"));
    const [version] = (crd["spec"] as { versions: Record<string, unknown>[] }).versions;
    const columns = version?.["additionalPrinterColumns"] as { name: string }[];
    assert.deepEqual(
      columns.map(({ name }) => name),
      ["node", "state", "pool_status", "capacity", "used", "available"],
    );
    const lease = await until("the lease", async () => api.find(LEASES, "operator-diskpool"));
    assert.match(holderOf(lease), /^operator-0_/);
  });

  await t.test("creates a pool and reports it", async () => {
    apply("pool-1", `aio://${node.disk}`);
    await untilStatus("pool-1", online);
    const status = statusOf("pool-1");
    assert.ok(status && status.capacity > 200 * MIB && status.capacity <= 256 * MIB);
    assert.equal(status.available, status.capacity - status.used);
    assert.deepEqual(api.find(POOLS, "pool-1")?.metadata.finalizers, [FINALIZER]);
    const [pool] = await cluster.rest.pools();
    assert.deepEqual(pool?.spec?.labels, { "openebs.io/created-by": "operator-diskpool" });
    const created = await untilEvent("pool-1", "Create or Import");
    assert.equal(created["reason"], "Created");
    assert.equal(created["reportingComponent"], "dsp-operator");
    assert.equal(created["reportingInstance"], "operator-0");
    assert.match(created.metadata.name, /^pool-1\.[0-9a-f]+/);
  });

  await t.test("writes nothing while nothing changes", async () => {
    const version = api.find(POOLS, "pool-1")?.metadata.resourceVersion;
    const seen = api.requests.length;
    await new Promise((resolve) => setTimeout(resolve, 2500)); // two intervals
    assert.equal(api.find(POOLS, "pool-1")?.metadata.resourceVersion, version);
    const writes = api.requests.slice(seen).filter(({ method }) => method !== "GET");
    assert.deepEqual(
      writes.filter(({ path: at }) => !at.startsWith(LEASES)),
      [],
    );
  });

  await t.test("adopts a pool that exists", async () => {
    const disk = makeDisk(folder, "adopted");
    await cluster.rest.request("PUT", `/nodes/${node.name}/pools/adopted`, { disks: [disk] });
    apply("adopted", disk);
    await untilStatus("adopted", online);
    const actions = eventsOf("adopted").map((event) => event["action"]);
    assert.deepEqual(actions, ["Online pool"]);
  });

  await t.test("explains a missing disk, an unknown node and a name in use", async () => {
    apply("no-disk", "/dev/there-is-no-such-disk");
    apply("no-node", "/dev/vdb", "node-99");
    const disk = makeDisk(folder, "taken");
    await cluster.rest.request("PUT", `/nodes/${node.name}/pools/taken`, { disks: [disk] });
    apply("taken", disk, "node-99");
    const missing = await untilEvent("no-disk", "Create or import");
    assert.deepEqual([missing["reason"], missing["type"]], ["Missing", "Warning"]);
    assert.match(String(missing["message"]), /there-is-no-such-disk/);
    const unknown = await untilEvent("no-node", "Create or Import Failure");
    assert.match(String(unknown["message"]), /Cannot find io-engine node "node-99"/);
    const taken = await untilEvent("taken", "Create or Import Failure");
    assert.match(String(taken["message"]), /exists on node node-1, not on node-99/);
    assert.equal(statusOf("no-disk")?.cr_state, "Creating");
    await untilStatus("taken", { state: "Error" });
    // Deleting them takes no pool away.
    for (const name of ["no-disk", "no-node", "taken"]) api.remove(POOLS, name);
    await until("all three gone", async () => api.all(POOLS).length === 2, { seconds: 40 });
    const left = (await cluster.rest.pools()).map(({ id }) => id).sort();
    assert.deepEqual(left, ["adopted", "pool-1", "taken"]);
  });

  await t.test("makes a pool again that was removed through REST", async () => {
    await cluster.rest.request("DELETE", "/pools/pool-1");
    await untilEvent("pool-1", "Notfound");
    await untilStatus("pool-1", online);
    await until("the pool", async () =>
      (await cluster.rest.pools()).some((p) => p.id === "pool-1"),
    );
  });

  await t.test("knows nothing of a pool whose node is down, and has it back after", async () => {
    await cluster.endEngine(node, "SIGKILL");
    await untilStatus("pool-1", { state: "Unknown", pool_status: "Unknown", capacity: 0 });
    assert.equal(statusOf("pool-1")?.cr_state, "Created");
    cluster.startEngine(node);
    await untilStatus("pool-1", online);
  });

  await t.test("survives an API server restart, and sees what happened meanwhile", async () => {
    await until("a watch", async () => api.watches > 0);
    await api.stop();
    api.remove(POOLS, "adopted"); // marked only: it has the finalizer
    apply("made-meanwhile", makeDisk(folder, "meanwhile"));
    api.compact(); // and history is lost
    await api.start();
    await untilStatus("made-meanwhile", online);
    await until("adopted gone", async () => api.find(POOLS, "adopted") === undefined, {
      seconds: 40,
    });
    const pools = (await cluster.rest.pools()).map(({ id }) => id);
    assert.ok(!pools.includes("adopted"), "its pool is destroyed");
    assert.match(holderOf(api.find(LEASES, "operator-diskpool")), /^operator-0/);
  });

  await t.test("keeps a DiskPool whose pool has replicas, and says why", async () => {
    const volume = "ec4e66fd-3b33-4439-b504-d49aba53da26";
    await cluster.rest.request("PUT", `/volumes/${volume}`, {
      ...{ size: 16 * MIB, replicas: 1, thin: false, policy: { self_heal: false } },
      topology: {
        node_topology: { explicit: { allowed_nodes: [node.name], preferred_nodes: [] } },
      },
    });
    const [replica] = await cluster.rest.replicas();
    const pool = replica?.pool ?? "";
    if (api.find(POOLS, pool) === undefined) apply(pool, makeDisk(folder, "unused"));
    await untilStatus(pool, online);
    api.remove(POOLS, pool);
    const event = await untilEvent(pool, "Destroy pool");
    assert.match(String(event["message"]), /it has replicas/);
    assert.equal(statusOf(pool)?.cr_state, "Terminating");
    assert.ok((await cluster.rest.pools()).some(({ id }) => id === pool));
    await cluster.rest.request("DELETE", `/volumes/${volume}`);
    // Tried again within 20 s.
    await until(`${pool} gone`, async () => api.find(POOLS, pool) === undefined, { seconds: 40 });
    assert.ok(!(await cluster.rest.pools()).some(({ id }) => id === pool));
  });

  await t.test("stops in good order, giving up the lease", async () => {
    await cluster.processes.end("operator", "SIGTERM");
    const lease = api.find(LEASES, "operator-diskpool");
    assert.equal(holderOf(lease), "");
    const crdWrites = api.requests.filter(
      ({ method, path: at }) => method !== "GET" && at.startsWith(CRDS),
    );
    assert.equal(crdWrites.length, 1, "the CRD was made once and then left alone");
  });
});
