/**
 * Synthesizing in memory, and which installations are kept as snapshots.
 * Invariant: the version in snapshots is fixed, so that a diff shows what changed and not that it did.
 */
import { App, Yaml } from "cdk8s";
import { type Install, type InstallOptions, makeInstall } from "./config.ts";
import { addInstallation } from "./install.ts";
import { PROFILE_NAMES } from "./profiles.ts";

const SNAPSHOT_VERSION = "0.0.0";

/** Any Kubernetes object, as it is in a manifest. */
export type Manifest = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
};

/** File name (without ending) to the objects in it, in the order they are applied. */
export function synthesize(install: Install): ReadonlyMap<string, readonly Manifest[]> {
  const app = new App();
  addInstallation(app, install);
  return new Map(
    app.charts.map((chart): [string, readonly Manifest[]] => [chart.node.id, chart.toJson()]),
  );
}

/** What `cdk8s synth` writes to that file. */
export function toText(objects: readonly Manifest[]): string {
  return Yaml.stringify(...objects);
}

/** Everything that can be switched on, at once: also what the profiles leave out. */
const EVERYTHING: InstallOptions = {
  version: SNAPSHOT_VERSION,
  values: [
    {
      components: { csi: true, diskpoolOperator: true, metricsExporter: true },
      base: { imagePullSecrets: { enabled: true }, logSilenceLevel: "h2" },
      agents: { core: { partialRebuildWaitPeriod: "300s" } },
      apis: { rest: { replicaCount: 2, service: { type: "NodePort" } } },
      io_engine: {
        coreList: [2, 3, 6],
        reactorFreezeDetection: { enabled: true },
        target: { nvmf: { iface: "name:eth0" } },
        resources: { limits: { hugepages2Mi: "2Gi" }, requests: { hugepages2Mi: "2Gi" } },
      },
      etcd: { persistence: { storageClass: "manual" }, service: { type: "NodePort" } },
      "loki-stack": { loki: { persistence: { storageClassName: "manual" } } },
      storageClasses: [{ name: "mayastor-3", repl: 3, ioTimeout: 30, fsType: "xfs", thin: true }],
      diskPools: [
        {
          name: "pool-on-node-1",
          node: "node-1",
          disks: ["/dev/disk/by-id/nvme-example"],
          labels: { tier: "fast" },
        },
      ],
      networkPolicies: { nodeCidrs: ["10.0.0.0/16"] },
      monitoring: { serviceMonitor: true, prometheusRule: true, dashboards: true },
    },
  ],
};

/** Folder name to the installation in it. */
export function snapshotInstalls(): ReadonlyMap<string, Install> {
  return new Map([
    ...PROFILE_NAMES.map((profile): [string, Install] => [
      profile,
      makeInstall({ profile, version: SNAPSHOT_VERSION }),
    ]),
    ["everything", makeInstall(EVERYTHING)],
  ]);
}
