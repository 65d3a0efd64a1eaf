import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { Client, credentials, status } from "@grpc/grpc-js";
import {
  connectionParameter,
  DRIVER_NAME,
  parseFileSystem,
  parseNodeSelector,
  uint32Parameter,
  uuidOfVolumeName,
} from "./driver.ts";
import { Limiter, VolumeGuard } from "./guard.ts";
import { identityService, serveSocket } from "./serve.ts";

test("parseNodeSelector() reads pairs and refuses a key given twice", () => {
  assert.deepEqual(parseNodeSelector("a/b=c,d=e"), { "a/b": "c", d: "e" });
  for (const bad of ["", "a", "a=", "=b", "a=b=c", "a=b,a=c"]) {
    assert.throws(() => parseNodeSelector(bad), { kind: "invalid-argument" }, bad);
  }
});

test("uuidOfVolumeName() accepts pvc-<uuid> only", () => {
  const uuid = "ec4e66fb-3b33-4439-b504-d49aba53da26";
  assert.equal(uuidOfVolumeName(`pvc-${uuid.toUpperCase()}`), uuid);
  for (const bad of [uuid, `pvc-${uuid}0`, "pvc-", "pvc-x", `vol-${uuid}`]) {
    assert.equal(uuidOfVolumeName(bad), null, bad);
  }
});

test("uint32Parameter() is null when absent and refuses what is no 32-bit number", () => {
  assert.equal(uint32Parameter({}, "k"), null);
  assert.equal(uint32Parameter({ k: "4294967295" }, "k"), 4294967295);
  for (const bad of ["4294967296", "-1", "1.5", "30s", " 3"]) {
    assert.throws(() => uint32Parameter({ k: bad }, "k"), { kind: "invalid-argument" }, bad);
  }
});

test("connectionParameter() takes what the kernel takes, and names the bounds", () => {
  const rows = [
    ["ioTimeout", 1, 4_294_967],
    ["nvmeCtrlLossTmo", 0, 2_147_483_647],
    ["nvmeKeepAliveTmo", 0, 2_147_483_647],
  ] as const;
  for (const [key, min, max] of rows) {
    assert.equal(connectionParameter({}, key), null);
    for (const good of [min, max])
      assert.equal(connectionParameter({ [key]: String(good) }, key), good);
    for (const bad of [min - 1, max + 1]) {
      assert.throws(() => connectionParameter({ [key]: String(bad) }, key), {
        kind: "invalid-argument",
      });
    }
  }
  assert.throws(
    () => connectionParameter({ ioTimeout: "0" }, "ioTimeout"),
    /between 1 and 4294967$/,
  );
});

test("parseFileSystem() knows lower-case names and defaults to ext4", () => {
  assert.equal(parseFileSystem(""), "ext4");
  assert.equal(parseFileSystem("xfs"), "xfs");
  assert.throws(() => parseFileSystem("EXT4"), { kind: "invalid-argument" });
});

test("VolumeGuard refuses a second operation on a volume and lets the next in afterwards", async () => {
  const guard = new VolumeGuard();
  let finish = () => {};
  const first = guard.run("v", "stage", () => new Promise<void>((resolve) => (finish = resolve)));
  await assert.rejects(
    guard.run("v", "unstage", async () => {}),
    {
      kind: "aborted",
      message: /stage is in progress/,
    },
  );
  assert.equal(await guard.run("w", "stage", async () => 1), 1);
  finish();
  await first;
  await assert.rejects(
    guard.run("v", "stage", () => Promise.reject(new Error("x"))),
    /x/,
  );
  assert.equal(await guard.run("v", "stage", async () => 2), 2);
});

test("Limiter never runs more than its limit, and starts the others in order", async () => {
  const limiter = new Limiter(2);
  let running = 0;
  let most = 0;
  const order: number[] = [];
  await Promise.all(
    [1, 2, 3, 4, 5].map((n) =>
      limiter.run(async () => {
        order.push(n);
        most = Math.max(most, ++running);
        await Promise.resolve();
        running -= 1;
      }),
    ),
  );
  assert.equal(most, 2);
  assert.deepEqual(order, [1, 2, 3, 4, 5]);
});

