/** The collector's view of PersistentVolumes, against an API server double over real HTTP. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "#common/clock.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { TestApiServer } from "#common/kubernetes/testing/api_server.ts";
import { silentLog } from "#common/log.ts";
import { seededRandom } from "#common/random.ts";
import { pvSource } from "./kube_pvs.ts";

const PVS = "/api/v1/persistentvolumes";
const A = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const NAME = `pvc-${A}`;

const pv = (name: string, volumeHandle = A) => ({
  metadata: { name },
  spec: {
    csi: { driver: "io.openebs.csi-mayastor", volumeHandle },
    persistentVolumeReclaimPolicy: "Retain",
  },
  status: { phase: "Bound" },
});

async function follow(t: TestContext) {
  const server = new TestApiServer();
  await server.start();
  const stop = new AbortController();
  const { signal } = stop;
  const client = new KubeClient({ server: server.url, credentials: async () => ({}) });
  const source = pvSource(client, { clock: systemClock, random: seededRandom(7), log: silentLog });
  const told: string[] = [];
  const watching = source.watch(({ name, phase }, isGone) => {
    told.push(`${name} ${phase} ${isGone ? "gone" : "there"}`);
  }, signal);
  t.after(async () => {
    stop.abort();
    await watching;
    await server.stop();
  });
  /** Each event is told in order, so what came before the last one has been told too. */
  const until = async (wanted: string) => {
    const deadline = performance.now() + 10_000;
    while (told.at(-1) !== wanted) {
      if (performance.now() > deadline) assert.fail(`waited 10 s for ${wanted}: ${told}`);
      await sleep(5);
    }
  };
  return { server, source, signal, told, until };
}

test("watch() tells what comes and goes, in the form last seen", async (t) => {
  const { server, told, until } = await follow(t);
  server.put(PVS, pv(NAME));
  await until(`${NAME} Bound there`);
  server.change(PVS, NAME, { status: { phase: "Released" } });
  server.remove(PVS, NAME);
  await until(`${NAME} Released gone`);
  assert.deepEqual(told, [
    `${NAME} Bound there`,
    `${NAME} Released there`,
    `${NAME} Released gone`,
  ]);
});

test("watch() never tells that a PersistentVolume is gone because it cannot be read", async (t) => {
  const { server, source, signal, told, until } = await follow(t);
  server.put(PVS, pv(NAME));
  await until(`${NAME} Bound there`);
  server.change(PVS, NAME, { spec: { csi: { volumeHandle: 7 } } });
  server.put(PVS, pv("other"));
  await until("other Bound there");
  assert.deepEqual(told, [`${NAME} Bound there`, "other Bound there"]);
  await assert.rejects(source.find(A, signal), { kind: "internal" });
  await assert.rejects(source.list(signal), { kind: "internal" });
  // What its last readable form said may be wrong by now.
  server.remove(PVS, NAME);
  server.remove(PVS, "other");
  await until("other Bound gone");
  assert.equal(told.length, 3);
});

test("find() has those of the volume's name and of its handle, and fails rather than leave one out", async (t) => {
  const { server, source, signal, until } = await follow(t);
  const find = async () => (await source.find(A, signal)).map(({ name }) => name);
  assert.deepEqual(await find(), []);
  server.put(PVS, pv(NAME));
  assert.deepEqual(await find(), [NAME], "as it is now, whatever the watch has told");
  server.put(PVS, pv("by-hand", A.toUpperCase()));
  server.put(PVS, pv("last", "another"));
  await until("last Bound there");
  assert.deepEqual(await find(), [NAME, "by-hand"]);
  server.remove(PVS, NAME);
  assert.deepEqual(await find(), ["by-hand"]);
  server.failWith = 500;
  await assert.rejects(find(), { kind: "unavailable" });
});
