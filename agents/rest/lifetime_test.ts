/** Requests and their ends over a real socket: a client that goes away, a server that stops. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { afterEach, beforeEach, test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { openVerifier } from "./auth.ts";
import { makeRestServer, type RestServer } from "./server.ts";
import { type FakeCore, node, startFakeCore } from "./testing/fake_core.ts";

let fake: FakeCore;
let channel: ReturnType<typeof openChannel>;
let server: RestServer;
let clock: ManualClock;
let port: number;

beforeEach(async () => {
  fake = await startFakeCore();
  channel = openChannel(`127.0.0.1:${fake.port}`);
  clock = new ManualClock();
  server = makeRestServer({
    core: makeJsonCalls(channel, CORE_API, { timeoutMs: 60_000 }),
    verifier: openVerifier,
    log: silentLog,
    clock,
    tls: null,
  });
  port = await server.listen({ host: "127.0.0.1", port: 0 });
});
afterEach(async () => {
  await server.close();
  channel.close();
  await fake.close();
});

/** Something that happens once. */
function moment() {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** A GetNodes that tells when it was reached and aborted, and answers when told to. */
function heldNodes() {
  const reached = moment();
  const aborted = moment();
  const release = moment();
  fake.instead.GetNodes = async (_, { signal }) => {
    signal.addEventListener("abort", () => aborted.resolve(), { once: true });
    reached.resolve();
    await Promise.race([release.promise, aborted.promise]);
    return [node];
  };
  return { reached: reached.promise, aborted: aborted.promise, release: release.resolve };
}

function get(): { status: Promise<number>; destroy(): void } {
  const asked = request({ host: "127.0.0.1", port, path: "/v0/nodes", agent: false });
  const status = new Promise<number>((resolve, reject) => {
    asked.on("response", (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode ?? 0));
    });
    asked.on("error", reject);
  });
  asked.end();
  return { status, destroy: () => void asked.destroy() };
}

test("a client that goes away aborts the call to agent-core", async () => {
  const held = heldNodes();
  const { status, destroy } = get();
  const failed = assert.rejects(status);
  await held.reached;
  destroy();
  await failed;
  await held.aborted;
});

test("close() lets a running request finish", async () => {
  const held = heldNodes();
  const { status } = get();
  await held.reached;
  const closed = server.close();
  held.release();
  assert.equal(await status, 200);
  await closed;
});

test("close() aborts a request that does not finish in time", async () => {
  const held = heldNodes();
  const { status } = get();
  await held.reached;
  const closed = server.close();
  await clock.advance(5_000);
  await held.aborted;
  assert.equal(await status, 503);
  await closed;
});

test("listen() says that an address is taken", async () => {
  const second = makeRestServer({
    core: makeJsonCalls(channel, CORE_API, { timeoutMs: 60_000 }),
    verifier: openVerifier,
    log: silentLog,
    clock,
    tls: null,
  });
  await assert.rejects(second.listen({ host: "127.0.0.1", port }), {
    kind: "unavailable",
    message: /^Cannot serve REST on 127\.0\.0\.1:\d+: .*EADDRINUSE/,
  });
  await second.close();
});
