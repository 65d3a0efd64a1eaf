/**
 * The controller service against the text of the CSI specification, call by call: missing and unsupported fields,
 * unknown ids, repeats, repeats that want something else, calls at the same time, combinations of capabilities.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { POOL_BYTES } from "./testing/fake_rest.ts";
import {
  A,
  B,
  block,
  createOf,
  mount,
  publishOf,
  range,
  start,
  UNKNOWN,
  unpublishOf,
  validateOf,
  writer,
} from "./testing/rig.ts";

const MIB = 1024 * 1024;
type Case = readonly [over: object, code: string];

const mode = (name: string) => ({ accessMode: { mode: name }, mount: {} });
/** Not one node that writes, and so not what the driver can do. */
const OTHER_MODES = [
  ...["UNKNOWN", "SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER"],
  ...["MULTI_NODE_MULTI_WRITER", "SINGLE_NODE_SINGLE_WRITER", "SINGLE_NODE_MULTI_WRITER"],
].map(mode);
const UNSUPPORTED = [
  ...OTHER_MODES,
  { mount: {} }, // no access mode
  writer, // neither block nor mount
  { ...writer, mount: { fsType: "ntfs" } },
];
const MIXED = [
  ...[[mount, block], [block], [{ ...writer, mount: {} }]],
  [{ ...writer, mount: { fsType: "xfs", mountFlags: ["noatime"] } }, block],
];

async function withVolume(t: TestContext) {
  const all = await start(t);
  await all.ok("CreateVolume", createOf());
  all.rest.changes.length = 0;
  return all;
}

test("CreateVolume refuses what is missing, wrong or not offered, and asks for nothing", async (t) => {
  const { rest, expect } = await start(t);
  const cases: Case[] = [
    ...[
      { name: "" },
      { name: "vol-1" },
      { name: A },
      { name: `pvc-${A}x` },
      { name: "x".repeat(200) },
    ].map((over): Case => [over, "INVALID_ARGUMENT"]),
    [{ volumeCapabilities: [] }, "INVALID_ARGUMENT"],
    ...UNSUPPORTED.flatMap((one): Case[] => [
      [{ volumeCapabilities: [one] }, "INVALID_ARGUMENT"],
      [{ volumeCapabilities: [mount, one] }, "INVALID_ARGUMENT"],
      [{ volumeCapabilities: [one, block] }, "INVALID_ARGUMENT"],
    ]),
    ...[undefined, range(0), range(0, MIB), range(-1), range(MIB, -1)].map(
      (capacityRange): Case => [{ capacityRange }, "INVALID_ARGUMENT"],
    ),
    [{ capacityRange: range(2, 1) }, "OUT_OF_RANGE"],
    [{ capacityRange: range(2n ** 63n - 1n) }, "OUT_OF_RANGE"],
    [{ volumeContentSource: { snapshot: { snapshotId: "x" } } }, "INVALID_ARGUMENT"],
    [{ volumeContentSource: { volume: { volumeId: A } } }, "INVALID_ARGUMENT"],
    [{ volumeContentSource: {} }, "INVALID_ARGUMENT"],
    [{ mutableParameters: { repl: "3" } }, "INVALID_ARGUMENT"],
    ...[
      ...[{ repl: "0" }, { repl: "256" }, { repl: "-1" }, { repl: "two" }, { protocol: "iscsi" }],
      ...[{ ioTimeout: "0" }, { nvmeCtrlLossTmo: "-1" }, { nvmeKeepAliveTmo: "2147483648" }],
      ...[{ fsType: "EXT4" }, { stsAffinityGroup: "yes" }, { nvmeNrIoQueues: "many" }],
      ...[{ repl: "" }, { repl: "2 " }, { repl_count: "3" }, { Repl: "3" }, { replicas: "3" }],
      ...[{ thin: "True" }, { thin: "maybe" }, { thin: "" }, { thin: "1" }, { Thin: "true" }],
      ...[{ encrypted: "true" }, { nodeHasTopologyKey: "zone" }, { poolHasTopologyKey: "ssd" }],
      ...[{ iotimeout: "30" }, { ioTimeout: "" }, { nvmeNrIoQueues: "0" }, { "": "x" }],
      ...[{ fstype: "ntfs" }, { fsType: "xfs", fstype: "xfs" }, { nothingLikeIt: "1" }],
    ].map((parameters): Case => [{ parameters }, "INVALID_ARGUMENT"]),
    [
      {
        accessibilityRequirements: {
          requisite: [{ segments: { "openebs.io/csi-node": "other" } }],
        },
      },
      "RESOURCE_EXHAUSTED",
    ],
    [
      {
        accessibilityRequirements: {
          requisite: [{ segments: { "topology.kubernetes.io/zone": "a" } }],
        },
      },
      "RESOURCE_EXHAUSTED",
    ],
  ];
  for (const [over, code] of cases) await expect(code, "CreateVolume", createOf(over));
  assert.deepEqual(rest.changes, []);
});

