import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultValues, makeInstall, parseProfile, parseValuesFile } from "./config.ts";
import { DIFFERENCES } from "./differences.ts";
import { isTree, merge, type Tree } from "./merge.ts";
import { notices } from "./notices.ts";
import { PROFILE_NAMES } from "./profiles.ts";
import { synthesize } from "./snapshots.ts";
import { publishedValues } from "./testing/published.ts";
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
    try {
      assert.deepEqual(own, name === "io_engine.cpuCount" ? Number(value) : value);
      return [];
    } catch {
      return [name];
    }
  });
}

test("defaultValues() has every published value, with its default or a reason for another", () => {
  const reasons = Object.keys(DIFFERENCES);
  const found = differing(publishedValues(), defaultValues());
  const unexplained = found.filter(
    (name) => !reasons.some((reason) => name === reason || name.startsWith(`${reason}.`)),
  );
  assert.deepEqual(unexplained, []);
  const idle = reasons.filter(
    (reason) => !found.some((name) => name === reason || name.startsWith(`${reason}.`)),
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
  refuses({ etcd: { replicaCount: "three" } }, /^Cannot use etcd.replicaCount: /);
  refuses({ etcd: { replicaCount: 2.5 } }, /^Cannot use etcd.replicaCount: /);
  refuses({ etcd: { replicaCount: "" } }, /^Cannot use etcd.replicaCount: /);
  refuses({ base: { metrics: { enabled: "yes" } } }, /^Cannot use base.metrics.enabled: /);
  refuses({ image: { tag: ["v1"] } }, /^Cannot use image.tag: /);
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

test("makeInstall() takes numbers, words and text for each other where they mean the same", () => {
  const { values } = make({
    etcd: { replicaCount: "5", autoCompactionRetention: "8h", podLabels: { tier: 1, on: true } },
    io_engine: {
      cpuCount: " 3",
      coreList: ["3", 4],
      resources: { limits: { cpu: 2 }, requests: { cpu: 2 } },
    },
    base: { metrics: { enabled: "false" } },
    apis: { rest: { service: { type: "NodePort", nodePorts: { http: "30100" } } } },
    csi: { node: { nvme: { io_timeout: 60 } } },
    image: { tag: 2.2 },
  });
  assert.equal(values.etcd.replicaCount, 5);
  assert.equal(values.etcd.autoCompactionRetention, "8h");
  assert.deepEqual(values.etcd.podLabels, {
    app: "etcd",
    "openebs.io/logging": "true",
    tier: "1",
    on: "true",
  });
  assert.equal(values.io_engine.cpuCount, 3);
  assert.deepEqual(values.io_engine.coreList, [3, 4]);
  assert.equal(values.io_engine.resources.limits.cpu, "2");
  assert.equal(values.base.metrics.enabled, false);
  assert.equal(values.apis.rest.service.nodePorts.http, 30100);
  assert.equal(values.csi.node.nvme.io_timeout, "60");
  assert.equal(values.image.tag, "2.2");
});

/** Objects with what published defaults change on purpose taken out: see DIFFERENCES. */
function comparable(...values: Tree[]) {
  const same = { image: { pullPolicy: "IfNotPresent" } };
  const published = publishedValues();
  const kept = isTree(published["io_engine"]) ? published["io_engine"]["resources"] : undefined;
  const install = make({ io_engine: { resources: kept } }, ...values, same);
  return new Map(
    [...synthesize(install)].map(([name, objects]) => [
      name,
      JSON.parse(JSON.stringify(objects), (key, value) =>
        ["initContainers", "promtail.yaml", "checksum/config"].includes(key) ? null : value,
      ),
    ]),
  );
}

test("makeInstall() loads the published values as they are, and they give the same objects", () => {
  const published = publishedValues();
  const install = make(published);
  assert.deepEqual(comparable(published), comparable());
  const said = notices(install);
  for (const part of [
    /^image.registry/,
    /^agents.core.resources, apis.rest.resources, operators/,
    /^agents.ha.enabled=true/,
    /^obs.callhome.enabled=true/,
  ]) {
    assert.equal(said.filter((line) => part.test(line)).length, 1, `${part}`);
  }
  const text = JSON.stringify([...synthesize(install).values()]);
  assert.doesNotMatch(text, /openebs\/mayastor-/);
  assert.match(text, /localhost\/mayastor\/mayastor-io-engine:v1\.2\.3/);
});

test("manifests never name an image of the original, whatever its registry is called", () => {
  for (const image of [
    { registry: "docker.io", repo: "openebs", tag: "v2.2.0" },
    { registry: "", repo: "openebs" },
    { registry: "index.docker.io", repo: "OpenEBS/", repoTags: { dataPlane: "v2.2.0" } },
  ]) {
    const text = JSON.stringify([...synthesize(make({ image })).values()]);
    assert.match(text, /localhost\/mayastor\/mayastor-io-engine:v1\.2\.3/);
    assert.doesNotMatch(text, /v2\.2\.0|openebs\/+mayastor-/i);
  }
  const own = { image: { registry: "registry.example", repo: "Team/Storage", tag: "v7" } };
  const text = JSON.stringify([...synthesize(make(own)).values()]);
  assert.match(text, /"registry\.example\/team\/storage\/mayastor-io-engine:v7"/);
  assert.deepEqual(
    notices(make(own, { networkPolicies: { nodeCidrs: ["10.0.0.0/8"] } })),
    [],
    "nothing to say",
  );
});

test("notices() say which ports stay open, and to whom", () => {
  const about = (tree: Tree) => notices(make(tree)).filter((line) => /^networkPolicies/.test(line));
  assert.match(
    about({})[0] ?? "",
    /etcd \(2379\), agent-core \(50051\) and api-rest \(8080, 8081\) stay open/,
  );
  assert.match(about({ networkPolicies: { enabled: false } })[0] ?? "", /any pod may connect/);
  assert.deepEqual(about({ networkPolicies: { nodeCidrs: ["10.1.0.0/16"] } }), []);
});

test("makeInstall() keeps amounts that somebody chose", () => {
  const resources = {
    limits: { cpu: "1", memory: "64Mi" },
    requests: { cpu: "50m", memory: "32Mi" },
  };
  const install = make({ apis: { rest: { resources } } });
  assert.deepEqual(install.values.apis.rest.resources, resources);
  assert.deepEqual(install.replacedResources, []);
});
