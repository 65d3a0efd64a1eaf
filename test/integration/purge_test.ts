/** What is lost for good is given up, and comes back all the same: with real engines. */
import assert from "node:assert/strict";
import { closeSync, ftruncateSync, openSync, renameSync } from "node:fs";
import { test } from "node:test";
import type { Nexus, PurgeCost, Replica } from "#common/openapi/model.ts";
import { type EngineNode, type LocalCluster, until } from "../../hack/cluster/local.ts";
import { type Cleanup, startCluster, startWriter, untilOnline } from "../support/cluster.ts";

const VOLUME = "5c1f6f0e-0d3b-4d2c-8a47-6f0f5be7c005";
const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

function suspend(t: Cleanup, cluster: LocalCluster, node: EngineNode): () => void {
  const pid = cluster.processes.pid(node.name);
  assert.ok(pid);
  process.kill(pid, "SIGSTOP");
  const resume = () => process.kill(pid, "SIGCONT");
  t.after(() => {
    try {
      resume();
    } catch {} // it has ended
  });
  return resume;
}

const statusOf = async (cluster: LocalCluster, name: string) =>
  (await cluster.rest.nodes()).find(({ id }) => id === name)?.state?.status;

const untilNode = (cluster: LocalCluster, node: string, status: string) =>
  until(`node ${node} ${status}`, async () => (await statusOf(cluster, node)) === status, {
    seconds: 60,
  });

const replicasOn = async (cluster: LocalCluster, pool: string) =>
  (await cluster.rest.replicas()).filter((replica: Replica) => replica.pool === pool);

function blankDisk(file: string): void {
  const disk = openSync(file, "wx");
  ftruncateSync(disk, 512 * MIB);
  closeSync(disk);
}

test("a lost disk's pool is purged, its volume heals elsewhere, the disk comes back and is nobody's", async (t) => {
  const cluster = await startCluster(t, { engines: 4 });
  const [first, second, third] = cluster.nodes;
  assert.ok(first && second && third);
  await cluster.rest.createVolume(VOLUME, { size: SIZE, replicas: 2 });
  const homes = (await cluster.rest.replicas()).map(({ node }) => node);
  const [kept, lost] = cluster.nodes.filter(({ name }) => homes.includes(name));
  assert.ok(kept && lost);
  const published = await cluster.rest.publish(VOLUME, kept.name);
  const host = startWriter(t, [
    ...["--uri", published.state.target?.deviceUri ?? "", "--bytes", String(16 * MIB)],
    ...["--seed", "3", "--journal", `${cluster.folder}/journal`, "--rate", "100"],
    ...["--progress-seconds", "0.5"],
  ]);
  await host.acknowledges(50);
  const purge = `/pools/${lost.pool}/purge`;
  await assert.rejects(cluster.rest.request("DELETE", purge), /is Online/);

  await cluster.endEngine(lost, "SIGKILL");
  renameSync(lost.disk, `${lost.disk}.old`);
  blankDisk(lost.disk);
  cluster.startEngine(lost);
  await until(
    "the pool to be missed",
    async () => {
      const cost = (await cluster.rest.request("GET", purge)) as PurgeCost;
      return cost.refused === undefined && cost.volumes[0]?.left === 1;
    },
    { seconds: 60 },
  );
  await cluster.rest.request("DELETE", purge);
  await until(
    "the volume to heal elsewhere",
    async () => {
      const replicas = await cluster.rest.replicas();
      return replicas.length === 2 && replicas.every(({ node }) => node !== lost.name);
    },
    { seconds: 60 },
  );
  await untilOnline(cluster, VOLUME);
  await untilNode(cluster, lost.name, "Online");
  // The new disk under the old name; the old one is not taken for it.
  await cluster.rest.createPool(lost.name, lost.pool, `aio://${lost.disk}`);
  await cluster.endEngine(lost, "SIGKILL");
  renameSync(lost.disk, `${lost.disk}.new`);
  renameSync(`${lost.disk}.old`, lost.disk);
  cluster.startEngine(lost);
  await until(
    "the old disk to be refused",
    async () => {
      const pool = (await cluster.rest.pools()).find(({ id }) => id === lost.pool);
      return pool?.status_reason?.message.includes("was purged") === true;
    },
    { seconds: 60 },
  );
  assert.deepEqual(await replicasOn(cluster, lost.pool), []);
  await host.acknowledges(50);
  assert.equal((await cluster.rest.volume(VOLUME)).state.status, "Online");
});

test("a node that was only cut off is purged with its target, comes back, and nothing of it is used", async (t) => {
  const cluster = await startCluster(t);
  await cluster.rest.createVolume(VOLUME, { size: SIZE, replicas: 2 });
  const [home] = (await cluster.rest.replicas()).map(({ node }) => node);
  const gone = cluster.nodes.find(({ name }) => name === home);
  assert.ok(gone);
  const old = (await cluster.rest.publish(VOLUME, gone.name)).state.target;
  assert.ok(old);
  await assert.rejects(cluster.rest.request("DELETE", `/nodes/${gone.name}/purge`), /answers/);
  const resume = suspend(t, cluster, gone);
  await untilNode(cluster, gone.name, "Offline");
  await cluster.rest.request("DELETE", `/nodes/${gone.name}/purge`);
  assert.equal(await statusOf(cluster, gone.name), undefined);
  const moved = await untilOnline(cluster, VOLUME).catch(() => cluster.rest.volume(VOLUME));
  assert.notEqual(moved.state.target?.node, gone.name);

  resume();
  await untilNode(cluster, gone.name, "Online");
  await until(
    "its old target to go",
    async () => {
      const nexuses = (await cluster.rest.request("GET", `/nodes/${gone.name}/nexuses`)) as Nexus[];
      return nexuses.every(({ uuid }) => uuid !== old.uuid);
    },
    { seconds: 60 },
  );
  assert.deepEqual(await replicasOn(cluster, gone.pool), []);
  assert.ok((await cluster.rest.pools()).every(({ id }) => id !== gone.pool));
});