test("CreateVolume takes every combination of capabilities that a volume can serve", async (t) => {
  const { rest, ok } = await start(t);
  for (const volumeCapabilities of MIXED) {
    await ok("CreateVolume", createOf({ volumeCapabilities })); // all the same volume
  }
  assert.equal(rest.created.length, 1);
});

test("CreateVolume rounds up to what can be used, and refuses where the limit forbids that", async (t) => {
  const { rest, ok, expect } = await start(t);
  const of = (fsType: string | null, required: bigint | number, limit: bigint | number = 0) => ({
    name: `pvc-${B.slice(0, -2)}${String(rest.created.length).padStart(2, "0")}`,
    capacityRange: range(required, limit),
    volumeCapabilities: [fsType === null ? block : { ...writer, mount: { fsType } }],
  });
  for (const [fsType, required, capacity] of [
    [null, 1, MIB],
    [null, 4097, MIB],
    [null, MIB + 1, 2 * MIB],
    ["ext4", 1, 2 * MIB],
    ["", MIB, 2 * MIB],
    ["ext4", 500_000_000, 477 * MIB],
    ["xfs", MIB, 300 * MIB],
    ["xfs", 300 * MIB + 1, 301 * MIB],
    ["btrfs", 64 * MIB, 128 * MIB],
  ] as const) {
    const made = await ok("CreateVolume", createOf(of(fsType, required)));
    assert.deepEqual(
      [fsType, required, (made as { volume: { capacityBytes: string } }).volume.capacityBytes],
      [fsType, required, String(capacity)],
    );
  }
  rest.changes.length = 0;
  for (const [fsType, required, limit] of [
    [null, 1, 1],
    [null, MIB + 1, 2 * MIB - 1],
    ["xfs", MIB, 299 * MIB],
    ["btrfs", 100 * MIB, 100 * MIB],
    [null, 2n ** 53n, 0],
    [null, 2n ** 53n - 1n, 0],
  ] as const) {
    await expect("OUT_OF_RANGE", "CreateVolume", createOf(of(fsType, required, limit)));
  }
  const byParameter = { ...of("", MIB, 299 * MIB), parameters: { repl: "1", fsType: "xfs" } };
  await expect("OUT_OF_RANGE", "CreateVolume", createOf(byParameter));
  assert.deepEqual(rest.changes, []);
  await ok("CreateVolume", createOf(of("xfs", MIB, 300 * MIB)));
});

