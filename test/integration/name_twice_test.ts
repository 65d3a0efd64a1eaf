/** A second engine under a living one's name, with real processes: it changes nothing, and gets the name when the first is gone. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type LocalCluster, until } from "../../hack/cluster/local.ts";
import { startCluster, startWriter, untilOnline } from "../support/cluster.ts";
import { loopbackAddress } from "../support/slot.ts";

const VOLUME = "5c1f6f0e-0d3b-4d2c-8a47-6f0f5be7c013";
const MIB = 1024 * 1024;

const logOf = (cluster: LocalCluster, name: string) =>
  readFileSync(cluster.processes.logFile(name), "utf8");

const nodeOf = async (cluster: LocalCluster, name: string) =>
  (await cluster.rest.nodes()).find(({ id }) => id === name);

test("a second engine under a living one's name is refused and told why; it gets the name when the first is gone", async (t) => {
  const cluster = await startCluster(t);
  const [first, second] = cluster.nodes;
  assert.ok(first && second);
  await cluster.rest.createVolume(VOLUME, { size: 32 * MIB, replicas: 2 });
  const published = await cluster.rest.publish(VOLUME, second.name);
  const { target } = published.state;
  assert.ok(target);
  const host = startWriter(t, [
    ...["--uri", target.deviceUri, "--bytes", String(16 * MIB), "--seed", "3"],
    ...["--journal", `${cluster.folder}/journal`, "--rate", "100", "--progress-seconds", "0.5"],
  ]);
  await host.acknowledges(50);

  const twin = { ...second, address: loopbackAddress() };
  cluster.startEngine(twin, "twin");
  const told = await until(
    "the operator to be told",
    async () => {
      const node = await nodeOf(cluster, second.name);
      return node?.state?.status_reason?.code === "name-used-twice" ? node : null;
    },
    { seconds: 60 },
  );
  assert.equal(told.state?.grpcEndpoint, `${second.address}:10124`);
  assert.equal(told.state?.status, "Online");
  await until(
    "the second engine to say why it is refused",
    async () => logOf(cluster, "twin").includes(`answers at ${second.address}:10124`),
    { seconds: 30 },
  );
  assert.match(logOf(cluster, "agent-core"), /node name is used twice/);

  // Its going changes nothing either.
  await cluster.processes.end("twin", "SIGTERM");
  assert.equal((await nodeOf(cluster, second.name))?.state?.status, "Online");
  const made = logOf(cluster, "agent-core").split("nexus created again").length - 1;
  assert.equal(made, 0, "the target was left alone");
  await host.acknowledges(50);
  assert.equal((await untilOnline(cluster, VOLUME)).state.target?.uuid, target.uuid);

  cluster.startEngine(twin, "twin");
  await cluster.endEngine(second, "SIGKILL");
  await until(
    "the second engine to have the name",
    async () =>
      (await nodeOf(cluster, second.name))?.state?.grpcEndpoint === `${twin.address}:10124`,
    { seconds: 60 },
  );
});
