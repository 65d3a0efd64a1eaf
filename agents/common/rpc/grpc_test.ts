import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { after, test } from "node:test";
import { Metadata } from "@grpc/grpc-js";
import { SVC_ERROR_KINDS, SvcError } from "../errors.ts";
import { PoolRpc } from "../proto/generated/mayastor/v1/pool_pb.ts";
import { Registration } from "../proto/generated/mayastor/v1/registration_pb.ts";
import { grpcTarget, makeClient, makeService, startServer } from "./grpc.ts";
import { kindOfStatus, statusOfKind } from "./grpc_status.ts";

const seen: { id: string; remainingMs: number | null }[] = [];
let release: () => void = () => {};
const held = new Promise<void>((resolve) => {
  release = resolve;
});
let abortedReason: unknown = null;
const service = makeService(Registration, {
  register: async (request, { remainingMs, signal, trailers }) => {
    seen.push({ id: request.id, remainingMs });
    if (request.id === "conflict") throw new SvcError("conflict", "Cannot register: id is taken");
    if (request.id === "broken") throw new TypeError("not a failure we know");
    if (request.id === "trailer") {
      trailers.set("gtm-602", "0");
      throw new SvcError("not-found", "Cannot register: unknown node");
    }
    if (request.id === "slow") {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      abortedReason = signal.reason;
      release();
    }
    return {};
  },
  deregister: async () => ({}),
});
const server = await startServer("127.0.0.1:0", [service]);
const client = makeClient(Registration, `127.0.0.1:${server.port}`, { deadlineMs: 5_000 });
after(async () => {
  client.close();
  await server.close();
});

test("makeClient() sends a typed request with the client's deadline", async () => {
  await client.rpc.register({ id: "n1", grpcEndpoint: "1.2.3.4:10124" });
  assert.equal(seen.at(-1)?.id, "n1");
  const remainingMs = seen.at(-1)?.remainingMs ?? 0;
  assert.ok(remainingMs > 0 && remainingMs <= 5_000, `remaining ${remainingMs}`);
});

test("makeService() keeps the exact kind of a failure for our own clients", async () => {
  await assert.rejects(client.rpc.register({ id: "conflict" }), (error: unknown) => {
    assert.ok(error instanceof SvcError);
    assert.equal(error.kind, "conflict");
    assert.equal(error.message, "Cannot register: id is taken");
    return true;
  });
});

test("makeService() answers internal for anything else that is thrown", async () => {
  await assert.rejects(client.rpc.register({ id: "broken" }), { kind: "internal" });
});

test("makeService() sends the handler's trailers with a failure", async () => {
  await assert.rejects(client.rpc.register({ id: "trailer" }), (error: unknown) => {
    assert.ok(error instanceof SvcError && error.cause instanceof Error);
    assert.ok("metadata" in error.cause && error.cause.metadata instanceof Metadata);
    assert.deepEqual(error.cause.metadata.get("gtm-602"), ["0"]);
    return true;
  });
});

test("makeClient() cancels a call when its signal is aborted, and the handler learns of it", async () => {
  const stop = new AbortController();
  const call = client.rpc.register({ id: "slow" }, { signal: stop.signal });
  const failed = assert.rejects(call, { kind: "aborted" });
  while (seen.at(-1)?.id !== "slow") await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  await failed;
  await held;
  assert.ok(abortedReason instanceof SvcError);
});

test("makeClient() ends a call to a peer that never answers at its deadline", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = silent.address();
  assert.ok(address !== null && typeof address === "object");
  const lost = makeClient(Registration, `127.0.0.1:${address.port}`, { deadlineMs: 200 });
  await assert.rejects(lost.rpc.deregister({ id: "n1" }), { kind: "deadline-exceeded" });
  lost.close();
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test("makeClient() says unimplemented for a service the peer lacks", async () => {
  const pools = makeClient(PoolRpc, `127.0.0.1:${server.port}`, { deadlineMs: 5_000 });
  await assert.rejects(pools.rpc.listPools({}), { kind: "unimplemented" });
  pools.close();
});

test("startServer() names an address it cannot bind", async () => {
  await assert.rejects(startServer(`127.0.0.1:${server.port}`, [service]), {
    kind: "unavailable",
    message: new RegExp(`Cannot serve gRPC on 127.0.0.1:${server.port}`),
  });
});

test("statusOfKind() has a code for every kind that comes back as a kind of the same code", () => {
  for (const kind of SVC_ERROR_KINDS) {
    const code = statusOfKind(kind);
    assert.equal(statusOfKind(kindOfStatus(code)), code, kind);
  }
});

test("grpcTarget() strips a scheme and adds the default port", () => {
  assert.equal(grpcTarget("https://agent-core:50051", 1), "agent-core:50051");
  assert.equal(grpcTarget("http://agent-core", 50051), "agent-core:50051");
  assert.equal(grpcTarget("127.0.0.1:9", 50051), "127.0.0.1:9");
  assert.throws(() => grpcTarget("https://", 50051), { kind: "invalid-argument" });
});