test("CreateVolume passes no secret on, and answers with what was made", async (t) => {
  const { rest, ok } = await start(t);
  const requisite = ["a", "b"].map((node) => ({
    segments: { "openebs.io/csi-node": "mayastor", "openebs.io/nodename": node },
  }));
  const created = await ok(
    "CreateVolume",
    createOf({
      secrets: { password: "hidden" },
      accessibilityRequirements: { requisite, preferred: requisite },
      capacityRange: range(3 * MIB, 5 * MIB),
    }),
  );
  assert.doesNotMatch(JSON.stringify([rest.created, created]), /hidden|password/);
  assert.deepEqual(created, {
    volume: {
      ...{ volumeId: A, capacityBytes: String(3 * MIB), volumeContext: { repl: "2" } },
      accessibleTopology: [{ segments: { "openebs.io/csi-node": "mayastor" } }],
    },
  });
});

test("CreateVolume of what cannot be placed is RESOURCE_EXHAUSTED", async (t) => {
  const { expect } = await start(t);
  const huge = createOf({ capacityRange: range(POOL_BYTES + 1) });
  await expect("RESOURCE_EXHAUSTED", "CreateVolume", huge);
  await expect("RESOURCE_EXHAUSTED", "CreateVolume", createOf({ parameters: { repl: "3" } }));
});

test("CreateVolume repeated is the same volume; one that wants another is ALREADY_EXISTS", async (t) => {
  const { rest, ok, expect } = await start(t);
  const created = await ok("CreateVolume", createOf());
  assert.deepEqual(await ok("CreateVolume", createOf()), created);
  await ok("CreateVolume", createOf({ capacityRange: range(MIB, 64 * MIB) }));
  for (const over of [
    { capacityRange: range(65 * MIB) },
    { capacityRange: range(MIB, 63 * MIB) },
    { parameters: { repl: "3" } },
    { parameters: { repl: "2", thin: "true" } },
  ]) {
    await expect("ALREADY_EXISTS", "CreateVolume", createOf(over));
  }
  assert.equal(rest.created.length, 1);
});

test("CreateVolume takes every published parameter, and what Kubernetes adds", async (t) => {
  const { rest, ok } = await start(t);
  const parameters = {
    ...{ repl: "2", protocol: "nvmf", ioTimeout: "30", thin: "true", fstype: "xfs" },
    ...{ nvmeCtrlLossTmo: "60", nvmeKeepAliveTmo: "5", nvmeNrIoQueues: "4" },
    stsAffinityGroup: "true",
    "csi.storage.k8s.io/pvc/name": "data-db-0",
    "csi.storage.k8s.io/pvc/namespace": "shop",
    "csi.storage.k8s.io/pv/name": `pvc-${A}`,
    "storage.kubernetes.io/csiProvisionerIdentity": "1-2-io.openebs.csi-mayastor",
  };
  const xfs = { ...writer, mount: {} };
  await ok("CreateVolume", createOf({ parameters, volumeCapabilities: [xfs] }));
  const [{ replicas, thin, size, affinity_group } = {}] = rest.created;
  assert.deepEqual([replicas, thin, affinity_group], [2, true, { id: "shop/data-db" }]);
  assert.equal(size, 300 * MIB, "what xfs takes at least");
  const { publishContext } = (await ok(
    "ControllerPublishVolume",
    publishOf({ volumeContext: parameters }),
  )) as { publishContext: Record<string, string> };
  const { uri: _, ...context } = publishContext;
  const [ioTimeout, nvmeCtrlLossTmo, nvmeKeepAliveTmo, nvmeNrIoQueues] = ["30", "60", "5", "4"];
  assert.deepEqual(context, { ioTimeout, nvmeCtrlLossTmo, nvmeKeepAliveTmo, nvmeNrIoQueues });
});

