import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { LocalCluster } from "../../hack/cluster/local.ts";
import { ownPlace, QUICK_CORE, startCluster, untilOnline } from "../support/cluster.ts";
import type { CsiClient } from "../support/csi/client.ts";
import { startController } from "../support/csi/programs.ts";
import { clearOnSignal } from "../support/interrupts.ts";

const MIB = 1024 * 1024;
const A = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const B = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
const UNKNOWN = "00000000-0000-4000-8000-000000000000";
const LABELS = { "openebs.io/created-by": "operator-diskpool" };
const capability = { accessMode: { mode: "SINGLE_NODE_WRITER" }, mount: { fsType: "ext4" } };
const parameters = { repl: "2", protocol: "nvmf", ioTimeout: "30", nvmeCtrlLossTmo: "60" };
const topology = [{ segments: { "openebs.io/csi-node": "mayastor" } }];
const range = (required: number, limit = 0) => ({
  requiredBytes: String(required),
  limitBytes: String(limit),
});
const createOf = (uuid: string, over: object = {}) => ({
  name: `pvc-${uuid}`,
  capacityRange: range(64 * MIB),
  volumeCapabilities: [capability],
  parameters,
  ...over,
});
const publishOf = (over: object = {}) => ({
  volumeId: A,
  nodeId: "node-1",
  volumeCapability: capability,
  volumeContext: parameters,
  ...over,
});

/** Drops properties set to undefined: a field that is missing. */
type Request = Parameters<CsiClient["call"]>[1];
const message = (value: object): Request => JSON.parse(JSON.stringify(value)) as Request; // plain data above

