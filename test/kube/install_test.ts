/**
 * The installation on three real nodes, from nothing to nothing: images of this repository, manifests by `cdk8s synth`,
 * `kubectl apply`; the documentation's quickstart; nodes lost and back; every pod deleted once; an upgrade;
 * `kubectl delete`.
 * Before it the cluster itself is checked, and after it that nothing of the cluster is left on the machine.
 *
 * Why one test: a cluster takes a minute to come up, and each part is the ground of the next.
 * The steps are in test/support/kube_install. What cannot be here: the sidecars of the CSI project (stand-ins speak
 * their protocols) and the kernel's NVMe initiator (test/e2e/csi_guest_test.ts has one in a guest).
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { KubeCluster, whyNoCluster } from "../../hack/cluster/kube/cluster.ts";
import { buildImages } from "../../hack/images/main.ts";
import { buildClusterImages } from "../../hack/images/thirdparty.ts";
import { checkStopped, clusterChecks, kernelSettings } from "../support/kube/cluster_checks.ts";
import { checkCameUp, checkTables } from "../support/kube_install/came_up.ts";
import { DataVolume } from "../support/kube_install/data_volume.ts";
import { Installation } from "../support/kube_install/installation.ts";
import { Leftovers } from "../support/kube_install/leftovers.ts";
import { loseAgentsNode, loseTargetNode } from "../support/kube_install/node_loss.ts";
import { deleteEveryPod } from "../support/kube_install/pod_loss.ts";
import { quickstart, removeQuickstart } from "../support/kube_install/quickstart.ts";
import { buildSidecarImages } from "../support/kube_install/sidecar_images.ts";
import { tagOnEveryNode, upgrade } from "../support/kube_install/upgrade.ts";

const MINUTES_MAX = 40;
const BUSYBOX = /(^|\/)busybox:/;
/** Silence after which a node counts as lost; Kubernetes' own default is 40. */
const NODE_MONITOR_GRACE_SECONDS = 20;
/** Room for the quickstart's volume of 1 GiB and ours. */
const DISK_MIB = 3 * 1024;
const PROFILE = "kind";
const NEXT_TAG = "next";
/** What this kind of cluster needs beside the profile for clusters whose nodes share a machine. */
const VALUES = [
  "etcd.replicaCount=3",
  "etcd.persistence.storageClass=manual", // there is no provisioner for etcd's own volumes
  "podDisruptionBudgets.enabled=false", // policy/v1 came with Kubernetes 1.21
];

/** A step that the following ones stand on. */
async function step(
  t: TestContext,
  name: string,
  work: (t: TestContext) => Promise<void>,
): Promise<void> {
  let isDone = false;
  await t.test(name, async (inner) => {
    const start = performance.now();
    await work(inner);
    inner.diagnostic(`${((performance.now() - start) / 1000).toFixed(1)} s`);
    isDone = true;
  });
  if (!isDone) throw new Error(`The rest stands on this step: ${name}`);
}

test("an installation on three real nodes", {
  skip: whyNoCluster() ?? false,
  timeout: MINUTES_MAX * 60_000,
}, async (t) => {
  const log = (line: string) => t.diagnostic(line);
  const own = await buildClusterImages({ log });
  const ours = await buildImages({ log });
  const images = [...ours, ...own, ...(await buildSidecarImages())];
  const busybox = own.find(({ reference }) => BUSYBOX.test(reference))?.reference;
  assert.ok(busybox !== undefined, "an image with busybox");
  const settingsBefore = kernelSettings();
  const cluster = await KubeCluster.start({
    nodes: 3,
    images: [...new Set(images.map(({ archive }) => archive))],
    nodeMonitorGraceSeconds: NODE_MONITOR_GRACE_SECONDS,
    log,
  });
  t.after(() => cluster.stop());
  for (const { name, run } of clusterChecks(cluster, { busybox, log }))
    await step(t, `the cluster: ${name}`, run);

  const installation = await Installation.synth(cluster, { profile: PROFILE, values: VALUES });
  t.after(() => installation.close());
  const leftovers = await Leftovers.before(installation);

  await step(t, "comes up from nothing in three minutes", (inner) =>
    checkCameUp(inner, installation),
  );
  await step(t, "shows DiskPools, nodes and pools as documented", async () => {
    await installation.createPools(DISK_MIB);
    await checkTables(installation);
  });
  await step(t, "the quickstart of the documentation, word by word", (inner) =>
    quickstart(inner, installation),
  );
  const volume = await DataVolume.create(t, installation);
  await step(t, "the agents' node is lost and comes back while a volume is written", (inner) =>
    loseAgentsNode(inner, installation, volume),
  );
  await step(t, "the target's node is lost and comes back", (inner) =>
    loseTargetNode(inner, installation, volume),
  );
  await step(t, "every pod is deleted once and comes back", (inner) =>
    deleteEveryPod(inner, installation, volume),
  );
  await step(t, "an upgrade while the volume is written", async (inner) => {
    await tagOnEveryNode(
      cluster,
      ours.map(({ reference }) => reference),
      NEXT_TAG,
    );
    await upgrade(
      cluster,
      { profile: PROFILE, values: VALUES },
      { tag: NEXT_TAG, volume, log: (line) => inner.diagnostic(line) },
    );
  });
  await step(t, "no acknowledged write is missing on any replica", () => volume.prove());
  await step(t, "kubectl delete leaves nothing behind", async (inner) => {
    await volume.remove();
    await removeQuickstart(installation);
    await leftovers.check(inner);
  });
  await step(t, "the cluster: stop() leaves no process, mount, cgroup, link or folder", () =>
    checkStopped(cluster, { settingsBefore, log }),
  );
});
