import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import {
  type ClientHttp2Session,
  connect,
  createServer as createHttp2Server,
  type IncomingHttpHeaders,
} from "node:http2";
import { createServer, connect as dial } from "node:net";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { replaceAuthority, tolerantConnection } from "./authority.ts";

const SOCKET_PATH = "/var/lib/kubelet/plugins/io.openebs.mayastor/csi.sock";

/** An HTTP/2 server on a unix socket that answers with the headers it got, and a client of it. */
async function startPair(
  t: TestContext,
  { tolerant }: { tolerant: boolean },
): Promise<ClientHttp2Session> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-authority-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, "socket");
  const http2 = createHttp2Server();
  http2.on("stream", (stream, headers: IncomingHttpHeaders) => {
    stream.respond({ ":status": 200 });
    stream.end(JSON.stringify(headers));
  });
  const listener = createServer((socket) => {
    http2.emit("connection", tolerant ? tolerantConnection(socket) : socket);
  });
  await new Promise<void>((resolve) => listener.listen(file, resolve));
  const client = connect("http://unused", { createConnection: () => dial(file) });
  t.after(async () => {
    client.destroy();
    await new Promise((resolve) => listener.close(resolve));
  });
  return client;
}

function send(
  client: ClientHttp2Session,
  headers: Record<string, string>,
): Promise<IncomingHttpHeaders> {
  return new Promise((resolve, reject) => {
    const stream = client.request({ ":authority": SOCKET_PATH, ":path": "/", ...headers });
    let text = "";
    stream.setEncoding("utf8");
    stream.on("data", (part: string) => {
      text += part;
    });
    stream.on("end", () =>
      text === "" ? undefined : resolve(JSON.parse(text) as IncomingHttpHeaders),
    ); // sent above
    stream.on("error", reject);
    stream.end();
  });
}

test("a path as authority is refused by a server as it is", async (t) => {
  const client = await startPair(t, { tolerant: false });
  await assert.rejects(send(client, {}), /PROTOCOL_ERROR/);
});

test("tolerantConnection() lets requests with a path as authority through, all else unchanged", async (t) => {
  const client = await startPair(t, { tolerant: true });
  // Enough different headers to fill the peers' compression tables many times over, and repeats that refer to them.
  for (let i = 0; i < 200; i++) {
    const name = `x-${i % 40}`;
    const value = "v".repeat((i * 37) % 300) + String(i % 7);
    const got = await send(client, { [name]: value, "x-same": "same", "x-i": String(i) });
    assert.equal(got[":authority"], "l");
    assert.equal(got[":path"], "/");
    assert.equal(got[name], value);
    assert.equal(got["x-same"], "same");
    assert.equal(got["x-i"], String(i));
  }
});

test("tolerantConnection() carries many requests at once and long headers", async (t) => {
  const client = await startPair(t, { tolerant: true });
  const values = Array.from({ length: 50 }, (_, i) => `${i}-`.repeat(i * 50));
  const got = await Promise.all(values.map((value) => send(client, { "x-long": value })));
  assert.deepEqual(
    got.map((headers) => headers["x-long"]),
    values,
  );
});

test("replaceAuthority() replaces literals of every form and leaves the rest", () => {
  const text = (value: string) => [value.length, ...Buffer.from(value, "latin1")];
  const block = (...bytes: number[]) => Buffer.from(bytes);
  const before = [
    0x83,
    0x3f,
    0xe1,
    0x1f,
    0x40,
    ...text("name"),
    ...text("value"),
    0x04,
    ...text("/p"),
  ];
  for (const literal of [0x41, 0x01, 0x11]) {
    const given = block(...before, literal, ...text("/a.sock"), 0x86);
    const wanted = block(...before, literal, ...text("l"), 0x86);
    assert.deepEqual(replaceAuthority(given), wanted, `literal ${literal}`);
  }
  for (const same of [
    block(),
    block(0x82, 0x86),
    block(0x41, 0x00), // an empty authority
    block(0x41, 0x05, 0x61), // cut off
    block(0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff), // a length without end
    block(...before, 0xbe),
  ]) {
    assert.equal(replaceAuthority(same), same);
  }
});
