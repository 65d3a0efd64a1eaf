/**
 * Our images: one per program, named `mayastor-<program>` as the manifests expect.
 * Invariant: every container of the charts that is ours has its row here, and its target in the Dockerfile.
 * Imports nothing, because the build inside of an image reads it too.
 */

/** Which tag of the values an image follows (`image.repoTags`). */
export type ImageGroup = "controlPlane" | "dataPlane" | "extensions";

export interface Program {
  readonly name: string;
  /** The file that starts it. */
  readonly entry: string;
  readonly group: ImageGroup;
}

export const PROGRAMS: readonly Program[] = [
  { name: "agent-core", entry: "agents/core/main.ts", group: "controlPlane" },
  { name: "api-rest", entry: "agents/rest/main.ts", group: "controlPlane" },
  { name: "csi-controller", entry: "agents/csi-controller/main.ts", group: "controlPlane" },
  { name: "csi-node", entry: "agents/csi-node/main.ts", group: "controlPlane" },
  {
    name: "operator-diskpool",
    entry: "agents/diskpool-operator/main.ts",
    group: "controlPlane",
  },
  {
    name: "metrics-exporter-pool",
    entry: "agents/metrics-exporter/main.ts",
    group: "extensions",
  },
  { name: "io-engine", entry: "engine/ts/main.ts", group: "dataPlane" },
];
