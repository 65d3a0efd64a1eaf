/** Peers that are slow, silent or no HTTP clients at all, over real sockets. */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { type TestContext, test } from "node:test";
import { ManualClock, systemClock } from "#common/clock.ts";
import { type Log, silentLog } from "#common/log.ts";
import { RestJsonErrorSchema } from "#common/openapi/model.ts";
import { systemRandom } from "#common/random.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { openVerifier } from "./auth.ts";
import { type KeyAndCertificate, selfSigned } from "./certificate.ts";
import { makeRestServer } from "./server.ts";
import { node, startFakeCore } from "./testing/fake_core.ts";

const parseError = parserOf(RestJsonErrorSchema, "the error", "internal");
/** What close() may wait for, by its own clock. */
const CLOSE_MS = 6_000;
const limit = { timeout: 30_000 };

async function start(
  t: TestContext,
  { tls = null, log = silentLog }: { tls?: KeyAndCertificate | null; log?: Log } = {},
) {
  const fake = await startFakeCore();
  const channel = openChannel(`127.0.0.1:${fake.port}`);
  const clock = new ManualClock();
  const core = makeJsonCalls(channel, CORE_API, { timeoutMs: 60_000 });
  const server = makeRestServer({ core, verifier: openVerifier, log, clock, tls });
  const port = await server.listen({ host: "127.0.0.1", port: 0 });
  const open: net.Socket[] = [];
  t.after(async () => {
    for (const socket of open) socket.destroy();
    await server.close();
    channel.close();
    await fake.close();
  });
  const connect = async () => {
    const socket = net.connect(port, "127.0.0.1");
    open.push(socket);
    await once(socket, "connect");
    return socket;
  };
  return { fake, server, clock, connect };
}

async function readUntil(socket: net.Socket, text: string): Promise<string> {
  let seen = "";
  for await (const chunk of socket) {
    seen += chunk;
    if (seen.includes(text)) break;
  }
  return seen;
}

async function readAll(socket: net.Socket): Promise<string> {
  let seen = "";
  for await (const chunk of socket) seen += chunk;
  return seen;
}

test("close() does not wait for the rest of a request", limit, async (t) => {
  const { server, clock, connect } = await start(t);
  const socket = await connect();
  const head = "PUT /v0/volumes/6e3cf927-80c2-47f4-8d3a-1f3d7a3b8d0e HTTP/1.1\r\nhost: x\r\n";
  socket.write(`${head}expect: 100-continue\r\ncontent-length: 10\r\n\r\n`);
  await new Promise<void>((resolve) => socket.once("data", () => resolve())); // 100: it has the head
  socket.write("{");
  socket.on("error", () => {}); // it is cut
  const closed = server.close();
  await clock.advance(CLOSE_MS);
  await closed;
});

test("a request has a limited time to arrive", limit, async (t) => {
  const { headersTimeout, requestTimeout } = (await start(t)).server.app.server;
  assert.deepEqual([headersTimeout, requestTimeout], [10_000, 30_000]);
});

for (const scheme of ["http", "https"]) {
  test(`close() does not wait for a peer that says nothing over ${scheme}`, limit, async (t) => {
    const tls =
      scheme === "https"
        ? await selfSigned("api-rest", { clock: systemClock, random: systemRandom })
        : null;
    const { server, clock, connect } = await start(t, { tls });
    const silent = await connect();
    silent.on("error", () => {});
    const other = await connect(); // answered later than the silent one was accepted
    other.write("?\r\n\r\n");
    other.resume();
    await once(other, "close");
    const closed = server.close();
    await clock.advance(CLOSE_MS);
    await closed;
  });
}

test("what is not HTTP is answered with a RestJsonError", limit, async (t) => {
  const { connect } = await start(t);
  for (const text of [
    "GET / HTTP/9\r\n\r\n",
    "nonsense\r\n\r\n",
    `GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`,
  ]) {
    const socket = await connect();
    socket.write(text);
    const [head = "", body = ""] = (await readAll(socket)).split("\r\n\r\n");
    assert.match(head, /^HTTP\/1\.1 400 Bad Request\r\ncontent-type: application\/json\r\n/);
    const error = parseError(JSON.parse(body));
    assert.equal(error.kind, "Deserialize");
    assert.match(error.details, /^Cannot read the request: /);
  }
});

test(
  "a request that comes while the server stops is answered with a RestJsonError",
  limit,
  async (t) => {
    let refused = () => {};
    const second = new Promise<void>((resolve) => {
      refused = resolve;
    });
    const { fake, server, connect } = await start(t, {
      log: { ...silentLog, warn: () => refused() },
    });
    let reached = () => {};
    const first = new Promise<void>((resolve) => {
      reached = resolve;
    });
    fake.instead.GetNodes = async () => {
      reached();
      await second; // its answer leaves before the one to the next request
      return [node];
    };
    const socket = await connect();
    const get = "GET /v0/nodes HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write(get);
    await first;
    const closed = server.close();
    socket.write(get);
    const seen = await readUntil(socket, '"Unavailable"}');
    assert.match(seen, /^HTTP\/1\.1 200 OK\r\n/);
    const last = seen.slice(seen.lastIndexOf("HTTP/1.1"));
    assert.match(last, /^HTTP\/1\.1 503 Service Unavailable\r\n/);
    assert.match(last, /\r\nconnection: close\r\n/i);
    const error = parseError(JSON.parse(last.slice(last.indexOf("\r\n\r\n"))));
    assert.deepEqual(error, {
      details: "The server is stopping",
      message: "The server is stopping",
      kind: "Unavailable",
    });
    await closed;
  },
);

test(
  "a client that pipelines and never reads gets no more than its turn; others are answered",
  limit,
  async (t) => {
    const { fake, connect } = await start(t);
    let asked = 0;
    const many = Array.from({ length: 20_000 }, (_, index) => ({ ...node, id: `node-${index}` }));
    fake.instead.GetNodes = async () => {
      asked += 1;
      return many;
    };
    const request = "GET /v0/nodes HTTP/1.1\r\nhost: x\r\n\r\n";
    const greedy = await Promise.all(Array.from({ length: 5 }, connect));
    for (const socket of greedy) {
      socket.pause();
      socket.write(request.repeat(100));
    }
    const honest = await connect();
    honest.write("GET /v0/pools HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert.match(await readAll(honest), /^HTTP\/1.1 200 /);
    assert.ok(asked <= 20 * greedy.length, `${asked} lists were made for clients that read none`);
  },
);

test("engines that are slow to tell their disks hold up nobody's lists", limit, async (t) => {
  const { fake, connect } = await start(t);
  let release = (): void => {};
  const told = new Promise<void>((resolve) => {
    release = resolve;
  });
  let asked = 0;
  fake.instead.GetBlockDevices = async () => {
    asked += 1;
    await told;
    return [];
  };
  const slow = await Promise.all(Array.from({ length: 12 }, connect));
  for (const socket of slow) {
    socket.write(
      "GET /v0/nodes/node-1/block_devices HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
  }
  while (asked < slow.length) await new Promise((resolve) => setImmediate(resolve));
  const honest = await connect();
  honest.write("GET /v0/nodes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  assert.match(await readAll(honest), /^HTTP\/1.1 200 /);
  release();
  for (const socket of slow) assert.match(await readAll(socket), /^HTTP\/1.1 200 /);
});
