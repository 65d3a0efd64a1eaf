/** Every installation, on a real API server: applied, read back, applied again, deleted. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { ControlPlane } from "../../hack/cluster/kube/control_plane.ts";
import { until } from "../../hack/cluster/local.ts";
import { KINDS } from "../../infra/constructs/kube.ts";
import { RELEASE_LABEL } from "../../infra/names.ts";
import { type Manifest, snapshotInstalls, synthesize, toText } from "../../infra/snapshots.ts";
import { collection, KubeApi, type KubeObject } from "../support/kube/api.ts";
import { CleanupStack } from "../support/kube/cleanup.ts";
import { hasDatedTemplates, missing } from "../support/kube/compare.ts";
import { kubectl, linesOf, startControlPlane } from "../support/kube/plane.ts";

/**
 * What Kubernetes 1.20 does not serve yet, and since when it is served. The installation is for versions that are
 * still maintained; nothing else may be on this list.
 */
const NEWER: Readonly<Record<string, string>> = {
  "policy/v1 PodDisruptionBudget": "1.21; the v1beta1 that 1.20 has was removed in 1.25",
};
/** Fields that 1.20 drops, and since when they are kept. */
const NEWER_FIELDS: Readonly<Record<string, string>> = {};

/** The Prometheus operator's kinds; its own CRDs are not part of the installation, the names are enough here. */
const MONITORING = ["ServiceMonitor", "PrometheusRule"].map((kind) => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: `${kind.toLowerCase()}s.monitoring.coreos.com` },
  spec: {
    group: "monitoring.coreos.com",
    scope: "Namespaced",
    names: {
      kind,
      plural: `${kind.toLowerCase()}s`,
      singular: kind.toLowerCase(),
      listKind: `${kind}List`,
    },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        },
      },
    ],
  },
}));

/** Applied whole; of the others only what no installation before them had word for word. */
const WHOLE = ["default", "everything"];

/** Kinds whose controllers write their status (and with it the resourceVersion) at any time. */
const CONTROLLED = [
  "PersistentVolume",
  "DaemonSet",
  "Deployment",
  "StatefulSet",
  "CustomResourceDefinition",
  "Namespace",
];

/** What we wrote, without the claim that a controller binds to a volume. */
function specOf(object: KubeObject | null): string {
  const { claimRef: _bound, ...spec } = (object?.["spec"] ?? {}) as { claimRef?: unknown };
  return JSON.stringify(spec);
}

const hasTemplates = ({ spec }: Manifest) =>
  typeof spec === "object" && spec !== null && "volumeClaimTemplates" in spec;

const typeOf = ({ apiVersion, kind }: Manifest) => `${apiVersion} ${kind}`;
const titleOf = (object: Manifest) => `${typeOf(object)} ${object.metadata.name}`;

