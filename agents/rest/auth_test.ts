import assert from "node:assert/strict";
import { constants, generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { makeVerifier } from "./auth.ts";
import { makeRestServer } from "./server.ts";

const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const stranger = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = JSON.stringify({ ...publicKey.export({ format: "jwk" }), alg: "RS256" });

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
function token(key = privateKey, header: object = { alg: "RS256", typ: "JWT" }): string {
  const signed = `${encode(header)}.${encode({ sub: "test", exp: 1 })}`;
  return `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
}

test("makeVerifier() accepts a token signed by the key, whatever it claims", () => {
  makeVerifier(jwk).verify(`Bearer ${token()}`); // exp is long past: claims are not looked at
});

test("makeVerifier() refuses everything else", () => {
  const { verify } = makeVerifier(jwk);
  const [header = "", , signature = ""] = token().split(".");
  const bad: [string | undefined, RegExp][] = [
    [undefined, /Missing bearer token/],
    ["Basic abc", /Missing bearer token/],
    ["Bearer abc", /three parts/],
    [`Bearer ${token(stranger.privateKey)}`, /signature does not match/],
    [`Bearer ${header}.${encode({ sub: "root" })}.${signature}`, /signature does not match/],
    [`Bearer ${encode({ alg: "none" })}.${encode({})}.x`, /not signed with RS256/],
    [`Bearer ${token(privateKey, { alg: "HS256" })}`, /not signed with RS256/],
    ["Bearer !!.x.y", /header is not JSON/],
  ];
  for (const [authorization, message] of bad) {
    assert.throws(() => verify(authorization), { kind: "unauthorized", message });
  }
});

test("makeVerifier() takes RSA-PSS keys as well", () => {
  const pss = JSON.stringify({ ...publicKey.export({ format: "jwk" }), alg: "PS384" });
  const signed = `${encode({ alg: "PS384" })}.${encode({})}`;
  const padding = {
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  };
  const signature = sign("sha384", Buffer.from(signed), { key: privateKey, ...padding });
  makeVerifier(pss).verify(`Bearer ${signed}.${signature.toString("base64url")}`);
});

test("makeVerifier() says that a key is no key", () => {
  for (const text of ["", "{}", JSON.stringify({ alg: "HS256", k: "c2VjcmV0" })]) {
    assert.throws(() => makeVerifier(text), { kind: "invalid-argument", message: /--jwk/ });
  }
});

test("a request without a token is 401 Unauthorized, its URI in the message", async () => {
  const channel = openChannel("127.0.0.1:1");
  const server = makeRestServer({
    core: makeJsonCalls(channel, CORE_API, { timeoutMs: 1_000 }),
    verifier: makeVerifier(jwk),
    log: silentLog,
    clock: systemClock,
    tls: null,
  });
  try {
    const answer = await server.app.inject({ method: "GET", url: "/v0/volumes?max_entries=0" });
    assert.equal(answer.statusCode, 401);
    assert.deepEqual(JSON.parse(answer.payload), {
      details: "Missing bearer token",
      message: "/v0/volumes?max_entries=0",
      kind: "Unauthorized",
    });
    const spec = await server.app.inject({ method: "GET", url: "/v0/api/spec" });
    assert.equal(spec.statusCode, 200, "the document needs no token");
  } finally {
    await server.close();
    channel.close();
  }
});