test("CreateVolume keeps a volume to the nodes that allowedTopologies names", async (t) => {
  const { ok } = await start(t);
  const made = async (name: string, ...requisite: Record<string, string>[]) => {
    const terms = requisite.map((segments) => ({ segments }));
    const answer = await ok(
      "CreateVolume",
      createOf({ name, accessibilityRequirements: { requisite: terms, preferred: terms } }),
    );
    const { accessibleTopology } = (answer as { volume: { accessibleTopology: object[] } }).volume;
    return accessibleTopology;
  };
  const [node, own] = ["openebs.io/nodename", { "openebs.io/csi-node": "mayastor" }];
  const [a, b] = [{ [node]: "a" }, { [node]: "b" }];
  assert.deepEqual(await made(`pvc-${A}`, a, b), [
    { segments: { ...own, ...a } },
    { segments: { ...own, ...b } },
  ]);
  assert.deepEqual(await made(`pvc-${A}`, own), [{ segments: own }]);
  assert.deepEqual(await made(`pvc-${A}`, { zone: "x" }, a), [{ segments: { ...own, ...a } }]);
  assert.deepEqual(await made(`pvc-${A}`, { ...own, ...a }, { ...own, ...b }), [{ segments: own }]);
});

test("calls at the same time for one volume: the second is ABORTED, other volumes go on", async (t) => {
  const { rest, ok, expect } = await start(t);
  const making = rest.holdUp(`PUT /volumes/${A}`);
  const first = ok("CreateVolume", createOf());
  await making.started;
  for (const [name, request] of [
    ["CreateVolume", createOf()],
    ["CreateVolume", createOf({ name: `pvc-${A.toUpperCase()}` })],
    ["DeleteVolume", { volumeId: A }],
    ["ControllerPublishVolume", publishOf()],
    ["ControllerUnpublishVolume", unpublishOf()],
  ] as const) {
    await expect("ABORTED", name, request);
  }
  await ok("CreateVolume", createOf({ name: `pvc-${B}` }));
  making.release();
  await first;
  const publishing = rest.holdUp(`PUT /volumes/${A}/target`);
  const published = ok("ControllerPublishVolume", publishOf());
  await publishing.started;
  await expect("ABORTED", "ControllerPublishVolume", publishOf());
  await expect("ABORTED", "DeleteVolume", { volumeId: A });
  publishing.release();
  await published;
});

test("DeleteVolume: missing, unknown and repeated ids; a volume in use", async (t) => {
  const { rest, ok, expect } = await withVolume(t);
  await expect("INVALID_ARGUMENT", "DeleteVolume", {});
  for (const volumeId of [UNKNOWN, "no-uuid", "../nodes", "x".repeat(300)]) {
    await ok("DeleteVolume", { volumeId });
  }
  await ok("ControllerPublishVolume", publishOf());
  await expect("FAILED_PRECONDITION", "DeleteVolume", { volumeId: A });
  await ok("ControllerUnpublishVolume", unpublishOf());
  for (let round = 0; round < 2; round++) {
    await ok("DeleteVolume", { volumeId: A, secrets: { password: "x" } });
  }
  assert.equal(rest.volumes.size, 0);
});

test("ControllerPublishVolume refuses what is missing, wrong or unknown, and publishes nothing", async (t) => {
  const { rest, expect } = await withVolume(t);
  const cases: Case[] = [
    [{ volumeId: "" }, "INVALID_ARGUMENT"],
    [{ nodeId: "" }, "INVALID_ARGUMENT"],
    [{ volumeCapability: undefined }, "INVALID_ARGUMENT"],
    ...UNSUPPORTED.map((one): Case => [{ volumeCapability: one }, "INVALID_ARGUMENT"]),
    [{ readonly: true }, "INVALID_ARGUMENT"], // PUBLISH_READONLY is not offered
    [{ volumeContext: { protocol: "iscsi" } }, "INVALID_ARGUMENT"],
    [{ volumeContext: { ioTimeout: "soon" } }, "INVALID_ARGUMENT"],
    [{ volumeId: UNKNOWN }, "NOT_FOUND"],
    [{ volumeId: "no-uuid" }, "NOT_FOUND"],
    // What cannot be a node's name is no node. Any other name may be an application's node, which storage never sees.
    ...["a b", "a/b", "x".repeat(254)].map((nodeId): Case => [{ nodeId }, "NOT_FOUND"]),
  ];
  for (const [over, code] of cases) {
    await expect(code, "ControllerPublishVolume", publishOf(over));
  }
  assert.deepEqual(rest.changes, []);
});

