/** Whatever is sent, the answer is a RestJsonError of the 4xx kind or a success: never a 500, never a crash. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import { systemClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import { RestJsonErrorSchema } from "#common/openapi/model.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { openVerifier } from "./auth.ts";
import { routes } from "./routes/mod.ts";
import { makeRestServer } from "./server.ts";
import { startFakeCore } from "./testing/fake_core.ts";

const fake = await startFakeCore();
const channel = openChannel(`127.0.0.1:${fake.port}`);
const server = makeRestServer({
  core: makeJsonCalls(channel, CORE_API, { timeoutMs: 10_000 }),
  verifier: openVerifier,
  log: silentLog,
  clock: systemClock,
  tls: null,
});
after(async () => {
  await server.close();
  channel.close();
  await fake.close();
});
const parseError = parserOf(RestJsonErrorSchema, "an error", "internal");
const RUNS = 300;

const anyRoute = fc.constantFrom(...routes.filter(({ tag }) => tag !== "JsonGrpc"));
const segment = fc.oneof(
  fc.uuid(),
  fc.string({ maxLength: 20 }),
  fc.constantFrom("..", ".", "%", "%00", "%2F", "🚀", "nvmf", "-1", "1e3", "__proto__", "?", "#"),
);
const key = fc.oneof(
  fc.constantFrom("size", "replicas", "policy", "disks", "labels", "topology", "thin", "__proto__"),
  fc.string({ maxLength: 6 }),
);
const json = fc.oneof(
  fc.json(),
  fc.dictionary(key, fc.jsonValue()).map((value) => JSON.stringify(value)),
  fc.string({ maxLength: 30 }),
);
const query = fc.oneof(
  fc.constant(""),
  fc.constantFrom("?max_entries=-9&starting_token=x", "?all=1", "?force", "?allowed-hosts=,", "?%"),
  fc.webQueryParameters().map((text) => `?${text}`),
);

test("no request makes the server fail", async () => {
  await fc.assert(
    fc.asyncProperty(
      anyRoute,
      fc.array(segment, { minLength: 4, maxLength: 4 }),
      query,
      json,
      async ({ method, path }, segments, search, payload) => {
        let index = 0;
        const url = path.replaceAll(/\{\w+\}/g, () =>
          encodeURIComponent(segments[index++ % segments.length] ?? ""),
        );
        const answer = await server.app.inject({
          method,
          url: `/v0${url}${search}`,
          payload,
          headers: { "content-type": "application/json" },
        });
        const { statusCode } = answer;
        if (statusCode < 300) return;
        assert.ok(statusCode >= 400 && statusCode < 500, `${method} ${url}: ${answer.payload}`);
        parseError(JSON.parse(answer.payload));
      },
    ),
    { numRuns: RUNS, seed: 20_231 },
  );
});

test("raw paths that no client would send are answered too", async () => {
  for (const path of ["/v0/%", "/v0/volumes/%E0%A4%A", "//", "/v0//nodes", "/v0/nodes/", "/*"]) {
    const answer = await server.app.inject({ method: "GET", url: path });
    assert.ok(answer.statusCode >= 400 && answer.statusCode < 500, path);
    parseError(JSON.parse(answer.payload));
  }
});
