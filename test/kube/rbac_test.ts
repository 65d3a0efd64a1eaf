/**
 * Least privilege, on a real API server: every right is used, every call that is needed is allowed, and nothing else.
 *
 * How it is known what is needed: our own programs run here, as they are deployed and with their own tokens, and each
 * call is written down; the programs of others cannot run here, so theirs are listed below, with where they say so.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { ControlPlane } from "../../hack/cluster/kube/control_plane.ts";
import { until } from "../../hack/cluster/local.ts";
import { ProcessTable } from "../../hack/cluster/process.ts";
import { accountsOf } from "../../infra/charts/rbac.ts";
import type { Account, Rule } from "../../infra/rbac/account.ts";
import { snapshotInstalls, synthesize } from "../../infra/snapshots.ts";
import { clearOnSignal } from "../support/interrupts.ts";
import { KubeApi, type Method, messageOf } from "../support/kube/api.ts";
import { CleanupStack } from "../support/kube/cleanup.ts";
import { kubectl, startControlPlane } from "../support/kube/plane.ts";
import { Program } from "../support/kube/programs.ts";
import { attributesOf, type RecordedCall } from "../support/kube/recorder.ts";
import { RestDouble } from "../support/kube/rest_double.ts";

const READ = ["get", "list", "watch"] as const;

type Documented = {
  readonly component: string;
  readonly program: string;
  readonly source: string;
  readonly calls: readonly (readonly [
    group: string,
    resource: string,
    verbs: readonly Rule["verbs"][number][],
  ])[];
};

/** What programs that are not ours call, with the features that our arguments switch on. */
const DOCUMENTED: readonly Documented[] = [
  {
    component: "csi-controller",
    program: "csi-provisioner v2.2.1",
    source:
      "kubernetes-csi/external-provisioner, deploy/kubernetes/rbac.yaml; without leader election, secrets and snapshots",
    calls: [
      ["", "persistentvolumes", [...READ, "create", "delete"]],
      ["", "persistentvolumeclaims", [...READ, "update"]],
      ["storage.k8s.io", "storageclasses", READ],
      ["", "events", ["create", "patch"]],
      ["storage.k8s.io", "csinodes", READ],
      ["", "nodes", READ],
      ["storage.k8s.io", "volumeattachments", READ],
    ],
  },
  {
    component: "csi-controller",
    program: "csi-attacher v3.2.1",
    source:
      "kubernetes-csi/external-attacher, deploy/kubernetes/rbac.yaml; without leader election and secrets",
    calls: [
      ["", "persistentvolumes", [...READ, "patch"]],
      ["storage.k8s.io", "csinodes", READ],
      ["storage.k8s.io", "volumeattachments", [...READ, "patch"]],
      ["storage.k8s.io", "volumeattachments/status", ["patch"]],
    ],
  },
  {
    component: "promtail",
    program: "promtail 2.6.1",
    source:
      "Prometheus documentation, kubernetes_sd_config, role pod: an informer lists and watches",
    calls: [["", "pods", ["list", "watch"]]],
  },
];
/** csi-node-driver-registrar, etcd, loki, busybox: they document no call to the API server. */

const METHODS: Readonly<Record<string, Method>> = {
  get: "GET",
  list: "GET",
  watch: "GET",
  create: "POST",
  update: "PUT",
  patch: "PATCH",
  delete: "DELETE",
  deletecollection: "DELETE",
};

