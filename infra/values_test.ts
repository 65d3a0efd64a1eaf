import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultValues, makeInstall, parseProfile, parseSet, parseValuesFile } from "./config.ts";
import { DIFFERENCES } from "./differences.ts";
import { isTree, merge, type Tree } from "./merge.ts";
import { PROFILE_NAMES } from "./profiles.ts";
import { DOCUMENTED_VALUES, ONE_JOB, SOME_LIST } from "./testing/documented_values.ts";
import { valueRows } from "./value_table.ts";

const make = (...values: Tree[]) => makeInstall({ values, version: "1.2.3" });
const refuses = (tree: Tree, message: RegExp) =>
  assert.throws(() => make(tree), { name: "SvcError", kind: "invalid-argument", message });

/** Names of documented values that are missing or have another default here. */
function differing(documented: Tree, ours: unknown, path = ""): string[] {
  return Object.entries(documented).flatMap(([key, value]) => {
    const name = path === "" ? key : `${path}.${key}`;
    const own = isTree(ours) ? ours[key] : undefined;
    if (own === undefined) return [`${name} (missing)`];
    if (isTree(value) && Object.keys(value).length > 0) return differing(value, own, name);
    if (value === SOME_LIST) return Array.isArray(own) ? [] : [`${name} (no list)`];
    if (value === ONE_JOB) return [name];
    try {
      assert.deepEqual(own, value);
      return [];
    } catch {
      return [name];
    }
  });
}

test("defaultValues() has every published value, with its default or a reason for another", () => {
  const reasons = Object.keys(DIFFERENCES);
  const found = differing(DOCUMENTED_VALUES, defaultValues());
  const unexplained = found.filter(
    (name) => !reasons.some((reason) => name === reason || name.startsWith(`${reason}.`)),
  );
  assert.deepEqual(unexplained, []);
  const idle = reasons.filter(
    (reason) =>
      reason !== "base.initContainers.containers" &&
      !found.some((name) => name === reason || name.startsWith(`${reason}.`)),
  );
  assert.deepEqual(idle, [], "a reason for a difference that is not there");
});

test("valueRows() describes every value", () => {
  const rows = valueRows();
  assert.ok(rows.length > 150);
  assert.deepEqual(
    rows.filter(({ description }) => description === "").map(({ name }) => name),
    [],
  );
});

test("makeInstall() takes every profile", () => {
  for (const profile of PROFILE_NAMES) {
    assert.equal(makeInstall({ profile, version: "1.2.3" }).release, "mayastor");
  }
  assert.throws(() => parseProfile("big"), /default, minimal, single-node, talos, kind/);
});

test("makeInstall() merges maps by key, replaces lists, and drops keys that are null", () => {
  const { values } = make({
    io_engine: { nodeSelector: { "kubernetes.io/arch": null, zone: "a" }, coreList: [4, 5] },
  });
  assert.deepEqual(values.io_engine.nodeSelector, { "openebs.io/engine": "mayastor", zone: "a" });
  assert.deepEqual(values.io_engine.coreList, [4, 5]);
  assert.equal(values.io_engine.cpuCount, 2);
});

test("makeInstall() gives a value its default back when it is set to null", () => {
  assert.equal(make({ etcd: { replicaCount: null } }).values.etcd.replicaCount, 3);
});

test("makeInstall() leaves the defaults alone", () => {
  make({ nodeSelector: { a: "b" } });
  assert.deepEqual(make().values.nodeSelector, { "kubernetes.io/arch": "amd64" });
});

test("makeInstall() names an unknown value", () => {
  refuses({ etcd: { replicas: 3 } }, /^Cannot use etcd.replicas: there is no such value$/);
  refuses({ ioEngine: {} }, /^Cannot use ioEngine: there is no such value$/);
});

test("makeInstall() names a value of the wrong type or form", () => {
  refuses({ etcd: { replicaCount: "3" } }, /^Cannot use etcd.replicaCount: /);
  refuses({ io_engine: { coreList: [1, 1] } }, /^Cannot use io_engine.coreList: /);
  refuses({ io_engine: { coreList: [-1] } }, /^Cannot use io_engine.coreList.0: /);
  refuses(
    { apis: { rest: { resources: { limits: { memory: "1 GB" } } } } },
    /^Cannot use apis.rest.resources.limits.memory: /,
  );
  refuses(
    { agents: { core: { capacity: { thin: { poolCommitment: "2.5" } } } } },
    /^Cannot use agents.core.capacity.thin.poolCommitment: /,
  );
  refuses(
    { apis: { rest: { service: { type: "Nodeport" } } } },
    /apis.rest.service.type: must be one of ClusterIP, NodePort/,
  );
});

