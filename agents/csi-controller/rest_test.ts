import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { parseOptions } from "#common/config.ts";
import type { SvcErrorKind } from "#common/errors.ts";
import { ERROR_STATUS } from "#common/openapi/errors.ts";
import type { RestErrorKind } from "#common/openapi/model.ts";
import { CONTROLLER_OPTIONS, concurrentRpcLimit } from "./options.ts";
import { affinityGroup, parseToken } from "./parse.ts";
import { RestApi } from "./rest.ts";

const VOLUME = "ec4e66fb-3b33-4439-b504-d49aba53da26";

async function serve(
  t: TestContext,
  listener: RequestListener,
  timeoutMs = 5_000,
): Promise<RestApi> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // it listens on TCP
  return new RestApi({ baseUrl: `http://127.0.0.1:${port}`, timeoutMs, clock: systemClock });
}

test("RestApi gives every REST error the kind that a CSI caller acts on", async (t) => {
  const expected: Partial<Record<RestErrorKind, SvcErrorKind>> = {
    NotFound: "not-found",
    ResourceExhausted: "resource-exhausted",
    Unavailable: "unavailable",
    Aborted: "unavailable",
    Conflict: "conflict",
    Deleting: "conflict",
    InUse: "conflict",
    Timeout: "timeout",
    AlreadyExists: "already-exists",
    FailedPrecondition: "failed-precondition",
    FailedPersist: "unavailable",
    Internal: "internal",
  };
  let answer = { status: 200, body: "" };
  const rest = await serve(t, (_request, response) => {
    response.writeHead(answer.status).end(answer.body);
  });
  for (const [kind, wanted] of Object.entries(expected)) {
    const body = JSON.stringify({ kind, details: "the long story", message: "why" });
    answer = { status: ERROR_STATUS[kind as RestErrorKind], body }; // keys of the table above
    await assert.rejects(rest.getVolume(VOLUME), { kind: wanted, message: /the long story/ }, kind);
  }
  for (const [status, kind] of [
    [404, "not-found"],
    [502, "unavailable"],
    [418, "internal"],
  ] as const) {
    answer = { status, body: "<html>a proxy</html>" };
    await assert.rejects(rest.getVolume(VOLUME), { kind, message: /a proxy/ });
  }
  answer = { status: 200, body: "{}" };
  await assert.rejects(rest.getVolume(VOLUME), { kind: "internal", message: /unexpected answer/ });
});

test("RestApi tells a silent server from an absent one", async (t) => {
  const silent = await serve(t, () => {}, 50);
  await assert.rejects(silent.getVolume(VOLUME), {
    kind: "deadline-exceeded",
    message: /within 50 ms/,
  });
  assert.equal(await silent.isReachable(new AbortController().signal), false);
  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, "127.0.0.1", resolve));
  const { port } = closed.address() as AddressInfo; // it listens on TCP
  await new Promise((resolve) => closed.close(resolve));
  const baseUrl = `http://127.0.0.1:${port}`;
  const absent = new RestApi({ baseUrl, timeoutMs: 5_000, clock: systemClock });
  await assert.rejects(absent.getVolume(VOLUME), { kind: "unavailable", message: /ECONNREFUSED/ });
});

test("affinityGroup() is the claim's name without its ordinal", () => {
  const of = (name: string) =>
    affinityGroup({
      "csi.storage.k8s.io/pvc/name": name,
      "csi.storage.k8s.io/pvc/namespace": "ns",
    });
  assert.equal(of("data-web-0"), "ns/data-web");
  assert.equal(of("data-web-12"), "ns/data-web");
  for (const other of ["data-web", "data-web-", "-0", "Data-0", ""])
    assert.equal(of(other), null, other);
});

test("options and tokens name what is wrong", () => {
  assert.equal(
    CONTROLLER_OPTIONS["rest-endpoint"].parse("http://api-rest:8081/"),
    "http://api-rest:8081",
  );
  assert.throws(() => CONTROLLER_OPTIONS["rest-endpoint"].parse("api-rest:8081"), {
    kind: "invalid-argument",
  });
  assert.equal(concurrentRpcLimit({}), 10);
  assert.throws(() => concurrentRpcLimit({ MAX_CONCURRENT_RPC: "0" }), {
    kind: "invalid-argument",
  });
  const args = ["--node-selector", "a=b", "--node-selector=c/d=e"];
  const options = parseOptions(CONTROLLER_OPTIONS, { args, env: {} });
  assert.deepEqual(options["node-selector"], { a: "b", "c/d": "e" });
  assert.deepEqual(parseOptions(CONTROLLER_OPTIONS, { args: [], env: {} })["node-selector"], {
    "openebs.io/csi-node": "mayastor",
  });
  assert.throws(
    () => parseOptions(CONTROLLER_OPTIONS, { args: [...args, "--node-selector=a=x"], env: {} }),
    { kind: "invalid-argument", message: /--node-selector/ },
  );
  assert.equal(parseToken("17"), 17);
  assert.throws(() => parseToken("-1"), { kind: "aborted" });
});