/** One forbidden thing per line: what it would give to whoever steals the token. */
const FORBIDDEN: readonly (readonly [method: Method, at: string, body?: object])[] = [
  ["GET", "/api/v1/secrets"],
  ["GET", "/api/v1/namespaces/NS/secrets"],
  ["GET", "/api/v1/namespaces/kube-system/secrets"],
  ["POST", "/api/v1/namespaces/NS/secrets", { metadata: { name: "x" } }],
  ["GET", "/api/v1/namespaces/NS/configmaps"],
  ["PATCH", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", {}],
  ["GET", "/api/v1/namespaces"],
  ["PATCH", "/api/v1/namespaces/kube-system", { metadata: { labels: { a: "b" } } }],
  ["DELETE", "/api/v1/namespaces/NS"],
  ["GET", "/api/v1/pods"],
  ["GET", "/api/v1/namespaces/kube-system/pods"],
  ["POST", "/api/v1/namespaces/NS/pods", { metadata: { name: "x" } }],
  ["DELETE", "/api/v1/namespaces/NS/pods/x"],
  ["POST", "/api/v1/namespaces/NS/pods/x/exec?command=sh"],
  ["GET", "/api/v1/namespaces/NS/pods/x/log"],
  ["POST", "/api/v1/namespaces/NS/pods/x/eviction", {}],
  ["PATCH", "/api/v1/nodes/node-1", { metadata: { labels: { a: "b" } } }],
  ["DELETE", "/api/v1/nodes/node-1"],
  ["GET", "/api/v1/nodes/node-1/proxy/runningpods"],
  ["PATCH", "/api/v1/nodes/node-1/status", {}],
  ["POST", "/api/v1/namespaces/NS/serviceaccounts/mayastor-csi-controller/token", {}],
  ["POST", "/api/v1/namespaces/NS/services", { metadata: { name: "x" } }],
  ["PUT", "/api/v1/persistentvolumes/x", {}],
  ["POST", "/api/v1/namespaces/default/persistentvolumeclaims", {}],
  ["DELETE", "/api/v1/namespaces/default/persistentvolumeclaims/x"],
  ["PATCH", "/apis/apps/v1/namespaces/NS/deployments/mayastor-agent-core", {}],
  ["PATCH", "/apis/apps/v1/namespaces/NS/daemonsets/mayastor-io-engine", {}],
  ["DELETE", "/apis/apps/v1/namespaces/NS/statefulsets/mayastor-etcd"],
  ["PUT", "/apis/apps/v1/namespaces/NS/statefulsets/mayastor-etcd/scale", {}],
  ["POST", "/apis/batch/v1/namespaces/NS/jobs", {}],
  ["PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/mayastor-csi-controller", {}],
  ["POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {}],
  ["POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings", {}],
  ["DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/diskpools.openebs.io"],
  ["GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"],
  ["PUT", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/others.example.org", {}],
  ["DELETE", "/apis/openebs.io/v1alpha1/namespaces/NS/diskpools/x"],
  ["POST", "/apis/openebs.io/v1alpha1/namespaces/NS/diskpools", {}],
  ["GET", "/apis/openebs.io/v1alpha1/namespaces/default/diskpools"],
  ["GET", "/apis/openebs.io/v1alpha1/diskpools"],
  ["PATCH", "/apis/openebs.io/v1alpha1/namespaces/default/diskpools/x/status", {}],
  ["PUT", "/apis/coordination.k8s.io/v1/namespaces/NS/leases/another", {}],
  ["DELETE", "/apis/coordination.k8s.io/v1/namespaces/NS/leases/operator-diskpool"],
  ["POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", {}],
  ["POST", "/apis/storage.k8s.io/v1/volumeattachments", {}],
  ["DELETE", "/apis/storage.k8s.io/v1/volumeattachments/x"],
  ["DELETE", "/apis/storage.k8s.io/v1/csidrivers/io.openebs.csi-mayastor"],
  ["PATCH", "/apis/storage.k8s.io/v1/storageclasses/mayastor-single-replica", {}],
  ["POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {}],
  ["POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {}],
  ["POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {}],
  ["POST", "/apis/authentication.k8s.io/v1/tokenreviews", {}],
];

/** `verb group/resource[/name]` for each single right. */
type Right = string;
const right = (verb: string, group: string, resource: string, name: string | null = null): Right =>
  `${verb} ${group}/${resource}${name === null ? "" : ` ${name}`}`;
const rightsOf = (rules: readonly Rule[]): readonly Right[] =>
  rules.flatMap(({ group, resources, names = [null], verbs }) =>
    resources.flatMap((resource) =>
      names.flatMap((name) => verbs.map((verb) => right(verb, group, resource, name))),
    ),
  );

type ReviewedRule = {
  readonly verbs: readonly string[];
  readonly apiGroups?: readonly string[] | null;
  readonly resources?: readonly string[] | null;
  readonly resourceNames?: readonly string[] | null;
};

describe("rights on a real API server", { concurrency: false }, () => {
  const found = snapshotInstalls().get("everything");
  assert.ok(found);
  const install = found;
  const { namespace, release } = install;
  const accounts = accountsOf(install.values);
  const account = (component: string): Account => {
    const one = accounts.find((candidate) => candidate.component === component);
    assert.ok(one, component);
    return one;
  };
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-rbac-"));
  const processes = new ProcessTable(folder);
  clearOnSignal(folder);
  const rest = new RestDouble();
  /** Rights that were used, by component. */
  const used = new Map<string, Set<Right>>();
  const cleanup = new CleanupStack();
  let plane: ControlPlane;
  let admin: KubeApi;
  let restUrl: string;
  const clients = new Map<string, KubeApi>();
  const as = async (component: string) => {
    const known = clients.get(component);
    if (known !== undefined) return known;
    const made = new KubeApi(await plane.kubeconfigFor(namespace, `${release}-${component}`));
    clients.set(component, made);
    return made;
  };
  const use = (
    component: string,
    verb: string,
    group: string,
    resource: string,
    name: string | null,
  ) => {
    const rules = account(component);
    const set = used.get(component) ?? new Set();
    used.set(component, set);
    // A rule with names is used by a call that names; one without by any.
    const known = new Set(rightsOf([...rules.clusterRules, ...rules.namespaceRules]));
    const named = right(verb, group, resource, name);
    set.add(known.has(named) ? named : right(verb, group, resource));
  };
  const noteAll = (component: string, calls: readonly RecordedCall[]) => {
    for (const call of calls) {
      assert.notEqual(call.status, 403, `${component} is refused: ${call.verb} ${call.path}`);
      assert.notEqual(call.status, 401, `${component} is unknown: ${call.verb} ${call.path}`);
      use(component, call.verb, call.group, call.resource, call.name);
    }
  };

  before(
    async () => {
      plane = await startControlPlane(cleanup);
      admin = new KubeApi(plane.kubeconfig);
      restUrl = await rest.start();
      // Without the CRD: the operator is to make it.
      const charts = synthesize(install);
      for (const name of ["00-namespace", "15-rbac"]) {
        for (const object of charts.get(name) ?? []) {
          const at = await admin.pathOf(object);
          assert.ok(at !== null);
          await admin.must("PATCH", `${at}?fieldManager=installer`, {
            body: object,
            patch: "apply",
          });
        }
      }
    },
    { timeout: 300_000 },
  );
  after(async () => {
    await processes.endAll("SIGKILL");
    await rest.stop();
    await cleanup.run();
    rmSync(folder, { recursive: true, force: true });
  });

  const program = (
    t: { after(callback: () => unknown): void },
    name: string,
    main: string,
    args: readonly string[],
    env = {},
  ) =>
    Program.create(t, {
      ...{ plane, processes, folder, namespace, serviceAccount: `${release}-${name}` },
      ...{ name, main, args, env },
    });
  /** Waits until the program has made such a call and it was answered. */
  const untilCall = async (one: Program, verb: string, resource: string) => {
    try {
      await until(
        `${one.name}: ${verb} ${resource}`,
        async () =>
          one.recorder.answered().some((call) => call.verb === verb && call.resource === resource),
        { seconds: 60 },
      );
    } catch (error) {
      throw new Error(`${String(error)}\n${one.tail()}`);
    }
  };

  test("operator-diskpool's calls", { timeout: 240_000 }, async (t) => {
    const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const pools = `/apis/openebs.io/v1alpha1/namespaces/${namespace}/diskpools`;
    const operator = await program(t, "operator-diskpool", "agents/diskpool-operator/main.ts", [
      ...["-e", restUrl, `-n${namespace}`, "--interval=1s"],
    ]);
    operator.start();
    await untilCall(operator, "create", "customresourcedefinitions");
    await untilCall(operator, "create", "leases");
    await untilCall(operator, "watch", "diskpools");
    await admin.must("POST", pools, {
      body: {
        apiVersion: "openebs.io/v1alpha1",
        kind: "DiskPool",
        metadata: { name: "pool-1", namespace },
        spec: { node: "node-1", disks: ["/dev/sdb"] },
      },
    });
    await untilCall(operator, "create", "events");
    await untilCall(operator, "update", "leases");
    await until("pool-1 Online", async () => {
      const status = (await admin.find(`${pools}/pool-1`))?.["status"] as { state?: string };
      return status?.state === "Online";
    });
    await admin.must("DELETE", `${pools}/pool-1`);
    await until("pool-1 gone", async () => (await admin.find(`${pools}/pool-1`)) === null);
    assert.equal(rest.pools.size, 0, "the pool is destroyed");
    await operator.end();
    // An older CRD is brought up to date.
    const crd = await admin.must("GET", `${crds}/diskpools.openebs.io`);
    const { versions } = crd["spec"] as { versions: Record<string, unknown>[] };
    const older = versions.map((version) => ({ ...version, additionalPrinterColumns: [] }));
    await admin.must("PATCH", `${crds}/diskpools.openebs.io`, {
      body: { spec: { versions: older } },
    });
    operator.start();
    await untilCall(operator, "update", "customresourcedefinitions");
    await operator.end();
    noteAll("operator-diskpool", operator.recorder.calls);
  });

  test("csi-controller's calls", { timeout: 120_000 }, async (t) => {
    const controller = await program(t, "csi-controller", "agents/csi-controller/main.ts", [
      ...["--rest-endpoint", restUrl, "--csi-socket", path.join(folder, "csi.sock")],
    ]);
    controller.start();
    await untilCall(controller, "watch", "persistentvolumes");
    await controller.end();
    noteAll("csi-controller", controller.recorder.calls);
  });

  test("agent-core's calls", { timeout: 120_000 }, async (t) => {
    // No etcd there: the cluster's id is read before the store is used.
    const core = await program(t, "agent-core", "agents/core/main.ts", [
      ...["-s", "http://127.0.0.1:1", "-g", "127.0.0.1:0"],
    ]);
    core.start();
    await untilCall(core, "get", "namespaces");
    await core.end("SIGKILL");
    noteAll("agent-core", core.recorder.calls);
  });

  test("the documented calls of other programs are allowed", { timeout: 120_000 }, async () => {
    const kinds = await admin.discover();
    type Call = { component: string; program: string; group: string; resource: string };
    const make = async (of: Call, verb: Rule["verbs"][number]) => {
      const { component, group, resource } = of;
      const [plural = "", subresource] = resource.split("/");
      const served = kinds.find(
        (one) =>
          one.plural === plural &&
          (group === "" ? one.apiVersion === "v1" : one.apiVersion.startsWith(`${group}/`)),
      );
      assert.ok(served, resource);
      const where = component === "promtail" ? namespace : "default";
      const root = group === "" ? "/api/v1" : `/apis/${served.apiVersion}`;
      const at = `${root}${served.namespaced ? `/namespaces/${where}` : ""}/${plural}`;
      const isOne = ["get", "update", "patch", "delete"].includes(verb);
      const suffix = `${isOne ? "/no-such-object" : ""}${subresource ? `/${subresource}` : ""}`;
      const query = verb === "watch" ? "?watch=true&timeoutSeconds=1" : "";
      const method = METHODS[verb] ?? "GET";
      const body = ["POST", "PUT", "PATCH"].includes(method) ? { body: {} } : {};
      const api = await as(component);
      const { status, body: answer } = await api.call(method, at + suffix + query, body);
      assert.ok(
        status !== 401 && status !== 403,
        `${of.program} is refused: ${verb} ${resource}: ${messageOf(answer)}`,
      );
      use(component, verb, group, resource, null);
    };
    for (const { component } of DOCUMENTED) await as(component);
    // At once: a watch lasts its second, whatever it sees.
    await Promise.all(
      DOCUMENTED.flatMap(({ component, program: name, calls }) =>
        calls.flatMap(([group, resource, verbs]) =>
          verbs.map((verb) => make({ component, program: name, group, resource }, verb)),
        ),
      ),
    );
  });

  test("every right is used, every use has its right", () => {
    for (const { component, clusterRules, namespaceRules } of accounts) {
      const given = new Set(rightsOf([...clusterRules, ...namespaceRules]));
      const made = used.get(component) ?? new Set();
      assert.deepEqual(
        [...given].filter((one) => !made.has(one)),
        [],
        `${component}: never used`,
      );
      assert.deepEqual(
        [...made].filter((one) => !given.has(one)),
        [],
        `${component}: not in rules`,
      );
    }
  });

  test("the API server grants exactly the rules", { timeout: 120_000 }, async () => {
    const nobody = {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "nobody", namespace },
    };
    await admin.must("POST", `/api/v1/namespaces/${namespace}/serviceaccounts`, { body: nobody });
    const granted = async (api: KubeApi, where: string): Promise<readonly Right[]> => {
      const review = await api.must(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        {
          body: {
            apiVersion: "authorization.k8s.io/v1",
            kind: "SelfSubjectRulesReview",
            spec: { namespace: where },
          },
        },
      );
      const { resourceRules, incomplete } = review["status"] as {
        resourceRules: ReviewedRule[];
        incomplete: boolean;
      };
      assert.equal(incomplete, false);
      return resourceRules.flatMap(({ verbs, apiGroups, resources, resourceNames }) =>
        (apiGroups ?? []).flatMap((group) =>
          (resources ?? []).flatMap((resource) =>
            (resourceNames?.length ? resourceNames : [null]).flatMap((name) =>
              verbs.map((verb) => right(verb, group, resource, name)),
            ),
          ),
        ),
      );
    };
    const none = new KubeApi(await plane.kubeconfigFor(namespace, "nobody"));
    for (const where of [namespace, "default", "kube-system"]) {
      const everyone = new Set(await granted(none, where));
      for (const { component, clusterRules, namespaceRules } of accounts) {
        const rules = where === namespace ? [...clusterRules, ...namespaceRules] : clusterRules;
        const got = (await granted(await as(component), where)).filter((one) => !everyone.has(one));
        assert.deepEqual([...new Set(got)].sort(), [...new Set(rightsOf(rules))].sort(), component);
      }
    }
  });

  test("what a component does not need is refused", { timeout: 120_000 }, async () => {
    const allowed = (
      { clusterRules, namespaceRules }: Account,
      method: Method,
      at: string,
    ): boolean => {
      const wanted = attributesOf(method, at);
      assert.ok(wanted, at);
      const rules =
        wanted.namespace === namespace ? [...clusterRules, ...namespaceRules] : clusterRules;
      const rights = new Set(rightsOf(rules));
      const { verb, group, resource, name } = wanted;
      return (
        rights.has(right(verb, group, resource)) || rights.has(right(verb, group, resource, name))
      );
    };
    for (const one of accounts) {
      const api = await as(one.component);
      let refused = 0;
      for (const [method, template, body] of FORBIDDEN) {
        const at = template.replaceAll("NS", namespace);
        if (allowed(one, method, at)) continue;
        const { status } = await api.call(method, at, body === undefined ? {} : { body });
        assert.equal(status, 403, `${one.component}: ${method} ${at}`);
        refused += 1;
      }
      assert.ok(refused > 50, `${one.component}: only ${refused} refused`);
    }
    // Nobody speaks for another.
    const file = await plane.kubeconfigFor(namespace, `${release}-csi-controller`);
    const { code, stderr } = await kubectl(plane, ["get", "--raw", "/api/v1/nodes", "--as=admin"], {
      kubeconfig: file,
    });
    assert.equal(code, 1);
    assert.match(stderr, /cannot impersonate resource "users"/);
  });
});
