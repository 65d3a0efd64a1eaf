/**
 * The whole node plugin on a fake node, over a real unix socket; and the requests that its tests start from.
 * Only tests import this.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { identityService, serveSocket } from "#common/csi/serve.ts";
import { CsiClient } from "../../../test/support/csi/client.ts";
import { Freezer, nodePluginService } from "../node_plugin.ts";
import { nvmeOperationsService } from "../nvme_operations.ts";
import { nodeService } from "../service.ts";
import type { ReadVolume } from "../whereabouts.ts";
import { FakeSystem, fakeParts } from "./fake_system.ts";

export const V = "ec4e66fb-3b33-4439-b504-d49aba53da26";
export const W = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
export const HOST = "nqn.2019-05.io.openebs:node-name:worker-1";
export const uriOf = (uuid: string, ip = "10.1.0.5") =>
  `nvmf://${ip}:4421/nqn.2019-05.io.openebs:${uuid}?hostnqn=${HOST}`;
export const STAGING = "/kubelet/staging";
export const TARGET = "/kubelet/pods/a/mount";
export const rw = { accessMode: { mode: "SINGLE_NODE_WRITER" } };
export const ext4 = { ...rw, mount: { fsType: "ext4" } };
export const block = { ...rw, block: {} };

export const stageOf = (over: object = {}) => ({
  volumeId: V,
  publishContext: { uri: uriOf(V) },
  stagingTargetPath: STAGING,
  volumeCapability: ext4,
  ...over,
});
export const publishOf = (over: object = {}) => ({
  volumeId: V,
  stagingTargetPath: STAGING,
  targetPath: TARGET,
  volumeCapability: ext4,
  ...over,
});
export const unstageOf = (over: object = {}) => ({
  volumeId: V,
  stagingTargetPath: STAGING,
  ...over,
});
export const unpublishOf = (over: object = {}) => ({ volumeId: V, targetPath: TARGET, ...over });

/** The plugin on a fake node, over a real unix socket. */
export async function start(
  t: TestContext,
  {
    readVolume = null,
    mayFreeze = true,
  }: { readonly readVolume?: ReadVolume | null; readonly mayFreeze?: boolean } = {},
) {
  const system = new FakeSystem(t);
  system.folder(path.dirname(TARGET));
  const parts = fakeParts(system, readVolume);
  const folder = mkdtempSync(path.join(os.tmpdir(), "csi-node-"));
  const socket = path.join(folder, "csi.sock");
  const clock = new ManualClock();
  const freezer = new Freezer({ ...parts, context: { ...parts.context, clock } });
  const identity = identityService({ version: "1.2.3", isReady: async () => true });
  const server = await serveSocket(socket, [
    identity,
    nodeService(parts),
    nodePluginService({ ...parts, freezer, mayFreeze }),
    nvmeOperationsService(parts.context),
  ]);
  const client = new CsiClient(`unix:${socket}`);
  t.after(async () => {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const expect = async (code: string, name: string, request: Parameters<CsiClient["call"]>[1]) => {
    const outcome = await client.call(name, request);
    assert.equal(outcome.code, code, `${name} ${JSON.stringify(request)}: ${outcome.message}`);
    return outcome;
  };
  return { system, client, clock, freezer, expect, ok: expect.bind(null, "OK") };
}
