/**
 * What the other tests of a cluster rely on: nodes, pods, Services and names are real, a node can be cut off, lost and
 * brought back, and stop() leaves nothing of it on the machine.
 * Invariant: the checks leave the cluster as they found it, apart from the nodes' own folder for them.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import type { KubeCluster } from "../../../hack/cluster/kube/cluster.ts";
import { type NamespaceKind, namespaceOf, run } from "../../../hack/cluster/kube/run.ts";
import { cgroupPrefix, cgroupsOf, childrenOf } from "../../../hack/cluster/kube/state.ts";
import { until } from "../../../hack/cluster/local.ts";
import { startTicks } from "../../../hack/cluster/process.ts";

type Log = (line: string) => void;

const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(1);
/** Kernel settings that a kubelet or kube-proxy changes on a machine of its own. */
const SETTINGS = [
  ...["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"],
  ...["kernel/keys/root_maxkeys", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"],
];

export const kernelSettings = () =>
  SETTINGS.map((name) => path.join("/proc/sys", name))
    .filter((file) => existsSync(file))
    .map((file) => `${file} ${readFileSync(file, "utf8").trim()}`);

/**
 * Processes in a namespace, with their commands: none is left when it has ended. Not those that have ended and that
 * the machine's first process has yet to take note of: they still have their process namespace.
 */
function processesIn(kind: NamespaceKind, namespaces: ReadonlySet<string>): string[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && namespaces.has(namespaceOf(pid, kind) ?? ""))
    .filter((pid) => startTicks(pid) !== null)
    .map((pid) => `${pid} ${commandOf(pid)}`);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "(ended meanwhile)";
  }
}

function connects(address: string, port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: address, port, timeout: timeoutMs });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once("connect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
  });
}

function web(image: string): string {
  const script =
    "mkdir -p /tmp/web && hostname > /tmp/web/index.html && echo started by $(hostname) && hostname >> /data/starts && exec busybox httpd -f -p 8080 -h /tmp/web";
  const labels = { app: "web" };
  const ports = [{ name: "http", port: 80, targetPort: 8080 }];
  const affinity = {
    podAntiAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: [
        { labelSelector: { matchLabels: labels }, topologyKey: "kubernetes.io/hostname" },
      ],
    },
  };
  const container = {
    ...{ name: "web", image, command: ["sh", "-c", script] },
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
    volumeMounts: [{ name: "data", mountPath: "/data" }],
  };
  const data = { path: "/var/local/kube-test", type: "DirectoryOrCreate" };
  const template = {
    metadata: { labels },
    spec: {
      ...{ affinity, containers: [container], terminationGracePeriodSeconds: 1 },
      volumes: [{ name: "data", hostPath: data }],
    },
  };
  const service = (name: string, more: object) => ({
    ...{ apiVersion: "v1", kind: "Service", metadata: { name } },
    spec: { selector: labels, ports, ...more },
  });
  return JSON.stringify({
    ...{ apiVersion: "v1", kind: "List" },
    items: [
      service("web", {}),
      service("web-headless", { clusterIP: "None" }),
      {
        ...{ apiVersion: "apps/v1", kind: "StatefulSet", metadata: { name: "web" } },
        spec: {
          ...{ serviceName: "web-headless", replicas: 2, podManagementPolicy: "Parallel" },
          ...{ selector: { matchLabels: labels }, template },
        },
      },
    ],
  });
}