test("ControllerPublishVolume repeated is the same publication; to another node it is FAILED_PRECONDITION", async (t) => {
  const { rest, ok, expect } = await withVolume(t);
  const volumeContext = { repl: "2", ioTimeout: "30", other: "x" };
  const secrets = { password: "hidden" };
  const first = await ok("ControllerPublishVolume", publishOf({ volumeContext, secrets }));
  const host = "nqn.2019-05.io.openebs:node-name:node-1";
  const uri = `nvmf://10.1.0.5:4421/nqn.2019-05.io.openebs:${A}?hostnqn=${host}`;
  assert.deepEqual(first, { publishContext: { uri, ioTimeout: "30" } });
  assert.deepEqual(await ok("ControllerPublishVolume", publishOf({ volumeContext })), first);
  await ok("ControllerPublishVolume", publishOf({ volumeContext, volumeCapability: block }));
  for (const nodeId of ["node-2", "app-1"]) {
    await expect("FAILED_PRECONDITION", "ControllerPublishVolume", publishOf({ nodeId }));
  }
  // Also while the target cannot be seen, where its own node is told to come back.
  rest.away.add("node-1");
  await expect("UNAVAILABLE", "ControllerPublishVolume", publishOf());
  const other = publishOf({ nodeId: "node-2" });
  await expect("FAILED_PRECONDITION", "ControllerPublishVolume", other);
});

for (const how of [
  "a target that can be seen",
  "a target whose engine is away",
  "no access lists",
]) {
  test(`ControllerUnpublishVolume takes a volume from the node it names, and from no other: ${how}`, async (t) => {
    const { rest, ok, expect } = await withVolume(t);
    rest.open = how === "no access lists";
    await ok("ControllerPublishVolume", publishOf());
    await ok("ControllerUnpublishVolume", unpublishOf());
    await ok("ControllerPublishVolume", publishOf({ nodeId: "app-1" }));
    if (how === "a target whose engine is away") rest.away.add("node-1");
    await expect("INVALID_ARGUMENT", "ControllerUnpublishVolume", { nodeId: "app-1" });
    rest.changes.length = 0;
    for (const nodeId of ["node-1", "node-2", "a b"]) {
      await ok("ControllerUnpublishVolume", unpublishOf({ nodeId })); // late
    }
    assert.deepEqual(rest.changes, [], "the present node keeps it");
    for (let round = 0; round < 2; round++) {
      await ok("ControllerUnpublishVolume", unpublishOf({ nodeId: "app-1" }));
    }
    assert.deepEqual(rest.changes, [`DELETE /volumes/${A}/target`]);
  });
}

test("ControllerUnpublishVolume without a node takes it from all; what is not there is unpublished", async (t) => {
  const { rest, ok } = await withVolume(t);
  for (const volumeId of [UNKNOWN, "no-uuid"]) {
    await ok("ControllerUnpublishVolume", unpublishOf({ volumeId }));
  }
  await ok("ControllerUnpublishVolume", unpublishOf()); // never published
  assert.deepEqual(rest.changes, []);
  await ok("ControllerPublishVolume", publishOf());
  await ok("ControllerUnpublishVolume", { volumeId: A });
  assert.equal(rest.volumes.get(A)?.spec.target, undefined);
});

test("a node that has got another host NQN since still has its volumes, and gives them back", async (t) => {
  const { rest, ok } = await withVolume(t);
  const first = await ok("ControllerPublishVolume", publishOf());
  rest.hostNqns.set("node-1", "nqn.2014-08.org.nvmexpress:uuid:another");
  assert.deepEqual(await ok("ControllerPublishVolume", publishOf()), first);
  await ok("ControllerUnpublishVolume", unpublishOf());
  assert.equal(rest.volumes.get(A)?.spec.target, undefined);
});

