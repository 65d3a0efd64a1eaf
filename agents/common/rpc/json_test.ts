import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Type } from "typebox";
import { SvcError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { grpcTarget, openChannel, startServer } from "./grpc.ts";
import type { JsonApi } from "./json_api.ts";
import { makeJsonCalls } from "./json_client.ts";
import { makeJsonService } from "./json_server.ts";

const API = {
  service: "mayastor.test.v1.Echo",
  methods: {
    Double: {
      request: Type.Object({ value: Type.Integer({ minimum: 0 }) }),
      response: Type.Object({ value: Type.Integer(), note: Type.Optional(Type.String()) }),
      floorMs: 10_000,
    },
    Wrong: { request: Type.Object({}), response: Type.Array(Type.String()), floorMs: 10_000 },
    Hang: { request: Type.Object({}), response: Type.Object({}), floorMs: 10_000 },
  },
} as const satisfies JsonApi;

let hangs = 0;
let hungUp = 0;
const service = makeJsonService(
  API,
  {
    Double: async ({ value }) => {
      if (value === 13) {
        throw new SvcError("not-published", "Cannot double: unlucky", {
          cause: new Error("thirteen"),
        });
      }
      if (value === 14) throw new SvcError("invalid-argument", "é".repeat(200_000));
      if (value === 15) throw new SvcError("invalid-argument", "broken \ud800");
      // `undefined` is what a handler may leave in an optional: it is omitted on the wire
      return { value: value * 2, note: undefined as unknown as string };
    },
    Wrong: async () => [1] as unknown as string[],
    Hang: async (_, { signal }) => {
      hangs++;
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      hungUp++;
      return {};
    },
  },
  { log: silentLog },
);
const server = await startServer("127.0.0.1:0", [service]);
const channel = openChannel(grpcTarget(`http://127.0.0.1:${server.port}`, 50051));
const calls = makeJsonCalls(channel, API, { timeoutMs: 10_000 });
const never = new AbortController().signal;
after(async () => {
  channel.close();
  await server.close();
});

test("a call answers what the handler returned, absent optionals omitted", async () => {
  const answer = await calls.Double({ value: 21 }, { signal: never });
  assert.deepEqual(answer, { value: 42 });
  assert.ok(!("note" in answer));
});

test("a failure keeps its kind, its details and its innermost message", async () => {
  await assert.rejects(calls.Double({ value: 13 }, { signal: never }), (error: unknown) => {
    assert.ok(error instanceof SvcError);
    assert.equal(error.kind, "not-published");
    assert.equal(error.message, "Cannot double: unlucky: thirteen");
    assert.ok(error.cause instanceof Error);
    assert.equal(error.cause.message, "thirteen");
    return true;
  });
});

test("a failure with a text too long for a trailer keeps its kind and the text's beginning", async () => {
  await assert.rejects(calls.Double({ value: 14 }, { signal: never }), {
    kind: "invalid-argument",
    message: /^é{500,}\.\.\.$/,
  });
});

test("a failure with a text that is no Unicode keeps its kind", async () => {
  await assert.rejects(calls.Double({ value: 15 }, { signal: never }), {
    kind: "invalid-argument",
    message: "broken \ufffd",
  });
});

test("a request that the schema refuses does not leave the client", async () => {
  await assert.rejects(calls.Double({ value: -1 }, { signal: never }), {
    kind: "invalid-argument",
    message: "Cannot read the request of Double: /value must be >= 0",
  });
});

test("a request that only the server sees is refused as deserialize", async () => {
  const loose = {
    service: API.service,
    methods: { Double: { ...API.methods.Double, request: Type.Unknown() } },
  } as const satisfies JsonApi;
  const raw = makeJsonCalls(channel, loose, { timeoutMs: 10_000 });
  await assert.rejects(raw.Double({ value: "x" }, { signal: never }), {
    kind: "deserialize",
    message: "Cannot read the request of Double: /value must be integer",
  });
});

test("an answer that the schema refuses is internal", async () => {
  await assert.rejects(calls.Wrong({}, { signal: never }), { kind: "internal" });
});

test("abort ends the call on both sides", async () => {
  const controller = new AbortController();
  const call = calls.Hang({}, { signal: controller.signal });
  while (hangs === 0) await calls.Double({ value: 1 }, { signal: never });
  controller.abort(new Error("tired"));
  await assert.rejects(call, { kind: "aborted" });
  while (hungUp === 0) await calls.Double({ value: 1 }, { signal: never });
});

test("a deadline ends the call", async () => {
  const impatient = makeJsonCalls(channel, API, { timeoutMs: 30, ignoreFloors: true });
  await assert.rejects(impatient.Hang({}, { signal: never }), {
    kind: "deadline-exceeded",
    message: /may still be carried out/,
  });
});

test("a server that is not there is unavailable", async () => {
  const nobody = openChannel("127.0.0.1:1");
  try {
    const lost = makeJsonCalls(nobody, API, { timeoutMs: 10_000 });
    await assert.rejects(lost.Double({ value: 1 }, { signal: never }), { kind: "unavailable" });
  } finally {
    nobody.close();
  }
});