/** The checks in their order: each stands on what the one before has left. */
export function clusterChecks(
  cluster: KubeCluster,
  { busybox, log }: { readonly busybox: string; readonly log: Log },
): readonly { readonly name: string; run(): Promise<void> }[] {
  const kubectl = (...args: string[]) => cluster.controlPlane.kubectl(args);
  const serving = async () => {
    await kubectl("wait", "--for=condition=Ready", "pod/web-0", "pod/web-1", "--timeout=100s");
  };
  const inWeb0 = (...command: string[]) => kubectl("exec", "web-0", "--", ...command);

  return [
    {
      name: "all nodes are Ready, labelled, and know their addresses",
      run: async () => {
        assert.deepEqual([...(await cluster.readiness()).values()], ["True", "True", "True"]);
        const listed = await kubectl(
          "get",
          "nodes",
          "-l",
          "openebs.io/engine=mayastor",
          "-o",
          "wide",
        );
        for (const { name, address } of cluster.nodes) {
          assert.match(
            listed,
            new RegExp(`${name} .* v1\\.20\\.2 +${address.replaceAll(".", "\\.")} `),
          );
        }
      },
    },
    {
      name: "pods run, are read, and reach each other by name from everywhere",
      run: async () => {
        const started = performance.now();
        await cluster.controlPlane.kubectl(["apply", "-f", "-"], { input: web(busybox) });
        await until("both pods", async () => (await kubectl("get", "pods")).includes("web-1"));
        await serving();
        log(`pods serve after ${seconds(started)} s`);
        assert.equal(await kubectl("logs", "web-0"), "started by web-0\n");
        assert.equal(await inWeb0("hostname"), "web-0\n");
        // The endpoints, kube-proxy's rules and the names follow within moments of readiness.
        await until("the Service", async () => {
          const answers = new Set<string>();
          for (let turn = 0; turn < 12; turn++)
            answers.add(await inWeb0("wget", "-qO-", "http://web"));
          return answers.size === 2;
        });
        for (const host of [
          "web-1.web-headless:8080",
          "web-1.web-headless.default.svc.cluster.local:8080",
        ])
          assert.equal(await inWeb0("wget", "-qO-", `http://${host}`), "web-1\n");
        const ip = await kubectl("get", "pod", "web-1", "-o", "jsonpath={.status.podIP}");
        assert.equal(await (await fetch(`http://${ip}:8080`)).text(), "web-1\n");
        const clusterIp = await kubectl(
          "get",
          "service",
          "web",
          "-o",
          "jsonpath={.spec.clusterIP}",
        );
        for (const node of cluster.nodes)
          assert.match(await node.exec(["curl", "-sS", `http://${clusterIp}`]), /^web-[01]\n$/);
        await assert.rejects(
          inWeb0("wget", "-qO-", "http://no-such-service"),
          /bad address|resolve/,
        );
      },
    },
    {
      name: "the API server is restarted under the pods",
      run: async () => {
        await cluster.controlPlane.restartApiServer();
        // The old ones may take half a minute to watch again. With a short grace they then take every node for lost,
        // and 1.20 comes out of that without ever evicting from a lost node again.
        await cluster.controlPlane.restartControllers();
        await cluster.untilReady();
        assert.equal(await inWeb0("hostname"), "web-0\n");
      },
    },
    {
      name: "containerd and kubelet are restarted under the pods",
      run: async () => {
        const node = cluster.node(
          await kubectl("get", "pod", "web-0", "-o", "jsonpath={.spec.nodeName}"),
        );
        await node.stopKubelet();
        await node.stopContainerd();
        node.startContainerd();
        node.startKubelet();
        await until("exec to work again", () => inWeb0("hostname"), { seconds: 60 });
        const restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
        assert.equal(await kubectl("get", "pod", "web-0", "-o", restarts), "0");
      },
    },
    {
      name: "a node without its cable is silent and comes back",
      run: async () => {
        const [node] = cluster.nodes;
        assert.ok(node);
        assert.equal(await connects(node.address, 10250, 5000), true);
        await node.cutNetwork();
        assert.equal(await connects(node.address, 10250, 1000), false);
        await node.mendNetwork();
        await until("the node to answer", () => connects(node.address, 10250, 1000));
      },
    },
    {
      name: "a lost node becomes NotReady, comes back, and has kept its disk",
      run: async () => {
        const name = await kubectl("get", "pod", "web-1", "-o", "jsonpath={.spec.nodeName}");
        const node = cluster.node(name);
        assert.equal(await node.exec(["cat", "/var/local/kube-test/starts"]), "web-1\n");
        assert.equal(existsSync("/var/local/kube-test"), false, "the host's own folder");
        const lost = performance.now();
        await node.stop();
        log(`${name} stopped after ${seconds(lost)} s`);
        await assert.rejects(node.exec(["true"]), /the node is stopped/);
        const ready = async () => (await cluster.readiness()).get(name);
        await until(`${name} NotReady`, async () => (await ready()) === "Unknown", {
          seconds: 120,
        });
        log(`${name} NotReady after ${seconds(lost)} s`);
        assert.equal(await inWeb0("hostname"), "web-0\n");
        const back = performance.now();
        await node.start();
        await cluster.untilReady();
        log(`${name} Ready again after ${seconds(back)} s`);
        await until(
          "the pod to run again",
          async () => {
            const starts = await node.exec(["cat", "/var/local/kube-test/starts"]);
            return starts === "web-1\nweb-1\n";
          },
          { seconds: 120 },
        );
        await serving();
        const answer = () =>
          inWeb0("timeout", "3", "wget", "-qO-", "http://web-1.web-headless:8080");
        await until("its name to lead to it again", async () => (await answer()) === "web-1\n");
      },
    },
    {
      name: "what is deleted is gone",
      run: async () => {
        await kubectl("delete", "statefulset/web", "service/web", "service/web-headless");
        const pods = () => kubectl("get", "pods", "--ignore-not-found", "-o", "name");
        await until("the pods gone", async () => (await pods()).trim() === "", { seconds: 60 });
      },
    },
  ];
}

/**
 * Ends the cluster and looks for processes, mounts, cgroups, links, settings and folders of it.
 * @param settingsBefore kernelSettings() from before its start
 */
export async function checkStopped(
  cluster: KubeCluster,
  { settingsBefore, log }: { readonly settingsBefore: readonly string[]; readonly log: Log },
): Promise<void> {
  const { folder, controlPlane } = cluster;
  const { host } = cluster.network.addresses;
  assert.match(await run(["ip", "-o", "address"]), new RegExp(` ${host}/`));
  const { processes } = controlPlane;
  const inside = processes.names.map((name) => processes.pid(name) ?? 0);
  const kinds = ["net", "mnt", "pid"] as const;
  const all = [...inside, ...inside.flatMap(childrenOf)].filter((pid) => pid > 0);
  const namespaces = kinds.map((kind) => {
    const own = namespaceOf("self", kind);
    const found = all.map((pid) => namespaceOf(pid, kind)).filter((each) => each !== null);
    return [kind, new Set(found.filter((each) => each !== own))] as const;
  });
  for (const [kind, found] of namespaces) assert.ok(found.size >= 3, `${kind}: ${found.size}`);
  const started = performance.now();
  await cluster.stop();
  log(`stopped after ${seconds(started)} s`);
  for (const [kind, found] of namespaces) assert.deepEqual(processesIn(kind, found), []);
  const prefix = cgroupPrefix(folder);
  assert.deepEqual(
    cgroupsOf((name) => name.startsWith(prefix)),
    [],
  );
  assert.equal(readFileSync("/proc/self/mountinfo", "utf8").includes(folder), false);
  assert.doesNotMatch(await run(["ip", "-o", "address"]), new RegExp(` ${host}/`));
  assert.equal(existsSync(folder), false);
  assert.deepEqual(kernelSettings(), settingsBefore);
}
