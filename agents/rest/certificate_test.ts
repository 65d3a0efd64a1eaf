import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { request } from "node:https";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import { seededRandom } from "#common/random.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { openVerifier } from "./auth.ts";
import { selfSigned } from "./certificate.ts";
import { makeRestServer } from "./server.ts";

const pair = selfSigned("api-rest", { clock: systemClock, random: seededRandom(1) });

test("selfSigned() is an X.509 certificate signed by its own key, valid now", () => {
  const certificate = new X509Certificate(pair.cert);
  assert.equal(certificate.subject, "CN=api-rest");
  assert.equal(certificate.issuer, certificate.subject);
  assert.equal(certificate.subjectAltName, "DNS:api-rest, DNS:localhost");
  assert.ok(certificate.verify(certificate.publicKey));
  assert.ok(Date.parse(certificate.validFrom) < systemClock.now());
  assert.ok(Date.parse(certificate.validTo) > systemClock.now() + 300 * 86_400_000);
});

test("the HTTPS listener serves with it, to a client that trusts it", async () => {
  const channel = openChannel("127.0.0.1:1");
  const server = makeRestServer({
    core: makeJsonCalls(channel, CORE_API, { timeoutMs: 1_000 }),
    verifier: openVerifier,
    log: silentLog,
    clock: systemClock,
    tls: pair,
  });
  try {
    const port = await server.listen({ host: "127.0.0.1", port: 0 });
    const status = await new Promise((resolve, reject) => {
      const url = `https://127.0.0.1:${port}/v0/api/spec`;
      const asked = request(url, { ca: pair.cert, servername: "localhost", agent: false });
      asked.on("response", (answer) => {
        answer.resume();
        answer.on("end", () => resolve(answer.statusCode));
      });
      asked.on("error", reject);
      asked.end();
    });
    assert.equal(status, 200);
  } finally {
    await server.close();
    channel.close();
  }
});