test("csi-controller against a real cluster: every call, its repeats, conflicts and failures", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-csi-"));
  t.after(async () => {
    await LocalCluster.clear(path.join(folder, "cluster")); // reads the folder: before it goes
    rmSync(folder, { recursive: true, force: true });
  });
  clearOnSignal(folder, path.join(folder, "cluster"));
  const cluster = await LocalCluster.create({
    ...{ folder: path.join(folder, "cluster"), engines: 2, diskMiB: 256, coreArgs: QUICK_CORE },
    ...ownPlace(2),
  });
  await cluster.start();
  for (const { name, pool, disk } of cluster.nodes) {
    const body = { disks: [`aio://${disk}`], labels: LABELS };
    await cluster.rest.request("PUT", `/nodes/${name}/pools/${pool}`, body);
  }
  const client = await startController(t, { restUrl: cluster.rest.url, folder });
  const expect = async (code: string, name: string, request: object = {}) => {
    const outcome = await client.call(name, message(request));
    assert.equal(outcome.code, code, `${name} ${JSON.stringify(request)}: ${outcome.message}`);
    return outcome.reply;
  };
  const ok = (name: string, request: object = {}) => expect("OK", name, request);

  await t.test("says what it is and can do", async () => {
    assert.deepEqual(await ok("Probe"), { ready: true });
    const { name } = (await ok("GetPluginInfo")) as { name: string };
    assert.equal(name, "io.openebs.csi-mayastor");
    assert.deepEqual(await ok("ControllerGetCapabilities"), {
      capabilities: [
        "CREATE_DELETE_VOLUME",
        "PUBLISH_UNPUBLISH_VOLUME",
        "LIST_VOLUMES",
        "GET_CAPACITY",
      ].map((type) => ({ rpc: { type } })),
    });
    for (const absent of [
      ...["CreateSnapshot", "DeleteSnapshot", "ListSnapshots"],
      ...["ControllerExpandVolume", "ControllerGetVolume"],
    ]) {
      await expect("UNIMPLEMENTED", absent);
    }
  });

  await t.test("refuses missing fields and what the driver cannot do", async () => {
    const mode = (name: string) => ({ accessMode: { mode: name }, mount: {} });
    const bad: object[] = [
      { name: "" },
      { name: "vol-1" },
      { name: "pvc-1" },
      { volumeCapabilities: [] },
      { volumeCapabilities: [{ mount: {} }] },
      { volumeCapabilities: [{ accessMode: { mode: "SINGLE_NODE_WRITER" } }] },
      { volumeCapabilities: [capability, mode("MULTI_NODE_MULTI_WRITER")] },
      { volumeCapabilities: [mode("SINGLE_NODE_READER_ONLY")] },
      { volumeCapabilities: [{ ...capability, mount: { fsType: "ntfs" } }] },
      { capacityRange: undefined },
      { capacityRange: range(0) },
      { capacityRange: range(-1) },
      { volumeContentSource: { snapshot: { snapshotId: "x" } } },
      { volumeContentSource: { volume: { volumeId: A } } },
      ...[{ repl: "0" }, { repl: "256" }, { repl: "x" }, { protocol: "iscsi" }].map(asParameters),
      ...[{ ioTimeout: "0" }, { ioTimeout: "4294968" }].map(asParameters),
      ...[{ nvmeCtrlLossTmo: "2147483648" }, { nvmeKeepAliveTmo: "2147483648" }].map(asParameters),
      ...[{ ioTimeout: "30s" }, { nvmeCtrlLossTmo: "-1" }, { fsType: "EXT4" }].map(asParameters),
    ];
    for (const over of bad) await expect("INVALID_ARGUMENT", "CreateVolume", createOf(A, over));
    await expect("OUT_OF_RANGE", "CreateVolume", createOf(A, { capacityRange: range(2, 1) }));
    const requisite = [{ segments: { "openebs.io/csi-node": "other" } }];
    const elsewhere = { accessibilityRequirements: { requisite } };
    await expect("RESOURCE_EXHAUSTED", "CreateVolume", createOf(A, elsewhere));
    for (const over of [
      { volumeId: "" },
      { nodeId: "" },
      { volumeCapability: undefined },
      { readonly: true },
    ]) {
      await expect("INVALID_ARGUMENT", "ControllerPublishVolume", publishOf(over));
    }
    for (const name of [
      "DeleteVolume",
      "ControllerUnpublishVolume",
      "ValidateVolumeCapabilities",
    ]) {
      await expect("INVALID_ARGUMENT", name);
    }
    await expect("INVALID_ARGUMENT", "ValidateVolumeCapabilities", { volumeId: A });
    await expect("INVALID_ARGUMENT", "ListVolumes", { maxEntries: -1 });
    await expect("ABORTED", "ListVolumes", { startingToken: "abc" });
    assert.deepEqual((await cluster.rest.volumes()).entries, []);
  });

  await t.test("treats the unknown as the specification says", async () => {
    for (const volumeId of [UNKNOWN, "no-uuid"]) {
      await ok("DeleteVolume", { volumeId });
      await ok("ControllerUnpublishVolume", { volumeId, nodeId: "node-1" });
      await expect("NOT_FOUND", "ControllerPublishVolume", publishOf({ volumeId }));
      const validate = { volumeId, volumeCapabilities: [capability] };
      await expect("NOT_FOUND", "ValidateVolumeCapabilities", validate);
    }
  });

  await t.test("creates a volume once, and refuses another one of its name", async () => {
    const created = await ok("CreateVolume", createOf(A));
    const volume = { volumeId: A, capacityBytes: String(64 * MIB) };
    assert.deepEqual(created, {
      volume: { ...volume, volumeContext: parameters, accessibleTopology: topology },
    });
    assert.deepEqual(await ok("CreateVolume", createOf(A)), created);
    const fewer = createOf(A, {
      parameters: { ...parameters, repl: "1" },
      capacityRange: range(MIB),
    });
    await ok("CreateVolume", fewer);
    for (const over of [
      { capacityRange: range(65 * MIB) },
      { capacityRange: range(MIB, 32 * MIB) },
      { parameters: { ...parameters, thin: "true" } },
      { parameters: { ...parameters, repl: "3" } },
    ]) {
      await expect("ALREADY_EXISTS", "CreateVolume", createOf(A, over));
    }
    const { spec } = await cluster.rest.volume(A);
    assert.deepEqual([spec.num_replicas, spec.thin, spec.policy], [2, false, { self_heal: true }]);
    assert.deepEqual(spec.topology?.pool_topology, {
      labelled: { exclusion: {}, inclusion: LABELS },
    });
    await expect(
      "RESOURCE_EXHAUSTED",
      "CreateVolume",
      createOf(B, { capacityRange: range(1024 * MIB) }),
    );
    await expect("RESOURCE_EXHAUSTED", "CreateVolume", createOf(B, asParameters({ repl: "3" })));
  });

  await t.test("groups the volumes of a StatefulSet, lists pages and sums capacity", async () => {
    const claim = {
      stsAffinityGroup: "true",
      "csi.storage.k8s.io/pvc/name": "data-web-0",
      "csi.storage.k8s.io/pvc/namespace": "shop",
    };
    const wish = {
      parameters: { ...claim, thin: "true" },
      volumeCapabilities: [{ ...capability, block: {}, mount: undefined }],
    };
    await ok("CreateVolume", createOf(B, wish));
    const { spec } = await cluster.rest.volume(B);
    assert.deepEqual(
      [spec.affinity_group, spec.thin, spec.num_replicas],
      [{ id: "shop/data-web" }, true, 1],
    );
    type Page = { entries: { volume: { volumeId: string } }[]; nextToken?: string };
    const first = (await ok("ListVolumes", { maxEntries: 1 })) as Page;
    const second = (await ok("ListVolumes", {
      maxEntries: 1,
      startingToken: first.nextToken,
    })) as Page;
    const found = [...first.entries, ...second.entries].map(({ volume }) => volume.volumeId);
    assert.deepEqual([found.sort(), second.nextToken], [[A, B].sort(), undefined]);
    const sum = (await cluster.rest.pools()).map(
      ({ state }) => (state?.capacity ?? 0) - (state?.used ?? 0),
    );
    const total = String(sum.reduce((one, other) => one + other, 0));
    assert.deepEqual(await ok("GetCapacity"), { availableCapacity: total });
    const at = (node: string) => ({
      accessibleTopology: { segments: { "openebs.io/nodename": node } },
    });
    assert.deepEqual(await ok("GetCapacity", at("node-1")), { availableCapacity: String(sum[0]) });
    assert.deepEqual(await ok("GetCapacity", at("elsewhere")), {});
    const readers = { ...capability, accessMode: { mode: "MULTI_NODE_READER_ONLY" } };
    const validate = (...volumeCapabilities: object[]) =>
      ok("ValidateVolumeCapabilities", { volumeId: A, volumeCapabilities });
    assert.deepEqual(await validate(capability), {
      confirmed: { volumeCapabilities: [capability] },
    });
    assert.deepEqual(Object.keys((await validate(capability, readers)) as object), ["message"]);
  });

  await t.test("publishes to one node at a time, here and to nodes without storage", async () => {
    const reply = (await ok("ControllerPublishVolume", publishOf())) as {
      publishContext: Record<string, string>;
    };
    const host = "nqn.2019-05.io.openebs:node-name:node-1";
    assert.deepEqual(reply.publishContext, {
      ...{ ioTimeout: "30", nvmeCtrlLossTmo: "60" },
      uri: `nvmf://${cluster.nodes[0]?.address}:4421/nqn.2019-05.io.openebs:${A}?hostnqn=${host}`,
    });
    assert.deepEqual(await ok("ControllerPublishVolume", publishOf()), reply);
    await expect("FAILED_PRECONDITION", "ControllerPublishVolume", publishOf({ nodeId: "node-2" }));
    await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "node-2" }); // late and about another node
    assert.ok((await cluster.rest.volume(A)).spec.target, "the present node keeps it");
    await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "node-1" });
    await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "node-1" });
    assert.equal((await cluster.rest.volume(A)).spec.target, undefined);
    // An application node that is no storage node: the target is where a replica is, and a retry still finds it.
    const remote = await ok("ControllerPublishVolume", publishOf({ nodeId: "app-1" }));
    assert.match(JSON.stringify(remote), /hostnqn=nqn\.2019-05\.io\.openebs:node-name:app-1/);
    assert.deepEqual(await ok("ControllerPublishVolume", publishOf({ nodeId: "app-1" })), remote);
    await expect("FAILED_PRECONDITION", "DeleteVolume", { volumeId: A });
    assert.ok((await cluster.rest.volume(A)).spec.target, "its user keeps it");
  });

  await t.test(
    "takes a volume from its node while the target's engine is dead, no other's",
    async () => {
      const { spec } = await cluster.rest.volume(A);
      const node = cluster.nodes.find(({ name }) => name === spec.target?.node);
      assert.ok(node, "it is published");
      await cluster.endEngine(node, "SIGKILL");
      // Nobody can look at the target now; what is wanted still says whose it is.
      await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "node-1" }); // late
      assert.ok((await cluster.rest.volume(A)).spec.target, "its user keeps it");
      for (let round = 0; round < 2; round++) {
        await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "app-1" });
        assert.equal((await cluster.rest.volume(A)).spec.target, undefined);
      }
      // Its next user, on the replica that is left, is not disturbed by what comes late, nor by the engine's return.
      const next = await ok("ControllerPublishVolume", publishOf({ nodeId: "app-2" }));
      await ok("ControllerUnpublishVolume", { volumeId: A, nodeId: "app-1" });
      cluster.startEngine(node);
      await untilOnline(cluster, A);
      assert.deepEqual(await ok("ControllerPublishVolume", publishOf({ nodeId: "app-2" })), next);
    },
  );

  await t.test(
    "runs one call a volume: at once, each ends well or is told to come back",
    async () => {
      const calls = Array.from({ length: 6 }, () =>
        client.call("ControllerUnpublishVolume", { volumeId: A }),
      );
      const codes = new Set((await Promise.all(calls)).map(({ code }) => code));
      codes.delete("OK");
      codes.delete("ABORTED");
      assert.deepEqual([...codes], []);
      assert.equal((await cluster.rest.volume(A)).spec.target, undefined);
    },
  );

  await t.test("deletes for good, and says so when the control plane is away", async () => {
    for (const volumeId of [A, B, A]) await ok("DeleteVolume", { volumeId });
    assert.deepEqual((await cluster.rest.volumes()).entries, []);
    await cluster.processes.end("api-rest");
    assert.deepEqual(await ok("Probe"), { ready: false });
    await expect("UNAVAILABLE", "CreateVolume", createOf(A));
    await expect("UNAVAILABLE", "DeleteVolume", { volumeId: A });
  });
});

test("csi-controller without access lists still publishes a volume to one node alone", async (t) => {
  const cluster = await startCluster(t, {
    ...{ engines: 1, diskMiB: 256, coreArgs: [...QUICK_CORE, "--hosts-acl", "none"] },
  });
  const client = await startController(t, { restUrl: cluster.rest.url, folder: cluster.folder });
  const body = { size: 16 * MIB, replicas: 1, thin: false, policy: { self_heal: true } };
  await cluster.rest.request("PUT", `/volumes/${A}`, body);
  const publish = (nodeId: string) =>
    client.call("ControllerPublishVolume", message(publishOf({ nodeId })));
  const first = await publish("app-1");
  assert.equal(first.code, "OK", first.message);
  assert.doesNotMatch(JSON.stringify(first.reply), /hostnqn/);
  assert.deepEqual(await publish("app-1"), first);
  assert.equal((await cluster.rest.volume(A)).spec.target?.node, "node-1");
  assert.equal((await publish("node-1")).code, "FAILED_PRECONDITION"); // where its target is
});

function asParameters(over: object): object {
  return { parameters: { ...parameters, ...over } };
}
