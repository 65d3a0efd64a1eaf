/** What single components are told: arguments, ports, environment, strategies. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { engineCores } from "./charts/io_engine.ts";
import { defaultValues, makeInstall } from "./config.ts";
import { synthesize } from "./snapshots.ts";
import { container, everything, installs, spec, title, workload } from "./testing/installs.ts";

test("io-engine has the published arguments, environment, port and strategy", () => {
  const { object, pod } = workload("mayastor-io-engine");
  const engine = container("mayastor-io-engine", "io-engine");
  assert.deepEqual(engine.args, [
    "-g$(MY_POD_IP)",
    "-N$(MY_NODE_NAME)",
    "-Rhttps://mayastor-agent-core:50051",
    "-y/var/local/io-engine/config.yaml",
    "-l2,3,6",
    "-p=mayastor-etcd:2379",
    "--ptpl-dir=/var/local/io-engine/ptpl/",
    "--api-versions=v1",
    "-T=name:eth0",
    "--reactor-freeze-detection",
  ]);
  assert.deepEqual(engine.command, ["io-engine"]);
  assert.deepEqual(engine.ports, [{ name: "io-engine", containerPort: 10124, protocol: "TCP" }]);
  assert.equal(engine.resources?.limits?.["cpu"], "3", "one for each listed core");
  assert.equal(engine.livenessProbe, undefined, "a restart drops a nexus");
  assert.deepEqual(spec(object)["updateStrategy"], { type: "OnDelete" });
  assert.equal(pod.dnsPolicy, "ClusterFirstWithHostNet");
  assert.deepEqual(
    pod.initContainers?.map(({ name }) => name),
    ["agent-core-grpc-probe", "etcd-probe"],
  );
  assert.deepEqual(pod.nodeSelector, {
    "kubernetes.io/arch": "amd64",
    "openebs.io/engine": "mayastor",
  });
});

test("io-engine gets hugepages only when they are configured", () => {
  const plain = [...synthesize(makeInstall({ version: "1.0.0" })).values()].flat();
  const without = workload("mayastor-io-engine", plain);
  assert.doesNotMatch(JSON.stringify(without.pod), /huge/i);
  const pod = workload("mayastor-io-engine").pod;
  assert.equal(
    container("mayastor-io-engine", "io-engine").resources?.limits?.["hugepages-2Mi"],
    "2Gi",
  );
  assert.ok(pod.volumes?.some(({ emptyDir }) => emptyDir?.medium === "HugePages"));
});

test("engineCores() leaves core 0 alone unless it is listed", () => {
  const cores = (io_engine: object) =>
    engineCores(makeInstall({ values: [{ io_engine }], version: "1" }).values);
  assert.deepEqual(cores({}), [1, 2]);
  assert.deepEqual(cores({ cpuCount: 3 }), [1, 2, 3]);
  assert.deepEqual(cores({ cpuCount: 3, coreList: [0, 5] }), [0, 5]);
});

test("agent-core has the published arguments and yields its lease before a new one starts", () => {
  const { object, pod } = workload("mayastor-agent-core");
  assert.deepEqual(container("mayastor-agent-core", "agent-core").args, [
    "-smayastor-etcd:2379",
    "--request-timeout=5s",
    "--cache-period=30s",
    "--grpc-server-addr=0.0.0.0:50051",
    "--pool-commitment=250%",
    "--volume-commitment-initial=40%",
    "--volume-commitment=40%",
    "--faulted-child-wait-period=300s",
  ]);
  assert.deepEqual(spec(object)["strategy"], { type: "Recreate" });
  assert.equal(pod.priorityClassName, "mayastor-cluster-critical");
  assert.deepEqual(
    pod.tolerations?.map(({ tolerationSeconds }) => tolerationSeconds),
    [5, 5],
  );
});

test("api-rest has the published arguments and node ports", () => {
  assert.deepEqual(container("mayastor-api-rest", "api-rest").args, [
    "--dummy-certificates",
    "--no-auth",
    "--http=0.0.0.0:8081",
    "--request-timeout=5s",
    "--core-grpc=https://mayastor-agent-core:50051",
  ]);
  const service = everything.objects.find(
    ({ kind, metadata }) => kind === "Service" && metadata.name === "mayastor-api-rest",
  );
  assert.ok(service);
  assert.deepEqual(spec(service)["ports"], [
    { name: "https", port: 8080, targetPort: 8080, protocol: "TCP", nodePort: 30010 },
    { name: "http", port: 8081, targetPort: 8081, protocol: "TCP", nodePort: 30011 },
  ]);
});

test("csi-controller and csi-node have the published arguments and mounts", () => {
  assert.deepEqual(container("mayastor-csi-controller", "csi-controller").args, [
    "--csi-socket=/var/lib/csi/sockets/pluginproxy/csi.sock",
    "--rest-endpoint=http://mayastor-api-rest:8081",
    "--node-selector=openebs.io/csi-node=mayastor",
  ]);
  const provisioner = container("mayastor-csi-controller", "csi-provisioner");
  assert.ok(provisioner.args?.includes("--extra-create-metadata"));
  assert.deepEqual(container("mayastor-csi-node", "csi-node").args, [
    "--csi-socket=/csi/csi.sock",
    "--node-name=$(MY_NODE_NAME)",
    "--grpc-endpoint=$(MY_POD_IP):10199",
    "--rest-endpoint=http://mayastor-api-rest:8081",
    "--nvme-core-io-timeout=30",
    "--nvme-ctrl-loss-tmo=1980",
    "--nvme-nr-io-queues=3",
    "--node-selector=openebs.io/csi-node=mayastor",
  ]);
  assert.deepEqual(container("mayastor-csi-node", "csi-driver-registrar").args, [
    "--csi-address=/csi/csi.sock",
    "--kubelet-registration-path=/var/lib/kubelet/plugins/io.openebs.mayastor/csi.sock",
  ]);
  const { pod } = workload("mayastor-csi-node");
  assert.equal(pod.dnsPolicy, "ClusterFirstWithHostNet", "it asks api-rest by name");
  const kubelet = container("mayastor-csi-node", "csi-node").volumeMounts?.find(
    ({ name }) => name === "kubelet-dir",
  );
  assert.equal(kubelet?.mountPropagation, "Bidirectional");
  assert.equal(kubelet?.mountPath, "/var/lib/kubelet");
});

test("another kubelet folder is used wherever the kubelet's files are", () => {
  const kubeletDir = "/opt/kubelet";
  const install = makeInstall({
    values: [{ components: { csi: true }, csi: { node: { kubeletDir } } }],
    version: "1.0.0",
  });
  const objects = [...synthesize(install).values()].flat();
  const text = JSON.stringify(workload("mayastor-csi-node", objects).pod);
  assert.doesNotMatch(text, /\/var\/lib\/kubelet/);
  assert.match(text, /\/opt\/kubelet\/plugins\/io\.openebs\.mayastor\/csi\.sock/);
});

test("etcd's members are told of each other by the names of the headless Service", () => {
  const env = container("mayastor-etcd", "etcd").env ?? [];
  const value = (name: string) => env.find((one) => one.name === name)?.value;
  const host = (index: number) =>
    `http://mayastor-etcd-${index}.mayastor-etcd-headless.mayastor.svc.cluster.local:2380`;
  assert.equal(
    value("ETCD_INITIAL_CLUSTER"),
    [0, 1, 2].map((index) => `mayastor-etcd-${index}=${host(index)}`).join(","),
  );
  assert.ok(
    env.findIndex(({ name }) => name === "MY_POD_NAME") <
      env.findIndex(({ name }) => name === "ETCD_NAME"),
  );
  assert.equal(value("ETCD_QUOTA_BACKEND_BYTES"), "8589934592");
  const { object } = workload("mayastor-etcd");
  assert.equal(spec(object)["serviceName"], "mayastor-etcd-headless");
  assert.doesNotMatch(JSON.stringify(spec(object)["volumeClaimTemplates"]), /version/);
});

test("the disruption budget of etcd keeps a quorum", () => {
  for (const [replicaCount, minAvailable] of [
    [3, 2],
    [5, 3],
  ] as const) {
    const install = makeInstall({ values: [{ etcd: { replicaCount } }], version: "1.0.0" });
    const budget = [...synthesize(install).values()]
      .flat()
      .find(
        ({ kind, metadata }) => kind === "PodDisruptionBudget" && metadata.name === "mayastor-etcd",
      );
    assert.ok(budget);
    assert.equal(spec(budget)["minAvailable"], minAvailable);
  }
});

test("a single pod has no disruption budget, so that its node can be drained", () => {
  const [single] = installs.filter(({ name }) => name === "single-node");
  assert.deepEqual(
    single?.objects.filter(({ kind }) => kind === "PodDisruptionBudget"),
    [],
  );
});

test("the published storage class has its parameters; others have what they were given", () => {
  const parameters = (name: string) =>
    everything.objects.find(
      ({ kind, metadata }) => kind === "StorageClass" && metadata.name === name,
    )?.["parameters"];
  assert.deepEqual(parameters("mayastor-single-replica"), {
    ioTimeout: "60",
    protocol: "nvmf",
    repl: "1",
  });
  assert.deepEqual(parameters("mayastor-3"), {
    fsType: "xfs",
    ioTimeout: "30",
    protocol: "nvmf",
    repl: "3",
    thin: "true",
  });
});

test("only known addresses reach the open ports once node addresses are given", () => {
  const policies = everything.objects.filter(({ kind }) => kind === "NetworkPolicy");
  assert.equal(policies.length, 6);
  for (const policy of policies) {
    const { ingress = [], policyTypes } = spec(policy) as {
      ingress?: { from?: unknown[] }[];
      policyTypes: string[];
    };
    assert.deepEqual(policyTypes, ["Ingress"]);
    for (const { from } of ingress) assert.ok(from && from.length > 0, title(policy));
  }
});

test("defaultValues() is what an empty configuration gives", () => {
  assert.deepEqual(makeInstall({ version: "1.0.0" }).values, defaultValues());
});
