/** What one HTTP server has under way, against clients that ask on and on. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import net, { type AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { boundPipelines } from "./http_admission.ts";

/** A server that answers nothing until it is told to. */
async function holding(t: TestContext) {
  const held: ServerResponse[] = [];
  const server = createServer((_request, response) => {
    held.push(response);
  });
  boundPipelines(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // it listens on TCP
  const ask = async (text: string) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {}); // it may be cut
    t.after(() => socket.destroy());
    await once(socket, "connect");
    socket.write(text);
    return socket;
  };
  const until = async (what: () => boolean) => {
    while (!what()) await new Promise((resolve) => setImmediate(resolve));
  };
  return { held, ask, until, port };
}

/** However it ends. */
const closed = (socket: net.Socket) =>
  new Promise<void>((resolve) => {
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });

const GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

test("a connection with more than 128 unanswered requests is cut, one with as many is not", async (t) => {
  const { held, ask, until } = await holding(t);
  const honest = await ask(GET.repeat(128));
  await until(() => held.length === 128);
  for (const text of [GET, "GET /% HTTP/1.1\r\nhost: x\r\n\r\n"]) {
    const flood = await ask(text.repeat(10_000));
    await closed(flood);
  }
  assert.equal(honest.closed, false);
  let answers = "";
  honest.on("data", (data) => {
    answers += String(data);
  });
  for (const response of held) response.end();
  await until(() => answers.split("HTTP/1.1 200").length === 129);
});

test("what was answered, or whose connection is gone, counts no more", async (t) => {
  const { held, ask, until } = await holding(t);
  const one = await ask("");
  one.resume();
  for (let round = 0; round < 300; round++) {
    const before = held.length;
    one.write(GET);
    await until(() => held.length > before);
    held.at(-1)?.end();
    await once(held.at(-1) as ServerResponse, "close");
  }
  assert.equal(one.closed, false);
  // Many that ask a hundred times each fill the server, and leave it.
  for (let index = 0; index < 60; index++) {
    const before = held.length;
    const flood = await ask(GET.repeat(100));
    await until(() => held.length >= before + 4);
    flood.destroy();
    const last = held.at(-1);
    await until(() => last?.req.socket?.destroyed ?? true);
  }
  const before = held.length;
  await ask(GET.repeat(100));
  await until(() => held.length === before + 100);
  assert.equal(one.closed, false);
});

test("a full server keeps those that ask one thing after the other", async (t) => {
  const { held, ask, until } = await holding(t);
  const floods: net.Socket[] = [];
  for (let index = 0; index < 41; index++) {
    const before = held.length;
    const flood = await ask(GET.repeat(100));
    floods.push(flood);
    await until(() => held.length === before + 100 || flood.closed);
  }
  const honest = await ask(GET);
  const before = held.length;
  await until(() => held.length > before || honest.closed);
  assert.equal(honest.closed, false);
  const late = await ask(GET.repeat(100));
  await closed(late);
  assert.equal(floods[0]?.closed, false);
});

test("an expectation that nobody meets is refused and ends the connection", async (t) => {
  const { ask } = await holding(t);
  const socket = await ask("GET / HTTP/1.1\r\nhost: x\r\nexpect: more\r\n\r\n".repeat(10_000));
  let text = "";
  socket.on("data", (data) => {
    text += String(data);
  });
  await closed(socket);
  assert.ok(text === "" || text.startsWith("HTTP/1.1 417"), text);
});
