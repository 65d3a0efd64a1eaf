/** The rules for volumes that have a user, against a REST server double: what is asked for, and what is not. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { RestApi } from "./rest.ts";
import { deleteVolume, publishVolume } from "./volumes.ts";

const V = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const URI = `nvmf://10.1.0.5:4421/nqn.2019-05.io.openebs:${V}`;

function volume({ status = "Created", node = "", uri = URI, group = "" } = {}) {
  const spec = { uuid: V, num_replicas: 1, size: 1, status, thin: false };
  const target = { node, protocol: "nvmf" };
  const nexus = { ...{ uuid: V, node, size: 1, state: "Online", protocol: "nvmf", rebuilds: 0 } };
  const state = { uuid: V, size: 1, status: "Online", replica_topology: {} };
  return {
    spec: {
      ...spec,
      ...(group === "" ? {} : { affinity_group: { id: group } }),
      ...{ policy: { self_heal: true }, ...(node === "" ? {} : { target }) },
    },
    state: {
      ...state,
      ...(node === "" ? {} : { target: { ...nexus, children: [], deviceUri: uri } }),
    },
  };
}

/** Answers each call with what is given for it: a status and a body. */
async function serve(t: TestContext, answers: Readonly<Record<string, readonly [number, object]>>) {
  const calls: string[] = [];
  const server = createServer((request, response) => {
    const call = `${request.method} ${request.url?.split("?")[0]?.split("/v0")[1]}`;
    calls.push(call);
    const [status, body] = answers[call] ?? [404, { kind: "NotFound", details: "", message: "" }];
    request.resume();
    response.writeHead(status).end(status === 204 ? "" : JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // it listens on TCP
  const baseUrl = `http://127.0.0.1:${port}`;
  return { calls, rest: new RestApi({ baseUrl, timeoutMs: 5_000, clock: systemClock }) };
}

const READ = `GET /volumes/${V}`;
const DELETE = `DELETE /volumes/${V}`;
const PUBLISH = `PUT /volumes/${V}/target`;
const refusal = { kind: "PermissionDenied", details: "", message: "not its node" };

test("deleteVolume() deletes what has no user, and what is being deleted already", async (t) => {
  for (const found of [volume(), volume({ status: "Deleting", node: "node-1" })]) {
    const { rest, calls } = await serve(t, { [READ]: [200, found], [DELETE]: [204, {}] });
    await deleteVolume(rest, V);
    assert.deepEqual(calls, [READ, DELETE]);
  }
  const { rest } = await serve(t, {});
  await deleteVolume(rest, V); // gone
});

test("deleteVolume() refuses a published volume, and asks for nothing", async (t) => {
  const { rest, calls } = await serve(t, { [READ]: [200, volume({ node: "node-1" })] });
  await assert.rejects(deleteVolume(rest, V), {
    kind: "failed-precondition",
    message: /published; unpublish it first/,
  });
  assert.deepEqual(calls, [READ]);
});

test("publishVolume() without access lists asks whose volume it is, also for its target's own node", async (t) => {
  const found = volume({ node: "node-1" });
  const other = await serve(t, { [READ]: [200, found], [PUBLISH]: [401, refusal] });
  const wish = { uuid: V, nodeId: "node-1", parameters: {} };
  await assert.rejects(publishVolume(other.rest, wish), { kind: "failed-precondition" });
  assert.deepEqual(other.calls, [READ, PUBLISH]);
  const own = await serve(t, { [READ]: [200, found], [PUBLISH]: [200, found] });
  assert.deepEqual(await publishVolume(own.rest, wish), { uri: URI });
});

test("publishVolume() asks for a target on the application's node, but not inside an affinity group", async (t) => {
  const wish = { uuid: V, nodeId: "node-1", parameters: {} };
  const made = volume({ node: "node-1" });
  for (const group of ["", "set"]) {
    const { rest, calls } = await serve(t, {
      [READ]: [200, volume({ group })],
      [PUBLISH]: [200, made],
    });
    assert.deepEqual(await publishVolume(rest, wish), { uri: URI });
    assert.deepEqual(calls, [READ, ...(group === "" ? ["GET /nodes/node-1"] : []), PUBLISH]);
  }
});
