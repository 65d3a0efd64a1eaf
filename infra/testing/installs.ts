/** What tests look at: every snapshot installation with its objects, and ways to find one of them. */
import assert from "node:assert/strict";
import type { Container, PodSpec } from "../constructs/kube.ts";
import { isTree } from "../merge.ts";
import { type Manifest, snapshotInstalls, synthesize } from "../snapshots.ts";

export const installs = [...snapshotInstalls()].map(([name, install]) => ({
  name,
  install,
  objects: [...synthesize(install).values()].flat(),
}));
const found = installs.find(({ name }) => name === "everything");
assert.ok(found);
export const everything = found;

export const title = ({ kind, metadata }: Manifest) => `${kind} ${metadata.name}`;
export const spec = (object: Manifest) => {
  assert.ok(isTree(object["spec"]), title(object));
  return object["spec"];
};

export type Workload = {
  readonly object: Manifest;
  readonly labels: Record<string, string>;
  readonly pod: PodSpec;
};
const WORKLOADS = ["DaemonSet", "Deployment", "StatefulSet"];

/** The pods of an installation; strictErrors() has checked their form. */
export function workloads(objects: readonly Manifest[]): Workload[] {
  return objects
    .filter(({ kind }) => WORKLOADS.includes(kind))
    .map((object) => {
      const template = spec(object)["template"] as {
        metadata: { labels: Record<string, string> };
        spec: PodSpec;
      };
      return { object, labels: template.metadata.labels, pod: template.spec };
    });
}
export const all = (pod: PodSpec): readonly Container[] => [
  ...(pod.initContainers ?? []),
  ...pod.containers,
];

export function forEachPod(check: (workload: Workload, where: string) => void): void {
  for (const { name, objects } of installs) {
    for (const workload of workloads(objects))
      check(workload, `${name}: ${title(workload.object)}`);
  }
}

export function workload(name: string, objects = everything.objects): Workload {
  const match = workloads(objects).find(({ object }) => object.metadata.name === name);
  assert.ok(match, name);
  return match;
}

export function container(
  workloadName: string,
  name: string,
  objects = everything.objects,
): Container {
  const match = workload(workloadName, objects).pod.containers.find((one) => one.name === name);
  assert.ok(match, name);
  return match;
}
