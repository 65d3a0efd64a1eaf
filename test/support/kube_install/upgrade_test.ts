/** The upgrade step against a cluster of plain data: what it may take away when, and what it refuses to call done. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Volume } from "#common/openapi/model.ts";
import type { ClusterUnderTest } from "./cluster_under_test.ts";
import type { Pod } from "./installation.ts";
import {
  engineOrder,
  otherTags,
  tagOnEveryNode,
  type Upgraded,
  upgradeTo,
  withTag,
} from "./upgrade.ts";

const UUID = "ec4e66fb-3b33-4439-b504-d49aba53da26";

const pod = (name: string, nodeName: string, uid = `${name}-1`): Pod => ({
  metadata: { name, uid, labels: { app: name.startsWith("io-engine") ? "io-engine" : name } },
  spec: { nodeName },
  status: { phase: "Running" },
});

interface Faults {
  /** apply() restarts this pod, as a rolling DaemonSet would. */
  readonly appliedToo?: string;
  /** Goes with the first engine. */
  readonly goesToo?: string;
  /** Keeps its old image. */
  readonly staysOld?: string;
}

/** Three engines and an agent; `events` has what was done to them, in order. */
class FakeCluster implements Upgraded {
  readonly events: string[] = [];
  readonly #faults: Faults;
  #pods = [
    pod("io-engine-b", "node-2"),
    pod("io-engine-a", "node-1"),
    pod("io-engine-c", "node-3"),
    pod("agent-core", "node-1"),
  ];
  readonly #tags = new Map<string, string>();
  #isWhole = true;

  constructor(faults: Faults = {}) {
    this.#faults = faults;
  }

  #replace(name: string): void {
    this.#pods = this.#pods.map((old) =>
      old.metadata.name === name ? pod(name, old.spec.nodeName ?? "", `${old.metadata.uid}+`) : old,
    );
    if (name !== this.#faults.staysOld) this.#tags.set(name, "next");
  }

  async apply(): Promise<void> {
    this.events.push("apply");
    this.#replace("agent-core");
    if (this.#faults.appliedToo !== undefined) this.#replace(this.#faults.appliedToo);
  }

  async kubectl(args: readonly string[]): Promise<string> {
    const [verb = "", what = "", third = "", , name = ""] = args;
    if (verb === "delete") {
      this.events.push(`delete ${name}${this.#isWhole ? "" : " from a degraded volume"}`);
      this.#isWhole = false;
      this.#replace(name);
      if (this.#faults.goesToo !== undefined) this.#replace(this.#faults.goesToo);
    } else if (verb === "rollout") {
      this.events.push(`rollout ${third}`);
    } else if (what === "pods") {
      const images = this.#pods.map(({ metadata: { name: each } }) => [
        ...[`localhost/mayastor/mayastor-${each}:${this.#tags.get(each) ?? "v0.1.0"}`],
        "busybox:1.36.1",
      ]);
      return images.flat().join(" ");
    } else {
      return what === "deployment"
        ? "deployment.apps/mayastor-agent-core\n"
        : "daemonset.apps/mayastor-csi-node\ndaemonset.apps/mayastor-io-engine\n";
    }
    return "";
  }

  async pods(): Promise<readonly Pod[]> {
    return this.#pods;
  }

  async podsOf(component: string): Promise<readonly Pod[]> {
    return this.#pods.filter(({ metadata }) => metadata.labels?.["app"] === component);
  }

  async untilReady(): Promise<Readonly<Record<string, number>>> {
    this.events.push("ready");
    return {};
  }

  async untilVolume(_uuid: string, status: string): Promise<Volume> {
    this.#isWhole = true;
    this.events.push(status);
    return await this.volume();
  }

  async volume(): Promise<Volume> {
    return { state: { target: { node: "node-1" } } } as Volume; // all that is read of it
  }

  async untilWrites(): Promise<void> {
    this.events.push(this.#isWhole ? "writes" : "writes to a degraded volume");
  }
}

const run = (cluster: FakeCluster) =>
  upgradeTo(cluster, {
    tag: "next",
    volume: { uuid: UUID, untilWrites: () => cluster.untilWrites() },
    log: () => {},
  });

test("upgradeTo() replaces agents, then one engine at a time from a whole volume, its target last", async () => {
  const cluster = new FakeCluster();
  await run(cluster);
  const engine = (name: string) => ["Online", `delete ${name}`, "ready", "Online", "writes"];
  assert.deepEqual(cluster.events, [
    ...["apply", "rollout deployment.apps/mayastor-agent-core"],
    ...["rollout daemonset.apps/mayastor-csi-node", "ready", "writes"],
    ...engine("io-engine-b"),
    ...engine("io-engine-c"),
    ...engine("io-engine-a"),
  ]);
});

test("upgradeTo() refuses engines that apply restarts, a neighbour that goes too, and an old image", async () => {
  await assert.rejects(
    run(new FakeCluster({ appliedToo: "io-engine-c" })),
    /leave every io-engine as it was/,
  );
  await assert.rejects(
    run(new FakeCluster({ goesToo: "io-engine-c" })),
    /io-engine-c stays when io-engine-b is replaced/,
  );
  await assert.rejects(
    run(new FakeCluster({ staysOld: "io-engine-b" })),
    /every pod of ours runs next/,
  );
});

test("engineOrder() keeps an order without a target", () => {
  const engines = [pod("io-engine-b", "node-2"), pod("io-engine-a", "node-1")];
  assert.deepEqual(engineOrder(engines, undefined), engines);
  assert.deepEqual(
    engineOrder(engines, "node-2").map(({ spec }) => spec.nodeName),
    ["node-1", "node-2"],
  );
});

test("otherTags() looks at this repository's images alone, and wants to see one", () => {
  const images = ["busybox:1", "r:5000/o/mayastor-io-engine:next", "mayastor-api-rest:v1"];
  assert.deepEqual(otherTags(images, "next"), ["mayastor-api-rest:v1"]);
  assert.throws(
    () => otherTags(["busybox:1"], "next"),
    /images of this repository among busybox:1/,
  );
});

test("tagOnEveryNode() gives each node each image under the new tag", async () => {
  const ran: string[] = [];
  const node = (name: string) => ({
    name,
    address: "10.0.0.1",
    exec: async (argv: readonly string[]) => {
      ran.push(`${name}: ${argv.join(" ")}`);
      return "";
    },
    stop: async () => {},
    start: async () => {},
  });
  const nodes = [node("node-1"), node("node-2")];
  await tagOnEveryNode(
    { nodes } as unknown as ClusterUnderTest,
    ["docker.io/o/mayastor-x:v1"],
    "next",
  );
  assert.deepEqual(
    ran,
    ["node-1", "node-2"].map(
      (name) =>
        `${name}: ctr --namespace=k8s.io images tag --force docker.io/o/mayastor-x:v1 docker.io/o/mayastor-x:next`,
    ),
  );
  assert.equal(withTag("r:5000/o/x:v1", "next"), "r:5000/o/x:next");
  assert.throws(() => withTag("r:5000/o/x", "next"), /has a tag/);
});