describe("an installation on a real API server", { concurrency: false }, () => {
  const cleanup = new CleanupStack();
  let plane: ControlPlane;
  let api: KubeApi;
  const root = mkdtempSync(path.join(os.tmpdir(), "mayastor-apply-"));
  after(async () => {
    await cleanup.run();
    rmSync(root, { recursive: true });
  });
  before(
    async () => {
      plane = await startControlPlane(cleanup);
      api = new KubeApi(plane.kubeconfig);
      for (const crd of MONITORING) {
        await api.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
          body: crd,
        });
      }
      await until("the monitoring kinds", async () => {
        const served = (await api.discover()).filter(({ apiVersion }) =>
          apiVersion.startsWith("monitoring.coreos.com/"),
        );
        return served.length === MONITORING.length;
      });
    },
    { timeout: 300_000 },
  );

  /** Every object as it is on the server, missing ones as null. */
  const readAll = async (objects: readonly Manifest[]) =>
    await Promise.all(
      objects.map(async (object): Promise<[Manifest, KubeObject | null]> => {
        const at = await api.pathOf(object);
        return [object, at === null ? null : await api.find(at)];
      }),
    );

  const checkComplete = async (objects: readonly Manifest[]) => {
    const absent = new Set<string>();
    const lost: string[] = [];
    for (const [wanted, found] of await readAll(objects)) {
      if (found === null) absent.add(typeOf(wanted));
      else lost.push(...missing(wanted, found).map((what) => `${titleOf(wanted)}${what}`));
    }
    const expected = [...new Set(objects.map(typeOf))].filter((type) => type in NEWER);
    assert.deepEqual([...absent], expected, "only kinds newer than this API server are absent");
    assert.deepEqual(
      lost.filter((line) => !Object.keys(NEWER_FIELDS).some((field) => line.includes(field))),
      [],
      "every field that we wrote is there with our value",
    );
  };

  const versionsOf = async (objects: readonly Manifest[]) =>
    new Map(
      (await readAll(objects)).map(([wanted, found]) => [
        titleOf(wanted),
        CONTROLLED.includes(wanted.kind)
          ? `generation ${found?.metadata.generation} ${specOf(found)}`
          : `resourceVersion ${found?.metadata.resourceVersion}`,
      ]),
    );

  /** The lines that kubectl may say of StatefulSets on this server; see hasDatedTemplates(). */
  const datedTemplates = async (objects: readonly Manifest[]) =>
    (await readAll(objects.filter(hasTemplates)))
      .filter(([, found]) => hasDatedTemplates(found))
      .map(([{ metadata }]) => `statefulset.apps/${metadata.name} configured`);

  const checkEstablished = async (objects: readonly Manifest[]) => {
    const crds = objects.filter(({ kind }) => kind === "CustomResourceDefinition");
    for (const crd of crds) {
      const at = await api.pathOf(crd);
      assert.ok(at !== null);
      await until(`${crd.metadata.name} Established`, async () => {
        const { conditions } = ((await api.find(at))?.["status"] ?? {}) as {
          conditions?: { type: string; status: string }[];
        };
        const is = (type: string) =>
          conditions?.some((one) => one.type === type && one.status === "True");
        return (
          is("Established") === true && is("NamesAccepted") === true && !is("NonStructuralSchema")
        );
      });
    }
  };

  /** Everything on the server that bears the release's label or is in the namespace. */
  const leftovers = async (release: string, namespace: string) => {
    const listable = (await api.discover()).filter(
      ({ verbs, plural }) => verbs.includes("list") && !plural.includes("/"),
    );
    const left: string[] = [];
    for (const resource of listable) {
      for (const { metadata, kind } of await api.list(collection(resource))) {
        const ours =
          metadata.labels?.[RELEASE_LABEL] === release || metadata.namespace === namespace;
        if (ours) left.push(`${resource.plural} ${metadata.name} (${kind})`);
      }
    }
    return left;
  };

  const untilClean = async (release: string, namespace: string) => {
    let left: readonly string[] = [];
    try {
      await until(
        "nothing left",
        async () => {
          left = [
            ...(await leftovers(release, namespace)),
            ...((await api.find(`/api/v1/namespaces/${namespace}`)) ? ["the namespace"] : []),
          ];
          return left.length === 0;
        },
        { seconds: 60, everyMs: 500 },
      );
    } catch {
      assert.deepEqual(left, []);
    }
  };

  const seen = new Set<string>();
  for (const [name, install] of snapshotInstalls()) {
    const folder = path.join(root, name);
    const charts = synthesize(install);
    const hasPools = [...charts.values()].flat().some(({ kind }) => kind === "DiskPool");
    /** What the rest cannot be without. */
    const isGround = ({ kind }: Manifest) =>
      kind === "Namespace" || (hasPools && kind === "CustomResourceDefinition");
    const isWanted = (object: Manifest) =>
      WHOLE.includes(name) || isGround(object) || !seen.has(JSON.stringify(object));
    const folderFiles = new Map(
      [...charts]
        .map(([file, contents]) => [file, contents.filter(isWanted)] as const)
        .filter(([, contents]) => contents.length > 0),
    );
    const objects = [...folderFiles.values()].flat();
    for (const object of objects) seen.add(JSON.stringify(object));
    mkdirSync(folder, { recursive: true });
    for (const [file, contents] of folderFiles) {
      writeFileSync(path.join(folder, `${file}.k8s.yaml`), toText(contents));
    }
    const newer = objects.filter((object) => typeOf(object) in NEWER);

    /** Runs kubectl on the whole folder, as the README tells; it may only stumble over what is newer. */
    const run = async (...args: readonly string[]) => {
      const { code, stdout, stderr } = await kubectl(plane, [...args, "-f", folder]);
      // The CRD's file comes first in a deletion too, and takes the DiskPools with it.
      const refused = linesOf(stderr).filter(
        (line) => args[0] !== "delete" || !/no matches for kind "DiskPool"/.test(line),
      );
      for (const line of refused) {
        assert.match(line, /no matches for kind "PodDisruptionBudget" in version "policy\/v1"/);
      }
      assert.equal(refused.length, newer.length, stderr);
      assert.equal(code, newer.length > 0 ? 1 : 0);
      return linesOf(stdout);
    };

    test(`${name}: kubectl apply`, { timeout: 600_000 }, async () => {
      const pools = objects.filter(({ kind }) => kind === "DiskPool");
      if (pools.length > 0) {
        // The README: the first apply may not know DiskPools yet.
        const crds = path.join(folder, "05-crds.k8s.yaml");
        const { code, stderr } = await kubectl(plane, ["apply", "-f", crds]);
        assert.equal(code, 0, stderr);
      }
      await checkEstablished(objects.filter(() => pools.length > 0));
      await run("apply");
      await checkEstablished(objects);
      await checkComplete(objects);
      const versions = await versionsOf(objects);
      const again = await run("apply");
      const resent = again.filter((line) => !line.endsWith(" unchanged"));
      const old = await datedTemplates(objects);
      assert.deepEqual(
        resent.filter((line) => !old.includes(line)),
        [],
        "a second apply finds nothing to do",
      );
      if (resent.length > 0) {
        const listed = [...folderFiles].filter(([, contents]) => contents.some(hasTemplates));
        const paths = listed.flatMap(([file]) => ["-f", path.join(folder, `${file}.k8s.yaml`)]);
        const { code, stdout, stderr } = await kubectl(plane, ["diff", ...paths]);
        assert.deepEqual([code, stdout, stderr], [0, "", ""], "the server sees no difference");
      }
      assert.equal(again.length, objects.length - newer.length);
      assert.deepEqual(await versionsOf(objects), versions);
      const deleted = await run("delete", "--ignore-not-found");
      assert.ok(
        deleted.every((line) => / (force )?deleted$/.test(line)),
        deleted.join("\n"),
      );
      await untilClean(install.release, install.namespace);
    });

    test(`${name}: server-side apply`, { timeout: 600_000 }, async () => {
      const applyAll = async () => {
        for (const object of objects) {
          const at = await api.pathOf(object);
          if (at === null) {
            assert.ok(typeOf(object) in NEWER, titleOf(object));
            continue;
          }
          const query = "?fieldManager=installer";
          await api.must("PATCH", at + query, { body: object, patch: "apply" });
          if (object.kind === "CustomResourceDefinition") await checkEstablished([object]);
        }
      };
      await applyAll();
      await checkComplete(objects);
      const versions = await versionsOf(objects);
      await applyAll();
      assert.deepEqual(await versionsOf(objects), versions);
      for (const [wanted, found] of await readAll(objects)) {
        const managers = found?.metadata.managedFields ?? [];
        assert.ok(
          found === null ||
            managers.some((one) => one.manager === "installer" && one.operation === "Apply"),
          titleOf(wanted),
        );
      }
      for (const object of objects) {
        const at = await api.pathOf(object);
        if (at === null) continue;
        const { status } = await api.call("DELETE", at);
        assert.ok([200, 202, 404].includes(status), `${titleOf(object)}: ${status}`);
      }
      await untilClean(install.release, install.namespace);
    });
  }

  test("every kind that charts can make was applied", () => {
    const applied = new Set(
      [...snapshotInstalls().values()].flatMap((install) =>
        [...synthesize(install).values()].flat().map(({ kind }) => kind),
      ),
    );
    assert.deepEqual(
      Object.keys(KINDS).filter((kind) => !applied.has(kind)),
      [],
    );
  });
});
