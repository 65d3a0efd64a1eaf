#!/usr/bin/env tsx
/**
 * The installation end to end on kind, with the kernel's own NVMe initiator: for a machine with Docker, kind, kubectl
 * and nvme-tcp loaded, such as a CI runner. Steps that need no initiator are shared with test/kube.
 * Usage: hack/e2e/main.ts
 *
 * Not here: node preparation by ssh (kind's nodes run no sshd; test/integration/node_prep_test.ts has one).
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { checkCameUp, checkTables, PODS } from "../../test/support/kube_install/came_up.ts";
import { Installation } from "../../test/support/kube_install/installation.ts";
import { removeQuickstart } from "../../test/support/kube_install/quickstart.ts";
import { until } from "../cluster/local.ts";
import { buildImages } from "../images/main.ts";
import { FioPod } from "./fio_pod.ts";
import { KindCluster } from "./kind_cluster.ts";

const MINUTES_MAX = 60;
const POOL_MIB = 4096;
const FIO_SECONDS = 60;
/** The same programs under another tag: what an upgrade does to a cluster does not depend on what is new in it. */
const NEXT_TAG = "next";
const VALUES = ["etcd.replicaCount=3"];
const PROFILE = "kind";

const archivesOf = (images: readonly { readonly archive: string }[]): string[] => [
  ...new Set(images.map(({ archive }) => archive)),
];

async function loseNode(t: TestContext, installation: Installation, fio: FioPod): Promise<void> {
  const target = await fio.target();
  const node = installation.cluster.nodes.find(({ name }) => name !== target);
  assert.ok(node, "a node that holds a replica, and neither the target nor the pod");
  await fio.runDuring(t, async () => {
    await node.stop();
    await installation.untilVolume(fio.uuid, "Degraded", 180);
    await node.start();
    await installation.untilVolume(fio.uuid, "Online", 300);
  });
  await installation.untilReady(PODS, 300);
}

/** Agents first; engines one by one, each after the volume is whole again, as the documentation has it. */
async function upgrade(cluster: KindCluster, from: Installation, fio: FioPod): Promise<void> {
  const values = [...VALUES, `image.tag=${NEXT_TAG}`];
  const next = await Installation.synth(cluster, { profile: PROFILE, values });
  try {
    await next.apply();
    for (const kind of ["deployment", "daemonset"]) {
      const names = (await next.kubectl(["get", kind, "-n", "mayastor", "-o", "name"])).split("\n");
      for (const name of names.filter((each) => each !== "" && !each.endsWith("-io-engine"))) {
        await next.kubectl(["rollout", "status", name, "-n", "mayastor", "--timeout=300s"]);
      }
    }
    for (const { metadata } of await from.podsOf("io-engine")) {
      await next.kubectl(["delete", "pod", "-n", "mayastor", metadata.name]);
      await until(
        `${metadata.name} gone`,
        async () => (await next.pods()).every(({ metadata: { uid } }) => uid !== metadata.uid),
        { seconds: 120, everyMs: 1000 },
      );
      await next.untilReady(PODS, 300);
      await next.untilVolume(fio.uuid, "Online", 300);
    }
    const template = "jsonpath={.items[*].spec.containers[*].image}";
    const images = await next.kubectl(["get", "pods", "-n", "mayastor", "-o", template]);
    const own = images.split(/\s+/).filter((image) => image.includes("/mayastor-"));
    assert.ok(own.length > 0);
    assert.deepEqual(
      own.filter((image) => !image.endsWith(`:${NEXT_TAG}`)),
      [],
    );
  } finally {
    next.close();
  }
}

test("the installation on kind", { timeout: MINUTES_MAX * 60_000 }, async (t) => {
  const images = await buildImages({ log: console.error });
  const cluster = await KindCluster.start();
  t.after(() => cluster.stop());
  await cluster.load(archivesOf(images));
  const installation = await Installation.synth(cluster, { profile: PROFILE, values: VALUES });
  t.after(() => installation.close());

  /** Each step stands on the one before. */
  const step = async (name: string, work: (inner: TestContext) => Promise<void>): Promise<void> => {
    let isDone = false;
    await t.test(name, async (inner) => {
      await work(inner);
      isDone = true;
    });
    if (!isDone) throw new Error(`The rest stands on this step: ${name}`);
  };
  await step("comes up from nothing in three minutes", (inner) => checkCameUp(inner, installation));
  await step("shows DiskPools, nodes and pools as documented", async () => {
    await installation.createPools(POOL_MIB);
    await checkTables(installation);
  });
  const pods: FioPod[] = [];
  await step("the documented fio pod runs on a claimed volume", async (inner) => {
    const fio = await FioPod.create(installation);
    pods.push(fio);
    await fio.run(inner, FIO_SECONDS);
  });
  const [pod] = pods;
  assert.ok(pod);
  await step("a node is lost and comes back while fio verifies", (inner) =>
    loseNode(inner, installation, pod),
  );
  await step("an upgrade while fio verifies", async (inner) => {
    await cluster.load(archivesOf(await buildImages({ tag: NEXT_TAG, log: console.error })));
    await pod.runDuring(inner, () => upgrade(cluster, installation, pod));
  });
  await step("kubectl delete removes it, DiskPools first", async () => {
    await removeQuickstart(installation);
    const dsp = ["delete", "dsp", "--all", "-n", "mayastor", "--timeout=120s"];
    await installation.kubectl(dsp);
    assert.deepEqual(await installation.restPools(), []);
    await installation.kubectl(["delete", "-f", installation.dist, "--timeout=300s"]);
    await installation.untilGone("the namespace", ["get", "namespace", "mayastor"]);
  });
});
