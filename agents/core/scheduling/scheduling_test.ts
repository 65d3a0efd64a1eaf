/** Scheduling, rule by rule: each published filter and weight has its case. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { NexusInfo } from "#common/types/cluster.ts";
import type { ChildReason } from "../engine/client.ts";
import { bdevBlockSizes } from "../engine/convert.ts";
import { type NodeItem, selectNodes } from "./node.ts";
import {
  comparePools,
  explainPools,
  ofOneBlockSize,
  onDistinctNodes,
  type PoolItem,
  type ReplicaRequest,
  selectPools,
} from "./pool.ts";
import {
  type ReplicaItem,
  removalCandidate,
  selectForNexus,
  sortForAttach,
  sortForRemoval,
  unfitFor,
} from "./replica.ts";
import { blockSizeOfPool } from "./space.ts";

const GIB = 2 ** 30;
const LIMITS = { poolCommitment: 250, volumeCommitment: 40, volumeCommitmentInitial: 40 };

function pool(id: string, change: Partial<PoolItem> = {}): PoolItem {
  return {
    id,
    node: `node-of-${id}`,
    nodeOnline: true,
    nodeCordoned: false,
    status: "Online",
    hasSpec: true,
    labels: {},
    capacity: 100 * GIB,
    free: 50 * GIB,
    committed: 50 * GIB,
    blockSize: 512,
    replicaCount: 1,
    groupOnPool: 0,
    groupOnNode: 0,
    ...change,
  };
}

const THICK: ReplicaRequest = {
  size: 10 * GIB,
  blockSize: null,
  thin: false,
  published: false,
  allowedNodes: null,
  poolLabels: {},
  usedNodes: [],
  allocated: 0,
  inGroup: false,
  replicaCount: 2,
  groupNodes: [],
};
const THIN: ReplicaRequest = { ...THICK, thin: true };

describe("selectPools()", () => {
  const cases: readonly [string, Partial<PoolItem>, Partial<ReplicaRequest>, boolean][] = [
    ["takes a good pool", {}, {}, true],
    ["a cordoned node", { nodeCordoned: true }, {}, false],
    ["an offline node", { nodeOnline: false }, {}, false],
    ["a node that is not allowed", {}, { allowedNodes: ["other"] }, false],
    ["an allowed node", {}, { allowedNodes: ["node-of-a"] }, true],
    ["a node with a replica of the volume", {}, { usedNodes: ["node-of-a"] }, false],
    [
      "another pool of the node it moves from",
      {},
      { usedNodes: ["node-of-a"], movingFrom: { node: "node-of-a", pool: "b" } },
      true,
    ],
    ["a faulted pool", { status: "Faulted" }, {}, false],
    ["an unknown pool", { status: "Unknown" }, {}, false],
    ["a degraded pool", { status: "Degraded" }, {}, true],
    ["a pool without a spec", { hasSpec: false }, {}, false],
    ["a pool just as large as the volume", { capacity: 10 * GIB, committed: 0 }, {}, false],
    ["thick: free space just the size", { free: 10 * GIB }, {}, false],
    ["thin: less free than the size", { free: 5 * GIB }, { thin: true }, true],
    ["thin: below 40 % of a first replica", { free: 4 * GIB }, { thin: true }, false],
    ["thin: allocated plus 40 %", { free: 8 * GIB }, { thin: true, allocated: 5 * GIB }, false],
    [
      "thin: never more than the size",
      { free: 10 * GIB + 1 },
      { thin: true, allocated: 9 * GIB },
      true,
    ],
    [
      "thin: unknown allocation counts in full",
      { free: 10 * GIB },
      { thin: true, allocated: null },
      false,
    ],
    ["thin: below the watermark", { free: 16 * 2 ** 20 }, { thin: true, size: 2 ** 20 }, false],
    ["without the label", {}, { poolLabels: { kind: "ssd" } }, false],
    ["with the label", { labels: { kind: "ssd" } }, { poolLabels: { kind: "ssd" } }, true],
    ["at the commitment limit", { committed: 240 * GIB }, {}, false],
    ["just below the commitment limit", { committed: 240 * GIB - 1 }, {}, true],
    [
      "single replica next to its group",
      {},
      { inGroup: true, replicaCount: 1, groupNodes: ["node-of-a"] },
      false,
    ],
    ["several replicas next to its group", {}, { inGroup: true, groupNodes: ["node-of-a"] }, true],
  ];
  for (const [name, poolChange, requestChange, taken] of cases) {
    test(`${taken ? "takes" : "refuses"}: ${name}`, () => {
      const found = selectPools([pool("a", poolChange)], { ...THICK, ...requestChange }, LIMITS);
      assert.equal(found.length === 1, taken);
    });
  }

  test("puts Online before Degraded, whatever the score", () => {
    const degraded = pool("a", { status: "Degraded", free: 90 * GIB, replicaCount: 0 });
    const found = selectPools([degraded, pool("b")], THICK, LIMITS);
    assert.deepEqual(
      found.map((item) => item.id),
      ["b", "a"],
    );
  });

  test("weighs replicas 40 against free space 60 for thick volumes", () => {
    const few = pool("a", { replicaCount: 1, free: 40 * GIB });
    const free = pool("b", { replicaCount: 3, free: 60 * GIB });
    // replicas: 75:25 of 40 for a; free: 40:60 of 60 for b => a by 20 - 12
    assert.equal(comparePools(few, free, THICK), 40 * 50 - 60 * 20);
  });

  test("weighs over-commitment only for thin volumes", () => {
    const [calm, over] = [pool("a"), pool("b", { committed: 120 * GIB })];
    assert.equal(comparePools(calm, over, THICK), 0);
    assert.equal(comparePools(calm, over, THIN), 35 * 100);
  });

  test("weighs the affinity group of volumes with more than one replica", () => {
    const [alone, crowded] = [pool("a"), pool("b", { groupOnPool: 1, groupOnNode: 1 })];
    assert.equal(comparePools(alone, crowded, { ...THICK, inGroup: true }), 15 * 100);
    assert.equal(comparePools(alone, crowded, { ...THIN, inGroup: true }), 10 * 100);
    assert.equal(comparePools(alone, crowded, THICK), 0);
  });

  test("is stable: equal pools go by name", () => {
    const found = selectPools([pool("c"), pool("a"), pool("b")], THICK, LIMITS);
    assert.deepEqual(
      found.map((item) => item.id),
      ["a", "b", "c"],
    );
  });

  test("onDistinctNodes() keeps the best pool of each node", () => {
    const found = onDistinctNodes([pool("a", { node: "n" }), pool("b", { node: "n" }), pool("c")]);
    assert.deepEqual(
      found.map((item) => item.id),
      ["a", "c"],
    );
  });

  test("explainPools() says which rule left how many", () => {
    const items = [pool("a", { nodeCordoned: true }), pool("b", { free: 0 }), pool("c")];
    const why = explainPools(items, THICK, LIMITS);
    assert.equal(why, "3 pools, 2 where node is not cordoned, 1 where pool has free space");
  });
});

describe("block sizes", () => {
  const ids = (pools: readonly PoolItem[]) => pools.map(({ id }) => id);

  test("selectPools() takes those of the volume's replicas, and those that nobody knows", () => {
    const pools = [pool("a", { blockSize: 4096 }), pool("b"), pool("c", { blockSize: null })];
    assert.deepEqual(ids(selectPools(pools, { ...THICK, blockSize: 512 }, LIMITS)), ["b", "c"]);
    assert.deepEqual(ids(selectPools(pools, THICK, LIMITS)), ["a", "b", "c"]);
  });
  test("ofOneBlockSize() follows the best pool where that gives enough nodes, else the most", () => {
    const a = pool("a", { blockSize: 4096 });
    const other = pool("a2", { blockSize: 4096, node: a.node });
    const [b, c] = [pool("b"), pool("c")];
    assert.deepEqual(ids(ofOneBlockSize([a, b, c], 1)), ["a"]);
    assert.deepEqual(ids(ofOneBlockSize([a, other, b, c], 2)), ["b", "c"]);
    assert.deepEqual(ids(ofOneBlockSize([a, b, c], 3)), ["b", "c"]);
    const unknown = pool("u", { blockSize: null });
    assert.deepEqual(ids(ofOneBlockSize([a, unknown, b], 2)), ["a", "u"]);
    assert.deepEqual(ids(ofOneBlockSize([b, unknown], 5)), ["b", "u"]);
  });
  test("blockSizeOfPool() believes the engine, else the disk's URI", () => {
    const disks = ["aio:///dev/sdb?blk_size=4096&uuid=x"];
    assert.equal(blockSizeOfPool({ blockSize: 512, disks }), 512);
    assert.equal(blockSizeOfPool({ disks }), 4096);
    assert.equal(blockSizeOfPool(undefined, ["uring:///dev/sdb?blk_size=512"]), 512);
    assert.equal(blockSizeOfPool({ disks: ["/dev/sdb"] }), null);
    assert.equal(blockSizeOfPool(undefined), null);
  });
  test("bdevBlockSizes() finds a pool's disk among the bdevs of an engine that tells no more", () => {
    const bdev = (name: string, uri: string, blkSize: number) => ({ name, uri, blkSize });
    const sizes = bdevBlockSizes(
      [
        { name: "p1", disks: ["aio:///dev/sdb?blk_size=4096"] },
        { name: "p2", disks: ["/dev/sdc"] },
        { name: "p3", disks: [] },
        { name: "p4", disks: ["/dev/sdd"] },
      ],
      [bdev("/dev/sdb", "", 4096), bdev("x", "aio:///dev/sdc?uuid=1", 512), bdev("", "", 512)],
    );
    assert.deepEqual(
      [...sizes],
      [
        ["p1", { blockSize: 4096 }],
        ["p2", { blockSize: 512 }],
      ],
    );
  });
});

describe("unfitFor()", () => {
  test("names what can never be attached, and nothing that is healthy, attached or away", () => {
    const item = (uuid: string, change: Partial<ReplicaItem> = {}): ReplicaItem => ({
      ...{ uuid, node: uuid, pool: uuid, size: GIB, blockSize: 512, online: true, poolFree: GIB },
      ...{ allocated: null, child: null, groupOnPool: 0 },
      ...change,
    });
    const child = { status: "Online", reason: "None", rebuildProgress: null } as const;
    const first = item("first", { child });
    const blocks = item("blocks", { blockSize: 4096 });
    const small = item("small", { size: GIB - 1 });
    const info = (uuid: string) => ({ clean_shutdown: false, children: [{ uuid, healthy: true }] });
    const unfit = (items: ReplicaItem[], of: NexusInfo | null = null, sizeMin = GIB) =>
      unfitFor(items, { info: of, sizeMin }).map(({ uuid }) => uuid);
    assert.deepEqual(unfit([first, small], null, GIB - 1), [], "it has room for the volume");
    const fine = [item("ok"), item("unknown", { blockSize: null })];
    assert.deepEqual(unfit([first, blocks, small, ...fine]), ["blocks", "small"]);
    assert.deepEqual(unfit([first, blocks], info("blocks")), []);
    assert.deepEqual(unfit([first, { ...blocks, online: false }]), []);
    assert.deepEqual(unfit([blocks, small]), [], "without a child nobody knows what fits");
  });
});

describe("selectNodes()", () => {
  const node = (id: string, change: Partial<NodeItem> = {}): NodeItem => ({
    id,
    online: true,
    cordoned: false,
    hasNexusOfVolume: false,
    nexusCount: 0,
    groupNexusCount: 0,
    hasReplica: false,
    ...change,
  });
  const none = { preferred: null, leaving: null };
  const ids = (items: readonly NodeItem[]) => items.map((item) => item.id);

  test("leaves out offline, cordoned, left and used nodes", () => {
    const nodes = [
      node("a", { online: false }),
      node("b", { cordoned: true }),
      node("c"),
      node("d", { hasNexusOfVolume: true }),
      node("e"),
    ];
    assert.deepEqual(ids(selectNodes(nodes, { preferred: null, leaving: "c" })), ["e"]);
  });

  test("orders by group, preference, load and locality", () => {
    const nodes = [
      node("loaded", { nexusCount: 3 }),
      node("group", { groupNexusCount: 1 }),
      node("local", { hasReplica: true }),
      node("plain"),
      node("wanted", { nexusCount: 9 }),
    ];
    const found = ids(selectNodes(nodes, { ...none, preferred: "wanted" }));
    assert.deepEqual(found, ["wanted", "local", "plain", "loaded", "group"]);
  });
});

describe("replicas of a nexus", () => {
  const replica = (uuid: string, change: Partial<ReplicaItem> = {}): ReplicaItem => ({
    uuid,
    node: `node-of-${uuid}`,
    pool: `pool-of-${uuid}`,
    size: GIB,
    blockSize: 512,
    online: true,
    poolFree: GIB,
    allocated: null,
    child: null,
    groupOnPool: 0,
    ...change,
  });
  const child = (
    status: "Online" | "Degraded" | "Faulted",
    rebuildProgress: number | null = null,
    reason: ChildReason = "None",
  ) => ({
    status,
    reason,
    rebuildProgress,
  });
  const base = { node: "node-of-b", size: GIB, replicaCount: 3, info: null, suspectNodes: [] };
  const ids = (items: readonly ReplicaItem[]) => items.map((item) => item.uuid);
  const info = (clean_shutdown: boolean, ...healthy: string[]) => ({
    children: ["a", "b", "c"].map((uuid) => ({ uuid, healthy: healthy.includes(uuid) })),
    clean_shutdown,
  });
  const all = [replica("a"), replica("b"), replica("c")];

  test("selectForNexus() takes all without NexusInfo, local first", () => {
    assert.deepEqual(ids(selectForNexus(all, base)), ["b", "a", "c"]);
  });

  test("selectForNexus() takes only healthy ones", () => {
    assert.deepEqual(ids(selectForNexus(all, { ...base, info: info(true, "a", "c") })), ["a", "c"]);
    assert.deepEqual(selectForNexus(all, { ...base, info: info(true) }), []);
  });

  test("selectForNexus() takes exactly one after an unclean end", () => {
    assert.deepEqual(ids(selectForNexus(all, { ...base, info: info(false, "a", "b", "c") })), [
      "b",
    ]);
  });

  test("selectForNexus() leaves out small, offline, suspect and surplus ones", () => {
    const items = [
      replica("a", { size: GIB - 1 }),
      replica("b", { online: false }),
      replica("c"),
      replica("d"),
      replica("e", { node: "node-of-d" }),
    ];
    const suspectNodes = ["node-of-c"];
    assert.deepEqual(ids(selectForNexus(items, { ...base, suspectNodes })), ["d"]);
  });

  test("sortForAttach() goes local, healthy, by free space", () => {
    const items = [
      replica("a", { poolFree: 2 }),
      replica("b"),
      replica("c", { poolFree: 1 }),
      replica("d", { poolFree: 9 }),
      replica("e", { child: child("Online") }),
    ];
    const found = sortForAttach(items, { node: "node-of-b", info: info(true, "c") });
    assert.deepEqual(ids(found), ["b", "c", "d", "a"]);
  });

  test("sortForRemoval() gives up the worst first and the local one last", () => {
    const items = [
      replica("local", { node: "n", child: child("Online") }),
      replica("remote", { child: child("Online") }),
      replica("half", { child: child("Degraded", 50) }),
      replica("fresh", { child: child("Degraded", 10) }),
      replica("broken", { child: child("Faulted") }),
      replica("full", { child: child("Degraded", null, "NoSpace") }),
      replica("unused"),
    ];
    const found = sortForRemoval(items, { node: "n", info: null });
    assert.deepEqual(ids(found), ["unused", "broken", "full", "fresh", "half", "remote", "local"]);
  });

  test("removalCandidate() never costs a healthy copy that is needed", () => {
    const two = [
      replica("a", { child: child("Online") }),
      replica("b", { child: child("Online") }),
    ];
    assert.equal(removalCandidate(two, { node: null, info: null, wanted: 2 }), null);
    assert.equal(removalCandidate(two, { node: null, info: null, wanted: 1 })?.uuid, "a");
    const hurt = [
      replica("a", { child: child("Online") }),
      replica("b", { child: child("Faulted") }),
    ];
    assert.equal(removalCandidate(hurt, { node: null, info: null, wanted: 2 })?.uuid, "b");
  });
});
