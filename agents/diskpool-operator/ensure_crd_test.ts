/** The CRD against an API server double over real HTTP. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { diskPoolCrd } from "#common/crd/diskpool.ts";
import { isKind } from "#common/errors.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { type KubeObject, TestApiServer } from "#common/kubernetes/testing/api_server.ts";
import { silentLog } from "#common/log.ts";
import { covers, ensureCrd, updatedCrd } from "./ensure_crd.ts";

const CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME = "diskpools.openebs.io";
const { signal } = new AbortController();

test("covers() lets the API server add its defaults, and nothing be missing", () => {
  assert.ok(covers({ a: 1, extra: true, list: [{ b: 2, c: 3 }] }, { a: 1, list: [{ b: 2 }] }));
  assert.ok(covers({ a: 1 }, { a: 1, none: [] }));
  assert.ok(!covers({ a: 1 }, { a: 1, b: 2 }));
  assert.ok(!covers({ list: [1] }, { list: [1, 2] }));
});

test("updatedCrd() keeps the versions of others, and stores ours", () => {
  const later = { name: "v1beta2", storage: true, served: true, schema: {} };
  const conversion = { strategy: "Webhook", webhook: { conversionReviewVersions: ["v1"] } };
  const found = {
    metadata: { name: NAME, resourceVersion: "7" },
    spec: { versions: [later], conversion },
  };
  const update = updatedCrd(found) as {
    metadata: unknown;
    spec: { versions: unknown[]; conversion: unknown };
  };
  assert.deepEqual(update.spec.conversion, conversion, "what reads their versions stays");
  assert.deepEqual(update.metadata, { name: NAME, resourceVersion: "7" });
  assert.deepEqual(update.spec.versions, [
    diskPoolCrd().spec.versions[0],
    { ...later, storage: false },
  ]);
});

async function rig(t: { after(callback: () => Promise<void>): void }) {
  const server = new TestApiServer();
  await server.start();
  t.after(() => server.stop());
  const connection = { server: server.url, credentials: async () => ({}) };
  const client = new KubeClient(connection);
  const run = () => ensureCrd({ client, clock: systemClock, log: silentLog }, signal);
  const writes = () => server.requests.filter(({ method }) => method !== "GET").length;
  return { server, run, writes };
}

test("ensureCrd() makes it where it is missing, and then leaves it alone", async (t) => {
  const { server, run, writes } = await rig(t);
  await run();
  assert.deepEqual(server.find(CRDS, NAME)?.["spec"], diskPoolCrd().spec);
  assert.equal(writes(), 1);
  await run();
  assert.equal(writes(), 1);
});

test("ensureCrd() brings an older one up to date", async (t) => {
  const { server, run, writes } = await rig(t);
  const { spec } = structuredClone(diskPoolCrd());
  const [version] = spec.versions;
  const old = { ...spec, versions: [{ ...version, additionalPrinterColumns: [] }] };
  const labels = { "openebs.io/release": "mayastor" };
  server.put(CRDS, { metadata: { name: NAME, labels }, spec: old } as KubeObject);
  await run();
  const found = server.find(CRDS, NAME);
  assert.deepEqual(found?.["spec"], spec);
  assert.deepEqual(found?.metadata["labels"], labels, "labels of the installation stay");
  assert.equal(writes(), 1);
});

test("ensureCrd() ends with what the API server said when it may not", async (t) => {
  const { server, run } = await rig(t);
  server.failWith = 403;
  await assert.rejects(run, (error) => isKind(error, "permission-denied"));
});
