/**
 * agent-core as a process: real etcd, real gRPC, engines in memory behind the published services.
 *
 * Checked: a volume is created and published through the internal API; a killed engine's volume heals; agent-core
 * itself, killed and started again, carries on.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { CORE_API, type CoreClient } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { EtcdStore } from "#common/store/etcd.ts";
import { EtcdServer, etcdMissing, freePort } from "#common/store/testing/etcd.ts";
import { FakeCluster } from "./testing/fake_engine.ts";
import { registerEngine, serveEngine } from "./testing/fake_grpc.ts";

const V1 = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const POLL_MS = 50;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const startMs = systemClock.monotonicMs();
  while (!(await holds())) {
    if (systemClock.monotonicMs() - startMs > 40_000) throw new Error(`never: ${what}`);
    await systemClock.sleep(POLL_MS);
  }
}

describe("agent-core as a process", { skip: etcdMissing(), timeout: 240_000 }, () => {
  const signal = AbortSignal.timeout(230_000);
  let etcd: EtcdServer;
  let store: EtcdStore;
  let cluster: FakeCluster;
  let api: CoreClient;
  let address: string;
  let agent: ChildProcess;
  const closing: (() => void | Promise<void>)[] = [];
  const ports = new Map<string, number>();

  const startAgent = () => {
    const args = [
      ["--import", "tsx", "agents/core/main.ts", "-g", address, "-s", etcd.endpoint],
      ["--store-lease-ttl", "2s", "--cache-period", "1s", "--deadline", "1s"],
      ["--reconcile-period", "200ms", "--reconcile-idle-period", "500ms"],
    ].flat();
    const env = { ...process.env, NOPLATFORM_UUID: "test", LOG_LEVEL: "warn" };
    agent = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"], env });
  };
  const stopAgent = async (how: NodeJS.Signals) => {
    const ended = new Promise((resolve) => agent.once("exit", resolve));
    agent.kill(how);
    await ended;
  };
  const register = async () => {
    for (const engine of cluster.engines) {
      const port = ports.get(engine.node) ?? 0;
      if (engine.alive) await registerEngine({ core: address, engine, port }).catch(() => {}); // it is down: again soon
    }
  };
  const statusIs = (wanted: string) => async () => {
    await register();
    await cluster.faultStep();
    await cluster.rebuildStep();
    try {
      return (await api.GetVolume({ volume: V1 }, { signal })).state.status === wanted;
    } catch {
      return false; // agent-core is still starting
    }
  };

  before(async () => {
    etcd = await EtcdServer.create();
    store = new EtcdStore({ endpoints: etcd.endpoint, timeoutMs: 5000 });
    cluster = new FakeCluster({ nodes: 3, store, nowMs: () => systemClock.now() });
    for (const engine of cluster.engines) {
      const server = await serveEngine(cluster, engine);
      ports.set(engine.node, server.port);
      closing.push(() => server.close());
    }
    address = `127.0.0.1:${await freePort()}`;
    startAgent();
    const channel = openChannel(address);
    closing.push(() => channel.close());
    api = makeJsonCalls(channel, CORE_API, { timeoutMs: 5000 });
    await until("all nodes are online", async () => {
      await register();
      try {
        const nodes = await api.GetNodes({}, { signal });
        return nodes.filter((node) => node.state?.status === "Online").length === 3;
      } catch {
        return false; // agent-core is still starting
      }
    });
  });
  after(async () => {
    await stopAgent("SIGTERM");
    for (const close of closing) await close();
    await store.close();
    await etcd.stop();
  });

  test("a volume is created and published", async () => {
    for (const { node } of cluster.engines) {
      await api.CreatePool({ node, pool: `pool-on-${node}`, disks: ["/dev/sdb"] }, { signal });
    }
    const body = { policy: { self_heal: true }, replicas: 3, size: 2 ** 28, thin: false };
    await api.CreateVolume({ volume: V1, body }, { signal });
    const protocol = "nvmf" as const;
    const request = { volume: V1, protocol, publishContext: {}, frontendNodes: [] };
    const { state } = await api.PublishVolume({ ...request, node: "node-1" }, { signal });
    assert.equal(state.status, "Online");
    assert.equal(state.target?.children.length, 3);
    const again = api.PublishVolume(request, { signal });
    await assert.rejects(again, { kind: "already-published" });
  });

  test("its specs are in etcd in the published form", async () => {
    const prefix = "/openebs.io/mayastor/apis/v0/clusters/test/namespaces/default";
    const entry = await store.get(`${prefix}/VolumeSpec/${V1}`);
    const spec = JSON.parse(entry?.value ?? "{}");
    assert.deepEqual(spec.status, { Created: "Online" });
    assert.equal(spec.operation, null);
    assert.equal(spec.target.active, true);
    assert.equal((await store.list(`${prefix}/ReplicaSpec/`)).length, 3);
    assert.ok(await store.get(`${prefix}/volume/${V1}/nexus/${spec.target.nexus}/info`));
  });

  test("a watch of it calls its URL when its key changes", async () => {
    const called: string[] = [];
    let heard = (): void => {};
    const call = new Promise<void>((resolve) => {
      heard = resolve;
    });
    const receiver = createServer((request, response) => {
      called.push(`${request.method} ${request.url}`);
      response.end("ignored", heard);
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    const address = receiver.address();
    assert.ok(address !== null && typeof address === "object");
    const watch = { volume: V1, callback: `http://127.0.0.1:${address.port}/changed?v=1` };
    try {
      await api.CreateVolumeWatch(watch, { signal });
      await assert.rejects(api.CreateVolumeWatch(watch, { signal }), { kind: "already-exists" });
      const prefix = "/openebs.io/mayastor/apis/v0/clusters/test/namespaces/default";
      await store.put(`${prefix}/Volume/${V1}`, "{}");
      await call;
      assert.deepEqual(called, ["PUT /changed?v=1"]);
      await api.DeleteVolumeWatch(watch, { signal });
      assert.deepEqual(await api.GetVolumeWatches({ volume: V1 }, { signal }), []);
    } finally {
      receiver.close();
    }
  });

  test("it heals when a killed engine returns", async () => {
    cluster.engine("node-2").kill();
    await until("degraded", statusIs("Degraded"));
    cluster.engine("node-2").restart();
    await until("online again", statusIs("Online"));
  });

  test("it survives agent-core being killed while another engine dies", async () => {
    await stopAgent("SIGKILL");
    cluster.engine("node-1").kill(); // the target's own
    startAgent();
    await until("unknown", statusIs("Unknown"));
    cluster.engine("node-1").restart();
    await until("online again", statusIs("Online"));
    assert.equal(cluster.openNexuses().length, 1);
  });
});