test("ControllerUnpublishVolume still knows the node where REST does not tell it", async (t) => {
  const { rest, ok } = await withVolume(t);
  rest.old = true;
  await ok("ControllerPublishVolume", publishOf());
  rest.changes.length = 0;
  await ok("ControllerUnpublishVolume", unpublishOf({ nodeId: "node-2" }));
  assert.deepEqual(rest.changes, []);
  await ok("ControllerUnpublishVolume", unpublishOf());
  assert.deepEqual(rest.changes, [`DELETE /volumes/${A}/target`]);
});

test("ValidateVolumeCapabilities confirms only when all that is asked for is supported", async (t) => {
  const { ok, expect } = await withVolume(t);
  await expect("INVALID_ARGUMENT", "ValidateVolumeCapabilities", validateOf({ volumeId: "" }));
  const none = validateOf({ volumeCapabilities: [] });
  await expect("INVALID_ARGUMENT", "ValidateVolumeCapabilities", none);
  for (const volumeId of [UNKNOWN, "no-uuid"]) {
    await expect("NOT_FOUND", "ValidateVolumeCapabilities", validateOf({ volumeId }));
  }
  const parameters = { repl: "2", ioTimeout: "30" };
  for (const volumeCapabilities of MIXED) {
    const confirmed = { volumeCapabilities, parameters, volumeContext: parameters };
    const reply = await ok("ValidateVolumeCapabilities", validateOf(confirmed));
    assert.deepEqual(reply, { confirmed: JSON.parse(JSON.stringify(confirmed)) });
  }
  for (const over of [
    ...UNSUPPORTED.flatMap((one) => [
      { volumeCapabilities: [one] },
      { volumeCapabilities: [mount, one] },
    ]),
    { parameters: { protocol: "iscsi" } },
    { volumeContext: { ioTimeout: "0" } },
    { parameters: { replicas: "3" } },
    { volumeContext: { thin: "yes" } },
    { mutableParameters: { repl: "3" } },
  ]) {
    const reply = (await ok("ValidateVolumeCapabilities", validateOf(over))) as object; // a message
    assert.deepEqual(Object.keys(reply), ["message"], JSON.stringify(over));
  }
});

test("ListVolumes pages without gap or repeat, and starts again for a token that is none of its own", async (t) => {
  const { ok, expect } = await withVolume(t);
  await ok("CreateVolume", createOf({ name: `pvc-${B}` }));
  type Page = { entries?: { volume: { volumeId: string } }[]; nextToken?: string };
  const list = async (request: object) => {
    const page = (await ok("ListVolumes", request)) as Page;
    return [page.entries?.map(({ volume }) => volume.volumeId) ?? [], page.nextToken] as const;
  };
  assert.deepEqual(await list({}), [[A, B], undefined]);
  assert.deepEqual(await list({ maxEntries: 1 }), [[A], "1"]);
  assert.deepEqual(await list({ maxEntries: 1, startingToken: "1" }), [[B], undefined]);
  assert.deepEqual(await list({ startingToken: "1" }), [[B], undefined], "no limit, from there on");
  assert.deepEqual(await list({ maxEntries: 2 }), [[A, B], undefined]);
  assert.deepEqual(await list({ maxEntries: 2 ** 31 - 1 }), [[A, B], undefined]);
  // Volumes that were deleted since the page before.
  assert.deepEqual(await list({ maxEntries: 1, startingToken: "2" }), [[], undefined]);
  for (const startingToken of ["-1", "1.5", "abc", " 1", "0x1", "9".repeat(16)]) {
    await expect("ABORTED", "ListVolumes", { startingToken });
  }
  await expect("INVALID_ARGUMENT", "ListVolumes", { maxEntries: -1 });
});

