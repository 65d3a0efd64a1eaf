/**
 * The whole controller plugin on a REST server in memory, over a real unix socket; and the requests that its tests
 * start from. Only tests import this.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { systemClock } from "#common/clock.ts";
import { VolumeGuard } from "#common/csi/guard.ts";
import { identityService, serveSocket } from "#common/csi/serve.ts";
import { silentLog } from "#common/log.ts";
import { CsiClient } from "../../../test/support/csi/client.ts";
import { RestApi } from "../rest.ts";
import { controllerService } from "../service.ts";
import { FakeRest } from "./fake_rest.ts";

const MIB = 1024 * 1024;
export const A = "ec4e66fb-3b33-4439-b504-d49aba53da26";
export const B = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
export const UNKNOWN = "00000000-0000-4000-8000-000000000000";
export const writer = { accessMode: { mode: "SINGLE_NODE_WRITER" } };
export const mount = { ...writer, mount: { fsType: "ext4" } };
export const block = { ...writer, block: {} };
export const range = (required: bigint | number, limit: bigint | number = 0) => ({
  requiredBytes: String(required),
  limitBytes: String(limit),
});

export const createOf = (over: object = {}) => ({
  name: `pvc-${A}`,
  capacityRange: range(64 * MIB),
  volumeCapabilities: [mount],
  parameters: { repl: "2" },
  ...over,
});
export const publishOf = (over: object = {}) => ({
  volumeId: A,
  nodeId: "node-1",
  volumeCapability: mount,
  ...over,
});
export const unpublishOf = (over: object = {}) => ({ volumeId: A, nodeId: "node-1", ...over });
export const validateOf = (over: object = {}) => ({
  volumeId: A,
  volumeCapabilities: [mount],
  ...over,
});

type Request = Parameters<CsiClient["call"]>[1];

/** The plugin on a fake control plane. */
export async function start(t: TestContext) {
  const rest = new FakeRest();
  await rest.start(t);
  const api = new RestApi({ baseUrl: rest.url, timeoutMs: 5_000, clock: systemClock });
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-controller-"));
  const socket = path.join(folder, "csi.sock");
  const server = await serveSocket(socket, [
    identityService({ version: "1.2.3", isReady: (signal) => api.isReachable(signal) }),
    controllerService({
      ...{ rest: api, guard: new VolumeGuard(), log: silentLog, concurrentMax: 10 },
      nodeSegments: { "openebs.io/csi-node": "mayastor" },
    }),
  ]);
  const client = new CsiClient(`unix:${socket}`);
  t.after(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  /** A property set to undefined is a field that is missing. */
  const expect = async (code: string, name: string, request: object = {}) => {
    const message = JSON.parse(JSON.stringify(request)) as Request; // plain data
    const outcome = await client.call(name, message);
    assert.equal(outcome.code, code, `${name} ${JSON.stringify(request)}: ${outcome.message}`);
    return outcome;
  };
  const ok = async (name: string, request: object = {}) =>
    (await expect("OK", name, request)).reply;
  return { rest, socket, client, expect, ok };
}
