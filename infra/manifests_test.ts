/** What must hold for every manifest of every profile, and of everything switched on. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { makeInstall } from "./config.ts";
import { KINDS, type Kind } from "./constructs/kube.ts";
import { staleFiles } from "./snapshot.ts";
import { type Manifest, synthesize } from "./snapshots.ts";
import {
  all,
  everything,
  forEachPod,
  installs,
  spec,
  title,
  workload,
  workloads,
} from "./testing/installs.ts";
import { strictErrors } from "./testing/strict.ts";

const CUSTOM = ["DiskPool", "PrometheusRule", "ServiceMonitor"];

test("snapshots and the README's tables are what the code makes", () => {
  assert.deepEqual(
    staleFiles(),
    [],
    "review the change, then: scripts/run infra/snapshot.ts --update",
  );
});

test("synthesize() gives the same manifests each time", () => {
  const again = [...synthesize(everything.install).values()].flat();
  assert.deepEqual(again, everything.objects);
});

test("every object of a built-in kind is strictly valid on the current Kubernetes", async () => {
  for (const { name, objects } of installs) {
    for (const object of objects.filter(({ kind }) => !CUSTOM.includes(kind))) {
      assert.deepEqual(await strictErrors(object), [], `${name}: ${title(object)}`);
    }
  }
});

test("strictErrors() finds unknown, missing and ill-typed fields at any depth", async () => {
  const good = workload("mayastor-io-engine").object;
  const damage = (change: (pod: Record<string, unknown>) => void) => {
    const copy = structuredClone(good) as Manifest & {
      spec: { template: { spec: { containers: Record<string, unknown>[] } } };
    };
    const [first] = copy.spec.template.spec.containers;
    assert.ok(first);
    change(first);
    return strictErrors(copy);
  };
  const at = "DaemonSet.spec.template.spec.containers[0]";
  assert.deepEqual(await damage((c) => Object.assign(c, { pullPolicy: "Always" })), [
    `${at}.pullPolicy: V1Container has no such field`,
  ]);
  assert.deepEqual(await damage((c) => delete c["name"]), [`${at}.name: is required`]);
  assert.deepEqual(await damage((c) => Object.assign(c, { stdin: "no" })), [
    `${at}.stdin: true or false is expected`,
  ]);
  assert.deepEqual(await damage((c) => Object.assign(c, { args: "-x" })), [
    `${at}.args: a list is expected`,
  ]);
  assert.deepEqual(
    await damage((c) => Object.assign(c, { ports: [{ containerPort: 1.5, name: 7 }] })),
    [
      `${at}.ports[0].containerPort: a whole number is expected`,
      `${at}.ports[0].name: text is expected`,
    ],
  );
  assert.deepEqual(
    await damage((c) => Object.assign(c, { resources: { limits: { memory: "1 GB" } } })),
    [`${at}.resources.limits.memory: is no quantity`],
  );
  await assert.rejects(async () => strictErrors({ apiVersion: "v1", kind: "Gadget" }), /no model/);
});

test("no two objects have the same kind, name and namespace", () => {
  for (const { name, objects } of installs) {
    const keys = objects.map((one) => `${title(one)} ${one.metadata.namespace ?? ""}`);
    assert.deepEqual(
      keys.filter((key, index) => keys.indexOf(key) !== index),
      [],
      name,
    );
  }
});

test("namespaced objects are in the install namespace, others in none", () => {
  const moved = makeInstall({ namespace: "storage", release: "my", version: "1.0.0" });
  for (const object of [...synthesize(moved).values()].flat()) {
    const known = KINDS[object.kind as Kind]; // every object was added as a Kind
    assert.equal(
      object.metadata.namespace,
      known.namespaced ? "storage" : undefined,
      title(object),
    );
  }
});

test("a release name prefixes every name, and no other name is left behind", () => {
  const components = { csi: true, diskpoolOperator: true, metricsExporter: true };
  const moved = makeInstall({
    namespace: "storage",
    release: "blue",
    values: [{ components }],
    version: "1.0.0",
  });
  const objects = [...synthesize(moved).values()].flat();
  // Names that are the same in every installation of a cluster, and so allow one.
  const fixed = ["storage", "diskpools.openebs.io", "io.openebs.csi-mayastor"];
  for (const object of objects) {
    const { name } = object.metadata;
    assert.ok(name.startsWith("blue-") || fixed.includes(name), title(object));
  }
  const published = /localhost\/mayastor\/mayastor-|"name":"mayastor-node"/g; // images, and the port of csi-node
  assert.doesNotMatch(JSON.stringify(objects).replaceAll(published, ""), /mayastor-/);
});

test("every object carries the release and version labels, and valid label values", () => {
  for (const { install, objects } of installs) {
    for (const object of objects) {
      const labels = object.metadata.labels ?? {};
      assert.equal(labels["openebs.io/release"], install.release, title(object));
      assert.equal(labels["openebs.io/version"], install.version, title(object));
      for (const value of Object.values(labels)) {
        assert.match(value, /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/, title(object));
      }
      assert.match(object.metadata.name, /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);
    }
  }
});

test("no Secret is installed, and none is mounted or read", () => {
  for (const { objects } of installs) {
    assert.deepEqual(
      objects.filter(({ kind }) => kind === "Secret"),
      [],
    );
    assert.doesNotMatch(JSON.stringify(objects), /secretKeyRef|secretName|"secret":/);
  }
});

test("selectors pick the pods of their own workload and of no other", () => {
  for (const { name, objects } of installs) {
    const pods = workloads(objects);
    const picks = (selector: Record<string, string>) =>
      pods
        .filter(({ labels }) =>
          Object.entries(selector).every(([key, value]) => labels[key] === value),
        )
        .map(({ object }) => title(object));
    for (const { object } of pods) {
      const { matchLabels } = spec(object)["selector"] as { matchLabels: Record<string, string> };
      assert.deepEqual(picks(matchLabels), [title(object)], name);
      assert.ok(
        !("openebs.io/version" in matchLabels),
        "a selector cannot change with the version",
      );
    }
    for (const object of objects.filter(({ kind }) => kind === "Service")) {
      assert.equal(
        picks(spec(object)["selector"] as Record<string, string>).length,
        1,
        title(object),
      );
    }
    for (const object of objects) {
      const field = { NetworkPolicy: "podSelector", PodDisruptionBudget: "selector" }[object.kind];
      if (field === undefined) continue;
      const { matchLabels } = spec(object)[field] as { matchLabels: Record<string, string> };
      assert.equal(picks(matchLabels).length, 1, `${name}: ${title(object)}`);
    }
  }
});

test("a Service's ports are ports of its pod", () => {
  for (const { name, objects } of installs) {
    for (const service of objects.filter(({ kind }) => kind === "Service")) {
      const { selector, ports } = spec(service) as {
        selector: Record<string, string>;
        ports: { port: number; targetPort?: number | string }[];
      };
      const pod = workloads(objects).find(({ labels }) =>
        Object.entries(selector).every(([key, value]) => labels[key] === value),
      );
      assert.ok(pod);
      const open = pod.pod.containers.flatMap(({ ports: own }) => own ?? []);
      for (const { port, targetPort = port } of ports) {
        assert.ok(
          open.some((one) => one.name === targetPort || one.containerPort === targetPort),
          `${name}: ${title(service)} port ${targetPort}`,
        );
      }
    }
  }
});

test("volumes, mounts, port names and references in pods fit together", () => {
  for (const { objects } of installs) {
    const names = (kind: string) =>
      objects.filter((one) => one.kind === kind).map(({ metadata }) => metadata.name);
    for (const { object, pod } of workloads(objects)) {
      const where = title(object);
      const claims = (spec(object)["volumeClaimTemplates"] ?? []) as Manifest[];
      const volumes = [
        ...(pod.volumes ?? []).map(({ name }) => name),
        ...claims.map(({ metadata }) => metadata.name),
      ];
      assert.equal(new Set(volumes).size, volumes.length, where);
      const mounted = all(pod).flatMap(({ volumeMounts = [] }) => volumeMounts);
      for (const { name } of mounted) assert.ok(volumes.includes(name), `${where}: ${name}`);
      for (const name of volumes) {
        assert.ok(
          mounted.some((mount) => mount.name === name),
          `${where}: ${name} is not mounted`,
        );
      }
      for (const one of all(pod)) {
        const paths = (one.volumeMounts ?? []).map(({ mountPath }) => mountPath);
        assert.equal(new Set(paths).size, paths.length, `${where}: ${one.name}`);
      }
      const containers = all(pod).map(({ name }) => name);
      assert.equal(new Set(containers).size, containers.length, where);
      for (const { name = "" } of all(pod).flatMap(({ ports = [] }) => ports)) {
        assert.match(name, /^[a-z0-9-]{1,15}$/, where);
      }
      assert.ok(names("ServiceAccount").includes(pod.serviceAccountName ?? ""), where);
      for (const { configMap } of pod.volumes ?? []) {
        if (configMap) assert.ok(names("ConfigMap").includes(configMap.name ?? ""), where);
      }
      const priority = pod.priorityClassName;
      if (priority !== undefined) assert.ok(names("PriorityClass").includes(priority), where);
    }
  }
});

test("requests are not above limits, and hugepages are the same in both", () => {
  const scale: Record<string, number> = { m: 1e-3, "": 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };
  const amount = (text: string) => {
    const [, number = "", unit = ""] = /^([0-9.]+)([a-zA-Z]*)$/.exec(text) ?? [];
    const factor = scale[unit];
    assert.ok(factor !== undefined, text);
    return Number(number) * factor;
  };
  forEachPod(({ pod }, where) => {
    for (const { name, resources } of all(pod)) {
      for (const [resource, wanted] of Object.entries(resources?.requests ?? {})) {
        const limit = resources?.limits?.[resource];
        if (limit !== undefined) assert.ok(amount(wanted) <= amount(limit), `${where}: ${name}`);
        if (resource.startsWith("hugepages-")) assert.equal(wanted, limit);
      }
    }
  });
});

test("every image has a fixed tag", () => {
  forEachPod(({ pod }, where) => {
    for (const { image = "" } of all(pod)) {
      assert.match(image, /^[a-z0-9./-]+(:[0-9]+)?[a-z0-9./-]*:v?[0-9][-a-z0-9.]*$/, where);
    }
  });
});

test("only io-engine and csi-node are privileged; everything else can gain nothing", () => {
  const privileged: string[] = [];
  forEachPod(({ pod }, where) => {
    for (const { name, securityContext: context } of all(pod)) {
      const what = `${where}: ${name}`;
      assert.ok(context, what);
      assert.equal(context.readOnlyRootFilesystem, true, what);
      if (context.privileged === true) {
        privileged.push(name);
        continue;
      }
      assert.equal(context.allowPrivilegeEscalation, false, what);
      assert.deepEqual(context.capabilities?.drop, ["ALL"], what);
      const added = context.capabilities?.add ?? [];
      if (name === "volume-permissions")
        assert.deepEqual(added, ["CHOWN", "DAC_OVERRIDE", "FOWNER"]);
      else assert.deepEqual(added, [], what);
    }
  });
  assert.deepEqual([...new Set(privileged)].sort(), ["csi-node", "io-engine"]);
});

test("only these containers run as root", () => {
  const root = new Set<string>();
  forEachPod(({ pod }) => {
    for (const { name, securityContext } of all(pod)) {
      const user = securityContext?.runAsUser ?? pod.securityContext?.runAsUser ?? 0;
      if (user === 0) root.add(name);
    }
  });
  assert.deepEqual([...root].sort(), [
    "csi-driver-registrar",
    "csi-node",
    "io-engine",
    "promtail",
    "volume-permissions",
  ]);
});

test("only these pods use the host's network, folders or more of it", () => {
  const network = new Set<string>();
  const folders = new Set<string>();
  forEachPod(({ object, pod }) => {
    const app = object.metadata.labels?.["app"] ?? "";
    if (pod.hostNetwork === true) network.add(app);
    if (pod.volumes?.some(({ hostPath }) => hostPath) === true) folders.add(app);
    assert.equal(pod.hostPID ?? pod.hostIPC ?? pod.shareProcessNamespace, undefined);
  });
  assert.deepEqual([...network].sort(), ["csi-controller", "csi-node", "io-engine"]);
  assert.deepEqual([...folders].sort(), ["csi-node", "io-engine", "promtail"]);
});

test("components default to installed only when their program is in this tree", () => {
  const root = path.resolve(import.meta.dirname, "..");
  const programs = {
    csi: ["agents/csi-controller/main.ts", "agents/csi-node/main.ts"],
    diskpoolOperator: ["agents/diskpool-operator/main.ts"],
    metricsExporter: ["agents/metrics-exporter/main.ts"],
  };
  const { components } = makeInstall({ version: "1.0.0" }).values;
  for (const name of ["csi", "diskpoolOperator", "metricsExporter"] as const) {
    if (!components[name]) continue;
    for (const file of programs[name]) assert.ok(existsSync(path.join(root, file)), file);
  }
});

test("without their component, nothing of csi, the operator or the exporter is installed", () => {
  const off = { csi: false, diskpoolOperator: false, metricsExporter: false };
  const install = makeInstall({
    values: [{ components: off, monitoring: { serviceMonitor: true, prometheusRule: true } }],
    version: "1.0.0",
  });
  const text = JSON.stringify([...synthesize(install).values()].flat());
  assert.doesNotMatch(text, /csi-|io\.openebs\.csi|diskpool|metrics-exporter|"ServiceMonitor"/);
});

test("io-engine's pod asks for as much as it may have, in every container, so that it keeps whole cores", () => {
  for (const { name, objects } of installs) {
    if (name === "kind") continue; // its nodes share the cores of one machine
    for (const { name: container, resources } of all(workload("mayastor-io-engine", objects).pod)) {
      assert.ok(resources?.limits?.["cpu"] && resources.limits["memory"], `${name}: ${container}`);
      assert.deepEqual(resources.requests, resources.limits, `${name}: ${container}`);
    }
  }
});

test("each port on the pod network names who may connect; only programs on the host's network need addresses", () => {
  const policies = (nodeCidrs: readonly string[]) =>
    new Map(
      [
        ...synthesize(
          makeInstall({ values: [{ networkPolicies: { nodeCidrs } }], version: "1" }),
        ).values(),
      ]
        .flat()
        .filter(({ kind }) => kind === "NetworkPolicy")
        .map((object) => [
          object.metadata.name,
          spec(object)["ingress"] as { from: unknown[]; ports: { port: number }[] }[] | undefined,
        ]),
    );
  const block = (cidr: string) => ({ ipBlock: { cidr } });
  const pods = (app: string) => ({
    podSelector: { matchLabels: { app, "openebs.io/release": "mayastor" } },
  });
  for (const [cidrs, blocks] of [
    [["10.1.0.0/16"], [block("10.1.0.0/16")]],
    [[], [block("0.0.0.0/0"), block("::/0")]],
  ] as const) {
    const found = policies(cidrs);
    assert.deepEqual(
      found.get("mayastor-etcd")?.map(({ from }) => from),
      [[pods("agent-core"), ...blocks], [pods("etcd")]],
    );
    assert.deepEqual(found.get("mayastor-agent-core")?.[0]?.from, [pods("api-rest"), ...blocks]);
    assert.deepEqual(found.get("mayastor-api-rest")?.[0]?.from, [
      pods("operator-diskpool"),
      ...blocks,
    ]);
    assert.deepEqual(found.get("mayastor-loki")?.[0]?.from, [
      { podSelector: {} },
      {
        namespaceSelector: {},
        podSelector: { matchLabels: { "app.kubernetes.io/name": "grafana" } },
      },
    ]);
    assert.equal(found.get("mayastor-operator-diskpool"), undefined);
  }
});
