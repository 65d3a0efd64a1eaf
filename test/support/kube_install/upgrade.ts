/**
 * Step: an upgrade while a volume is written: new manifests are applied, the agents are replaced, then the io-engines
 * one by one, each after the volume is whole again, as the documentation has it. test/kube and hack/e2e share it.
 *
 * Why the same programs under another tag: what an upgrade does to a cluster does not depend on what is new in it.
 * Invariants: apply alone restarts no io-engine (its DaemonSet is updated on deletion); at no time is more than one away;
 * the one that serves the volume is the last.
 */
import assert from "node:assert/strict";
import { until } from "../../../hack/cluster/local.ts";
import { PODS } from "./came_up.ts";
import type { ClusterUnderTest } from "./cluster_under_test.ts";
import { NAMESPACE } from "./documented.ts";
import { Installation, type Pod } from "./installation.ts";

const ENGINE = "io-engine";
const ROLLOUT_SECONDS = 300;
const GONE_SECONDS = 120;
const READY_SECONDS = 300;
const ONLINE_SECONDS = 300;
const WRITES_SECONDS = 120;

/** A volume in use: whoever writes to it also judges what was written. */
export interface WrittenVolume {
  readonly uuid: string;
  /** Waits until new writes are acknowledged. */
  untilWrites?(seconds: number): Promise<void>;
}

/** What is used of the installation whose manifests are the new ones. */
export type Upgraded = Pick<
  Installation,
  "apply" | "kubectl" | "pods" | "podsOf" | "untilReady" | "untilVolume" | "volume"
>;

export interface UpgradeOptions {
  /** Tag of the new images; every node has them. */
  readonly tag: string;
  readonly volume: WrittenVolume;
  readonly log: (line: string) => void;
}

/** Gives every node the images under another tag too, without another build. */
export async function tagOnEveryNode(
  { nodes }: ClusterUnderTest,
  references: readonly string[],
  tag: string,
): Promise<void> {
  for (const node of nodes) {
    for (const reference of references) {
      const ctr = ["ctr", "--namespace=k8s.io", "images", "tag", "--force"];
      await node.exec([...ctr, reference, withTag(reference, tag)]);
    }
  }
}

/** `registry:5000/repo/name:old` with another tag. */
export function withTag(reference: string, tag: string): string {
  const at = reference.lastIndexOf(":");
  assert.ok(at > reference.lastIndexOf("/"), `${reference} has a tag`);
  return `${reference.slice(0, at)}:${tag}`;
}

/** Synthesizes the manifests with another tag, and brings the cluster there. `values` are those of before. */
export async function upgrade(
  cluster: ClusterUnderTest,
  from: { readonly profile: string; readonly values: readonly string[] },
  options: UpgradeOptions,
): Promise<void> {
  const values = [...from.values, `image.tag=${options.tag}`];
  const next = await Installation.synth(cluster, { profile: from.profile, values });
  try {
    await upgradeTo(next, options);
  } finally {
    next.close();
  }
}

/** Applies `next` and replaces the engines. @throws when a step does not end, or ends other than it has to */
export async function upgradeTo(
  next: Upgraded,
  { tag, volume, log }: UpgradeOptions,
): Promise<void> {
  const engines = await next.podsOf(ENGINE);
  await next.apply();
  await untilRolledOut(next);
  log("agents are replaced");
  assert.deepEqual(
    namesByUid(await next.podsOf(ENGINE)),
    namesByUid(engines),
    "apply and the agents' restart leave every io-engine as it was",
  );
  await volume.untilWrites?.(WRITES_SECONDS);
  const { state } = await next.volume(volume.uuid);
  for (const engine of engineOrder(engines, state.target?.node)) {
    await replaceEngine(next, engine, volume);
    log(`${engine.metadata.name} on ${engine.spec.nodeName} is replaced, the volume Online`);
  }
  const others = otherTags(await imagesOf(next), tag);
  assert.deepEqual(others, [], `every pod of ours runs ${tag}`);
}

/** Replicas first: the engine that serves the volume when the others are new already. */
export function engineOrder(engines: readonly Pod[], target: string | undefined): readonly Pod[] {
  const isTarget = ({ spec }: Pod) => Number(spec.nodeName === target);
  return engines.toSorted((a, b) => isTarget(a) - isTarget(b));
}

/** Images of this repository under any other tag. @throws when there is none of this repository */
export function otherTags(images: readonly string[], tag: string): readonly string[] {
  const own = images.filter((image) => /(^|\/)mayastor-[^/]*$/.test(image));
  assert.ok(own.length > 0, `images of this repository among ${images.join(", ")}`);
  return own.filter((image) => !image.endsWith(`:${tag}`));
}

async function untilRolledOut(next: Upgraded): Promise<void> {
  for (const kind of ["deployment", "daemonset"]) {
    const names = await next.kubectl(["get", kind, "-n", NAMESPACE, "-o", "name"]);
    for (const name of names.split("\n")) {
      if (name === "" || name.endsWith(`-${ENGINE}`)) continue;
      await next.kubectl([
        ...["rollout", "status", name, "-n", NAMESPACE, `--timeout=${ROLLOUT_SECONDS}s`],
      ]);
    }
  }
  await next.untilReady(PODS, READY_SECONDS);
}

async function replaceEngine(next: Upgraded, engine: Pod, volume: WrittenVolume): Promise<void> {
  const { name, uid } = engine.metadata;
  const others = namesByUid((await next.pods()).filter(({ metadata }) => metadata.uid !== uid));
  await next.untilVolume(volume.uuid, "Online", ONLINE_SECONDS);
  await next.kubectl(["delete", "pod", "-n", NAMESPACE, name]);
  await until(
    `${name} gone`,
    async () => (await next.pods()).every(({ metadata }) => metadata.uid !== uid),
    { seconds: GONE_SECONDS, everyMs: 500 },
  );
  await next.untilReady(PODS, READY_SECONDS);
  await next.untilVolume(volume.uuid, "Online", ONLINE_SECONDS);
  await volume.untilWrites?.(WRITES_SECONDS);
  const now = namesByUid(await next.pods());
  for (const [other, otherName] of Object.entries(others)) {
    assert.equal(now[other], otherName, `${otherName} stays when ${name} is replaced`);
  }
}

const namesByUid = (pods: readonly Pod[]): Readonly<Record<string, string>> =>
  Object.fromEntries(pods.map(({ metadata }) => [metadata.uid, metadata.name]));

async function imagesOf(next: Upgraded): Promise<readonly string[]> {
  const template = "jsonpath={.items[*].spec.containers[*].image}";
  const text = await next.kubectl(["get", "pods", "-n", NAMESPACE, "-o", template]);
  return text.split(/\s+/).filter((image) => image !== "");
}