test("GetCapacity counts what volumes so made could use where they are wanted", async (t) => {
  const { ok, expect } = await start(t);
  const at = (segments: object) => ({ accessibleTopology: { segments } });
  const all = { availableCapacity: String(2 * POOL_BYTES) };
  const one = { availableCapacity: String(POOL_BYTES) };
  for (const request of [
    ...[{}, { parameters: { repl: "2", thin: "true" } }, { volumeCapabilities: [mount, block] }],
    ...[at({}), at({ "openebs.io/csi-node": "mayastor" })],
  ]) {
    assert.deepEqual(await ok("GetCapacity", request), all, JSON.stringify(request));
  }
  assert.deepEqual(await ok("GetCapacity", at({ "openebs.io/nodename": "node-1" })), one);
  for (const request of [
    ...[at({ "openebs.io/nodename": "elsewhere" }), at({ "openebs.io/csi-node": "other" })],
    at({ "openebs.io/nodename": "node-1", "openebs.io/csi-node": "other" }),
    at({ zone: "a" }),
    ...UNSUPPORTED.map((capability) => ({ volumeCapabilities: [mount, capability] })),
  ]) {
    assert.deepEqual(await ok("GetCapacity", request), {}, JSON.stringify(request));
  }
  for (const parameters of [{ protocol: "iscsi" }, { repl: "0" }]) {
    await expect("INVALID_ARGUMENT", "GetCapacity", { parameters });
  }
});

test("GetCapacity counts free space, of pools that CreateVolume takes", async (t) => {
  const { rest, ok } = await start(t);
  const capacity = async (node?: string) => {
    const segments = { "openebs.io/nodename": node };
    const request = node === undefined ? {} : { accessibleTopology: { segments } };
    const answer = await ok("GetCapacity", request);
    return Number((answer as { availableCapacity?: string }).availableCapacity ?? 0);
  };
  const [first, second] = rest.pools;
  assert.ok(first && second);
  first.state.used = 100 * MIB;
  assert.equal(await capacity(), 2 * POOL_BYTES - 100 * MIB);
  first.state.used = POOL_BYTES + MIB;
  assert.equal(await capacity(), POOL_BYTES, "a pool never counts less than nothing");
  first.state.used = 0;
  for (const pool of [
    { ...first, spec: { ...first.spec, labels: { "openebs.io/created-by": "hand" } } },
    { ...first, spec: { ...first.spec, status: "Deleting" } },
    { ...first, state: { ...first.state, status: "Faulted" } },
    { ...first, state: { ...first.state, status: "Unknown" } },
  ]) {
    rest.pools = [pool, second];
    assert.equal(await capacity(), POOL_BYTES, JSON.stringify(pool));
    assert.equal(await capacity("node-1"), 0);
  }
  rest.pools = [first, second];
  rest.cordoned.add("node-1");
  assert.equal(await capacity(), POOL_BYTES);
  rest.away.add("node-2");
  assert.equal(await capacity(), 0);
});

test("what is not offered is UNIMPLEMENTED, whatever its fields; the rest says what it is", async (t) => {
  const { ok, expect } = await start(t);
  for (const name of [
    ...["CreateSnapshot", "DeleteSnapshot", "ListSnapshots"],
    ...["ControllerExpandVolume", "ControllerGetVolume"],
  ]) {
    await expect("UNIMPLEMENTED", name);
  }
  await expect("UNIMPLEMENTED", "ControllerExpandVolume", { volumeId: A, capacityRange: range(1) });
  assert.deepEqual(await ok("Probe"), { ready: true });
  const info = { name: "io.openebs.csi-mayastor", vendorVersion: "1.2.3" };
  assert.deepEqual(await ok("GetPluginInfo"), info);
  assert.match(
    JSON.stringify(await ok("GetPluginCapabilities")),
    /CONTROLLER_SERVICE.*VOLUME_ACCESSIBILITY_CONSTRAINTS/,
  );
  assert.match(
    JSON.stringify(await ok("ControllerGetCapabilities")),
    /CREATE_DELETE_VOLUME.*PUBLISH_UNPUBLISH_VOLUME.*LIST_VOLUMES.*GET_CAPACITY/,
  );
});