test("makeInstall() refuses what this release cannot do", () => {
  refuses({ agents: { ha: { enabled: true } } }, /ha agents are not in this release/);
  refuses({ obs: { callhome: { enabled: true } } }, /nothing calls home/);
  refuses({ base: { jaeger: { enabled: true } } }, /no traces/);
  refuses({ etcd: { client: { secureTransport: true } } }, /without TLS/);
  refuses({ etcd: { peer: { secureTransport: true } } }, /without TLS/);
  refuses({ etcd: { auth: { rbac: { create: true } } } }, /no passwords/);
  refuses({ etcd: { removeMemberOnContainerTermination: true } }, /cost a member/);
  refuses({ etcd: { service: { port: 2380 } } }, /only 2379/);
});

test("makeInstall() refuses values that contradict each other", () => {
  refuses({ etcd: { replicaCount: 2 } }, /1, 3 or 5 members/);
  refuses({ etcd: { replicaCount: 7 } }, /1, 3 or 5 members/);
  refuses({ etcd: { podLabels: { app: "other" } } }, /app must be etcd/);
  const unkept = { persistence: { enabled: false } };
  refuses(
    { etcd: unkept },
    /^Cannot use etcd.persistence.enabled=false with .*=3: each pod that is/,
  );
  assert.equal(make({ etcd: { ...unkept, replicaCount: 1 } }).values.etcd.replicaCount, 1);
  refuses({ io_engine: { resources: { limits: { hugepages2Mi: "2Gi" } } } }, /the same in limits/);
  refuses(
    { "loki-stack": { loki: { securityContext: { runAsNonRoot: true } } } },
    /initContainers run as root/,
  );
  refuses({ "loki-stack": { promtail: { rbac: { create: false } } } }, /must find the pods/);
  const pool = { name: "p", node: "n", disks: ["/dev/sda"] };
  refuses({ components: { diskpoolOperator: false }, diskPools: [pool] }, /nothing would act/);
  refuses(
    { components: { diskpoolOperator: true }, diskPools: [pool, pool] },
    /^Cannot use diskPools: "p" is there twice/,
  );
  refuses(
    { components: { csi: false }, storageClasses: [{ name: "a" }] },
    /nothing would provision/,
  );
  refuses(
    {
      components: { csi: true },
      storageClass: { default: true },
      storageClasses: [{ name: "a", default: true }],
    },
    /only one class/,
  );
});

test("makeInstall() refuses names that cannot be part of object names", () => {
  assert.throws(() => makeInstall({ release: "May", version: "1" }), /release "May"/);
  assert.throws(() => makeInstall({ namespace: "a.b", version: "1" }), /namespace "a.b"/);
});

test("parseSet() reads dotted names, typed values and escapes", () => {
  assert.deepEqual(parseSet("etcd.replicaCount=1,image.tag='2.2',a.b=x\\,y"), {
    etcd: { replicaCount: 1 },
    image: { tag: "2.2" },
    a: { b: "x,y" },
  });
  assert.deepEqual(parseSet("io_engine.nodeSelector.kubernetes\\.io/arch=null"), {
    io_engine: { nodeSelector: { "kubernetes.io/arch": null } },
  });
  assert.deepEqual(parseSet("io_engine.coreList=[1\\,2]"), { io_engine: { coreList: [1, 2] } });
  assert.deepEqual(parseSet(""), {});
  assert.throws(() => parseSet("etcd"), /write name=value/);
});

test("parseSet() keeps what two items say about one map", () => {
  assert.deepEqual(parseSet("a.b=1,a.c=2"), { a: { b: 1, c: 2 } });
});

test("parseValuesFile() wants a map", () => {
  assert.deepEqual(parseValuesFile("etcd:\n  replicaCount: 1\n", "v.yaml"), {
    etcd: { replicaCount: 1 },
  });
  assert.deepEqual(parseValuesFile("", "v.yaml"), {});
  assert.throws(() => parseValuesFile("- 1", "v.yaml"), /Cannot read v.yaml: a map/);
  assert.throws(() => parseValuesFile("a: [", "v.yaml"), /Cannot read v.yaml: /);
});

test("merge() changes neither argument", () => {
  const under = { a: { b: 1 } };
  const over = { a: { c: 2, b: null } };
  assert.deepEqual(merge(under, over), { a: { c: 2 } });
  assert.deepEqual(under, { a: { b: 1 } });
  assert.deepEqual(over, { a: { c: 2, b: null } });
});
