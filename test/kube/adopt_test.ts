/**
 * Our manifests over objects that Helm made, on a real API server, by the commands of infra/README.md.
 * Why: such objects have no record of what was applied; a plain `apply` merges lists and handlers of both.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { ControlPlane } from "../../hack/cluster/kube/control_plane.ts";
import { makeInstall } from "../../infra/config.ts";
import { type Manifest, synthesize, toText } from "../../infra/snapshots.ts";
import { KubeApi } from "../support/kube/api.ts";
import { CleanupStack } from "../support/kube/cleanup.ts";
import { hasDatedTemplates } from "../support/kube/compare.ts";
import { kubectl, linesOf, startControlPlane } from "../support/kube/plane.ts";

const NAMESPACE = "mayastor";
const RELEASE_LABELS = { "openebs.io/release": "mayastor", "openebs.io/version": "2.2.0" };
const HELM = {
  labels: { "app.kubernetes.io/managed-by": "Helm", ...RELEASE_LABELS },
  annotations: {
    "meta.helm.sh/release-name": "mayastor",
    "meta.helm.sh/release-namespace": NAMESPACE,
  },
};

/** What the chart of 2.2 makes, as far as the parts that collide with ours go. */
function published(): readonly Manifest[] {
  const members = { "app.kubernetes.io/instance": "mayastor", "app.kubernetes.io/name": "etcd" };
  const probe = { exec: { command: ["/opt/bitnami/scripts/etcd/healthcheck.sh"] } };
  const core = { app: "agent-core", "openebs.io/release": "mayastor" };
  const agent = (name: string, port: number) => ({
    name,
    image: `docker.io/openebs/mayastor-${name}:v2.2.0`,
    args: [`--grpc-server-addr=0.0.0.0:${port}`],
    ports: [{ containerPort: port }],
  });
  const meta = (name: string, labels: Readonly<Record<string, string>>) => ({
    name,
    namespace: NAMESPACE,
    labels: { ...HELM.labels, ...labels },
    annotations: HELM.annotations,
  });
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
    {
      apiVersion: "apps/v1",
      kind: "StatefulSet",
      metadata: meta("mayastor-etcd", { ...members, app: "etcd" }),
      spec: {
        replicas: 3,
        podManagementPolicy: "Parallel",
        serviceName: "mayastor-etcd-headless",
        selector: { matchLabels: members },
        template: {
          metadata: { labels: { ...members, app: "etcd", ...RELEASE_LABELS } },
          spec: {
            containers: [
              {
                name: "etcd",
                image: "docker.io/bitnami/etcd:3.5.6-debian-11-r10",
                env: [{ name: "ALLOW_NONE_AUTHENTICATION", value: "yes" }],
                ports: [
                  { name: "client", containerPort: 2379 },
                  { name: "peer", containerPort: 2380 },
                ],
                livenessProbe: { ...probe, initialDelaySeconds: 60, periodSeconds: 30 },
                readinessProbe: { ...probe, initialDelaySeconds: 60 },
                volumeMounts: [{ name: "data", mountPath: "/bitnami/etcd" }],
              },
            ],
          },
        },
        volumeClaimTemplates: [
          {
            metadata: { name: "data" },
            spec: {
              accessModes: ["ReadWriteOnce"],
              resources: { requests: { storage: "2Gi" } },
            },
          },
        ],
      },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: meta("mayastor-agent-core", { app: "agent-core" }),
      spec: {
        replicas: 1,
        selector: { matchLabels: core },
        template: {
          metadata: { labels: { ...core, ...RELEASE_LABELS } },
          spec: {
            serviceAccount: "mayastor-service-account",
            containers: [agent("agent-core", 50051), agent("agent-ha-cluster", 50052)],
          },
        },
      },
    },
  ];
}

type PodObject = {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly containers: readonly {
          readonly name: string;
          readonly livenessProbe?: Readonly<Record<string, unknown>>;
          readonly readinessProbe?: Readonly<Record<string, unknown>>;
        }[];
      };
    };
  };
};
const HANDLERS = ["exec", "httpGet", "tcpSocket", "grpc"];

describe("an installation that Helm made", { concurrency: false }, () => {
  const cleanup = new CleanupStack();
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-adopt-"));
  let plane: ControlPlane;
  let api: KubeApi;
  after(async () => {
    await cleanup.run();
    rmSync(folder, { recursive: true });
  });
  before(
    async () => {
      plane = await startControlPlane(cleanup);
      api = new KubeApi(plane.kubeconfig);
    },
    { timeout: 300_000 },
  );

  const containersOf = async (at: string) => {
    const found = await api.find(`/apis/apps/v1/namespaces/${NAMESPACE}/${at}`);
    // Proof of the cast: the API server has checked the object against its schema.
    return (found as unknown as PodObject).spec.template.spec.containers;
  };

  test("is taken over by the README's commands, and nothing of it stays", async () => {
    const old = path.join(folder, "published.yaml");
    writeFileSync(old, toText(published()));
    const created = await kubectl(plane, ["create", "-f", old]);
    assert.equal(created.code, 0, created.stderr);

    const charts = synthesize(makeInstall({ version: "0.0.0" }));
    const files = ["00-namespace", "10-priority-class", "30-etcd", "40-agent-core"].map((name) => {
      const file = path.join(folder, `${name}.k8s.yaml`);
      writeFileSync(file, toText(charts.get(name) ?? []));
      return ["-f", file];
    });
    // What the README's steps are for: without them the old container stays (and newer API servers refuse etcd's probes).
    await kubectl(plane, ["apply", ...files.flat()]);
    assert.deepEqual(
      (await containersOf("deployments/mayastor-agent-core")).map(({ name }) => name).sort(),
      ["agent-core", "agent-ha-cluster"],
    );

    const again = await kubectl(plane, ["delete", "--ignore-not-found", "-f", old]);
    assert.equal(again.code, 0, again.stderr);
    const second = await kubectl(plane, ["create", "-f", old]);
    assert.equal(second.code, 0, second.stderr);
    const readme = readFileSync(path.join(import.meta.dirname, "../../infra/README.md"), "utf8");
    const record = "apply set-last-applied --create-annotation=true -f published.yaml";
    assert.ok(readme.includes(`kubectl -n mayastor ${record}`));
    const recorded = await kubectl(plane, [
      ...["-n", NAMESPACE],
      ...record.replace("published.yaml", old).split(" "),
    ]);
    assert.equal(recorded.code, 0, recorded.stderr);
    const applied = await kubectl(plane, ["apply", ...files.flat()]);
    assert.equal(applied.code, 0, applied.stderr);

    for (const at of ["statefulsets/mayastor-etcd", "deployments/mayastor-agent-core"]) {
      const containers = await containersOf(at);
      assert.equal(containers.length, 1, JSON.stringify(containers.map(({ name }) => name)));
      for (const probe of [containers[0]?.livenessProbe, containers[0]?.readinessProbe]) {
        assert.equal(HANDLERS.filter((handler) => handler in (probe ?? {})).length, 1);
        assert.ok(!("exec" in (probe ?? {})));
      }
    }
    const unchanged = await kubectl(plane, ["apply", ...files.flat()]);
    const etcd = `/apis/apps/v1/namespaces/${NAMESPACE}/statefulsets/mayastor-etcd`;
    const dated = hasDatedTemplates(await api.find(etcd));
    assert.deepEqual(
      linesOf(unchanged.stdout).filter((line) => !line.endsWith(" unchanged")),
      dated ? ["statefulset.apps/mayastor-etcd configured"] : [],
    );
  });
});
