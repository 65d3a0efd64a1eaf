/**
 * The installation end to end on kind, with the kernel's own NVMe initiator: for a machine with Docker, kind, kubectl,
 * openssh-server and the nvme-tcp module, such as a CI runner. Steps that need no initiator are shared with test/kube.
 * Usage: hack/e2e/main.ts
 *
 * Node preparation is done to this machine, whose kernel is that of kind's nodes, and taken back at the end.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { commandLine } from "#common/command_line.ts";
import { checkCameUp, checkTables, PODS } from "../../test/support/kube_install/came_up.ts";
import { Installation } from "../../test/support/kube_install/installation.ts";
import { removeQuickstart } from "../../test/support/kube_install/quickstart.ts";
import { tagOnEveryNode, upgrade } from "../../test/support/kube_install/upgrade.ts";
import { buildImages } from "../images/main.ts";
import { FioPod } from "./fio_pod.ts";
import { KindCluster } from "./kind_cluster.ts";
import { OwnSshd, prepare, undo } from "./node_prep.ts";

commandLine({
  usage:
    "Usage: hack/e2e/main.ts     takes no options; changes this machine and takes that back: see hack/e2e/README.md",
});

const MINUTES_MAX = 60;
const POOL_MIB = 4096;
const FIO_SECONDS = 60;
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

test("the installation on kind", { timeout: MINUTES_MAX * 60_000 }, async (t) => {
  const sshd = await OwnSshd.start();
  let stop = async (): Promise<void> => {};
  t.after(async () => {
    try {
      await stop();
      await undo(sshd); // no volume is connected any more
    } finally {
      await sshd.stop();
    }
  });
  await t.test("node-prep makes this machine ready", (inner) =>
    prepare(sshd, (line) => inner.diagnostic(line)),
  );
  const images = await buildImages({ log: console.error });
  const cluster = await KindCluster.start();
  stop = () => cluster.stop();
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
    const references = images.map(({ reference }) => reference);
    await tagOnEveryNode(cluster, references, NEXT_TAG);
    const from = { profile: PROFILE, values: VALUES };
    const log = (line: string) => inner.diagnostic(line);
    await pod.runDuring(inner, () => upgrade(cluster, from, { tag: NEXT_TAG, volume: pod, log }));
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