test("serveSocket() leaves a living instance its socket, and takes a dead one's", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-csi-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const socket = path.join(folder, "csi.sock");
  const serve = () =>
    serveSocket(socket, [identityService({ version: "1", isReady: async () => true })]);
  const inUse = { kind: "failed-precondition", message: /another instance serves there/ };
  const isOpen = () =>
    new Promise<boolean>((resolve) => {
      const peer = connect(socket, () => {
        peer.destroy();
        resolve(true);
      }).on("error", () => resolve(false));
    });
  // One that was killed leaves its file.
  const script = `require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", script, socket]);
  assert.ok(existsSync(socket));
  const first = await serve();
  await assert.rejects(serve(), inUse);
  assert.ok(await isOpen(), "the first one still hears");
  await first.close();
  // Several at once over a dead one's: one serves, and it can be reached.
  spawnSync(process.execPath, ["-e", script, socket]);
  const all = await Promise.allSettled([serve(), serve(), serve()]);
  const served = all.filter((one) => one.status === "fulfilled");
  assert.equal(served.length, 1);
  assert.ok(await isOpen());
  await served[0]?.value.close();
  writeFileSync(socket, "");
  await assert.rejects(serve(), { kind: "already-exists" });
  assert.deepEqual(readdirSync(folder), ["csi.sock"]);
});

test("serveSocket() outlives garbage: bytes that are no HTTP/2, no message, no method of its own", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-csi-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const socket = path.join(folder, "csi.sock");
  const server = await serveSocket(socket, [
    identityService({ version: "1", isReady: async () => true }),
  ]);
  const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const frameOf = (length: number) => Buffer.from([length, length, length, 4, 0, 0, 0, 0, 0]);
  for (const bytes of [
    ...[Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(70_000, 0xff), Buffer.from("\0")],
    Buffer.concat([Buffer.from(preface), frameOf(0xff)]),
    Buffer.concat([Buffer.from(preface), frameOf(0), Buffer.alloc(200, 0x5a)]),
  ]) {
    const peer = connect(socket);
    peer.on("error", () => {}); // the server may cut it at once
    const gone = new Promise((resolve) => peer.once("close", resolve));
    peer.resume();
    peer.end(bytes);
    await gone;
  }
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  const asIs = (bytes: Buffer): Buffer => bytes;
  const call = (method: string, request: Buffer) =>
    new Promise<number>((resolve) => {
      client.makeUnaryRequest(method, asIs, asIs, request, (error) => resolve(error?.code ?? 0));
    });
  const info = "/csi.v1.Identity/GetPluginInfo";
  for (const bytes of [[0xff], [0x0a, 0x7f, 0x41], [0x0b], [0x07, 0x00]]) {
    assert.equal(await call(info, Buffer.from(bytes)), status.INTERNAL, "as gRPC names it");
  }
  // A field of a later version is skipped.
  assert.equal(await call(info, Buffer.from([0xfa, 0x01, 0x01, 0x41])), status.OK);
  for (const method of [
    "/csi.v1.Identity/Nothing",
    "/csi.v0.Identity/Probe",
    "/csi.v1.Node/Probe",
  ]) {
    assert.equal(await call(method, Buffer.alloc(0)), status.UNIMPLEMENTED, method);
  }
  assert.equal(await call(info, Buffer.alloc(0)), status.OK);
  client.close();
  await server.close();
});

test("serveSocket() answers clients of every age, and takes its socket away", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-csi-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const socket = path.join(folder, "csi.sock");
  const server = await serveSocket(socket, [
    identityService({ version: "1", isReady: async () => true }),
  ]);
  // Kubelets before 1.30 send the socket's path, as does what was built with the same gRPC.
  for (const authority of [
    "localhost",
    "/var/lib/kubelet/plugins/x/csi.sock",
    "unix:///csi/csi.sock",
  ]) {
    const options = { "grpc.default_authority": authority };
    const client = new Client(`unix:${socket}`, credentials.createInsecure(), options);
    const asIs = (bytes: Buffer): Buffer => bytes;
    for (let call = 0; call < 3; call++) {
      const reply = await new Promise<string>((resolve, reject) => {
        const method = "/csi.v1.Identity/GetPluginInfo";
        client.makeUnaryRequest(method, asIs, asIs, Buffer.alloc(0), (error, value) =>
          error ? reject(error) : resolve(String(value)),
        );
      });
      assert.ok(reply.includes(DRIVER_NAME), authority);
    }
    client.close();
  }
  await server.close();
  assert.ok(!existsSync(socket));
});
