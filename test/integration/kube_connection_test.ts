/** The API server as a pod reaches it: TLS by the given authority, with the service account's token. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { KubeClient, KubeError } from "#common/kubernetes/client.ts";
import { podConnection } from "#common/kubernetes/connection.ts";
import { systemRandom } from "#common/random.ts";
import { selfSigned } from "../../agents/rest/certificate.ts";

const made = () => selfSigned("localhost", { clock: systemClock, random: systemRandom });

test("a pod's connection sends its token, and only to a server its authority has signed", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-token-"));
  const own = made();
  const seen: (string | undefined)[] = [];
  const server = createServer({ key: own.key, cert: own.cert }, (request, response) => {
    seen.push(request.headers.authorization);
    response.end(JSON.stringify({ path: request.url }));
  });
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  });
  const port = String((server.address() as AddressInfo).port); // listening on TCP
  const { signal } = new AbortController();
  const client = () =>
    new KubeClient(podConnection({ host: "localhost", port }, { clock: systemClock, folder }));

  writeFileSync(path.join(folder, "token"), "the-token\n");
  writeFileSync(path.join(folder, "ca.crt"), own.cert);
  assert.deepEqual(await client().get("/version", { signal }), { path: "/version" });
  assert.deepEqual(seen, ["Bearer the-token"]);

  writeFileSync(path.join(folder, "ca.crt"), made().cert);
  const refused = await client()
    .get("/version", { signal })
    .catch((error: unknown) => error);
  assert.ok(refused instanceof KubeError && refused.status === 0);
  assert.equal(seen.length, 1, "the token was not sent to a stranger");

  rmSync(path.join(folder, "token"));
  await assert.rejects(client().get("/version", { signal }), /service account token/);
});
