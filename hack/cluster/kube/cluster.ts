/**
 * A real Kubernetes cluster on one machine: a control plane and N nodes, each in namespaces of its own, with DNS.
 *
 * Why: our manifests, images and agents run as they would anywhere: real scheduling, pods, Services, volumes of hosts,
 * node loss. Not there: a way out of the cluster, image pulls (images are given as tars), enforced NetworkPolicy.
 * Invariants: everything is in one folder and ends with stop(), a signal, or the next start after a crash; nothing of
 * the host is changed but one link with its routes, which goes with the cluster.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { until } from "../local.ts";
import { ProcessTable } from "../process.ts";
import { ensureKubeBinaries } from "./binaries.ts";
import { ControlPlane } from "./control_plane.ts";
import { importTemplate } from "./images.ts";
import { addressesOf, CLUSTERS_MAX, isTaken, Network, NODES_MAX } from "./network.ts";
import { DNS_SERVICE_IP, KubeNode } from "./node.ts";
import { OVERLAYS, PAUSE_IMAGE } from "./node_files.ts";
import { kubeconfig } from "./pki.ts";
import { run } from "./run.ts";
import { cgroupPrefix, claim, clear, clearStale, stateRoot, stopOnSignal } from "./state.ts";

const root = path.resolve(import.meta.dirname, "..", "..", "..");
const DNS = "dns";
const READY_SECONDS = 240;
const PORTS = { api: 6443, etcd: 2379, etcdPeer: 2380, controllerManager: 10257, scheduler: 10259 };

/** What must be installed, by what it is needed for. */
const NEEDS: readonly (readonly [file: string, debianPackage: string])[] = [
  ["/usr/bin/containerd", "containerd"],
  ["/usr/sbin/runc", "runc"],
  ["/usr/lib/cni/bridge", "containernetworking-plugins"],
  ["/usr/sbin/iptables", "iptables"],
  ["/usr/sbin/conntrack", "conntrack"],
  ["/usr/bin/ip", "iproute2"],
  ["/usr/bin/etcd", "etcd-server"],
  ["/usr/bin/etcdctl", "etcd-client"],
  ["/usr/bin/openssl", "openssl"],
  ["/usr/bin/nsenter", "util-linux"],
];

/** Why this machine cannot run a cluster, with what to do; null when it can. */
export function whyNoCluster(): string | null {
  if (process.getuid?.() !== 0) return "it takes root (namespaces, mounts); next: run as root";
  const missing = NEEDS.filter(([file]) => !existsSync(file)).map(([, name]) => name);
  if (missing.length > 0)
    return `programs are missing; next: apt-get install --no-install-recommends ${missing.join(" ")}`;
  if (!existsSync("/sys/fs/cgroup/memory/cgroup.procs"))
    return "Kubernetes 1.20 as set up here needs cgroups of version 1; next: boot with systemd.unified_cgroup_hierarchy=0";
  if (OVERLAYS.some((top) => stateRoot().startsWith(`/${top}/`)))
    return `its state may not be below ${OVERLAYS.map((top) => `/${top}`).join(", ")}; next: set TMPDIR`;
  return null;
}

export interface KubeClusterOptions {
  readonly nodes: number;
  /** docker-archive tars; among them the pause image. */
  readonly images: readonly string[];
  readonly log?: (line: string) => void;
  /** The cluster outlives this process. */
  readonly kept?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  readonly apiServerArgs?: readonly string[];
  readonly nodeMonitorGraceSeconds?: number;
}

interface NodeList {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly status: {
      readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    };
  }[];
}

export class KubeCluster {
  readonly folder: string;
  readonly controlPlane: ControlPlane;
  readonly nodes: readonly KubeNode[];
  readonly network: Network;
  #forget: () => void = () => {};

  private constructor(
    folder: string,
    parts: { controlPlane: ControlPlane; nodes: readonly KubeNode[]; network: Network },
  ) {
    this.folder = folder;
    this.controlPlane = parts.controlPlane;
    this.nodes = parts.nodes;
    this.network = parts.network;
  }

  /** Starts everything and waits until all nodes are Ready and names are answered. */
  static async start(options: KubeClusterOptions): Promise<KubeCluster> {
    const { log = () => {} } = options;
    if (!Number.isInteger(options.nodes) || options.nodes < 1 || options.nodes > NODES_MAX)
      throw new Error(`Cannot start a cluster of ${options.nodes} nodes: 1 to ${NODES_MAX} work`);
    const why = whyNoCluster();
    if (why !== null) throw new Error(`Cannot start a cluster: ${why}`);
    await ensureKubeBinaries(log);
    const cleared = await clearStale();
    if (cleared.length > 0) log(`cleared what an earlier run left: ${cleared.join(", ")}`);
    const { cluster, folder } = claimCluster(options.kept ?? false);
    const forget = stopOnSignal(() => clear(folder));
    try {
      const started = await KubeCluster.#start(cluster, folder, options);
      if (options.kept) forget();
      else started.#forget = forget;
      return started;
    } catch (error) {
      const table = new ProcessTable(folder);
      const tails = table.ended.map((name) => `--- ${name} ended:\n${table.logTail(name)}`);
      forget();
      await clear(folder);
      throw new Error([String(error), ...tails].join("\n"), { cause: error });
    }
  }

  static async #start(
    cluster: number,
    folder: string,
    options: KubeClusterOptions,
  ): Promise<KubeCluster> {
    const { log = () => {}, labels = { "openebs.io/engine": "mayastor" } } = options;
    const started = performance.now();
    const say = (line: string) =>
      log(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${line}`);
    const processes = new ProcessTable(folder);
    const network = await Network.create(cluster, processes);
    const address = addressesOf(cluster).controlPlane;
    const place = { folder, enter: network.enter, address, ports: PORTS };
    const template = path.join(folder, "images");
    const extra = {
      ...(options.apiServerArgs === undefined ? {} : { apiServerArgs: options.apiServerArgs }),
      ...(options.nodeMonitorGraceSeconds === undefined
        ? {}
        : { nodeMonitorGraceSeconds: options.nodeMonitorGraceSeconds }),
    };
    // One table for all: it is the record of what to end.
    const importing = importTemplate(template, options.images, processes).then((references) => {
      if (!references.includes(PAUSE_IMAGE)) {
        throw new Error(
          `Cannot start nodes: no image given is ${PAUSE_IMAGE}; found ${references.join(", ") || "none"}`,
        );
      }
      say(`${references.length} images unpacked`);
    });
    const planeStarting = ControlPlane.start({ log, place, processes, ...extra }).then((plane) => {
      say("control plane ready");
      return plane;
    });
    const [controlPlane] = await Promise.all([planeStarting, importing]);
    const { pki, server, binaries } = controlPlane;
    const numbers = Array.from({ length: options.nodes }, (_, index) => index + 1);
    const context = {
      ...{ binaries, network, processes, server, numbers, labels },
      caFile: pki.ca.cert,
      cgroupPrefix: cgroupPrefix(folder),
    };
    const proxy = await pki.issue("kube-proxy", { commonName: "system:kube-proxy" });
    const proxyConfig = kubeconfig(server, pki.ca.cert, proxy);
    const nodes = numbers.map(
      (number) => new KubeNode(number, path.join(folder, `node-${number}`), context),
    );
    const made = new KubeCluster(folder, { controlPlane, nodes, network });
    const dns = made.#startDns(processes);
    await Promise.all(
      nodes.map(async (node) => {
        await node.prepare(pki, proxyConfig, template);
        await node.start();
      }),
    );
    say("kubelets started");
    await Promise.all([dns, made.untilReady()]);
    say("nodes ready");
    return made;
  }

  /** kube-dns: a Service without a selector in front of the DNS server beside the control plane. */
  async #startDns(processes: ProcessTable): Promise<void> {
    const { address, enter } = this.controlPlane.place;
    processes.start(
      DNS,
      [
        ...[...enter, process.execPath, "--import", "tsx"],
        ...[path.join(import.meta.dirname, "dns_main.ts")],
        ...[`--kubeconfig=${this.controlPlane.kubeconfig}`, `--listen=${address}`],
      ],
      { cwd: root },
    );
    const ports = ["UDP", "TCP"].map((protocol) => ({
      ...{ name: protocol === "UDP" ? "dns" : "dns-tcp", port: 53, protocol },
    }));
    const metadata = { name: "kube-dns", namespace: "kube-system" };
    const objects = [
      { apiVersion: "v1", kind: "Service", metadata, spec: { clusterIP: DNS_SERVICE_IP, ports } },
      {
        ...{ apiVersion: "v1", kind: "Endpoints", metadata },
        subsets: [{ addresses: [{ ip: address }], ports }],
      },
    ];
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
    await this.controlPlane.kubectl(["apply", "-f", "-"], { input: list });
    await until(
      "the cluster's DNS to answer",
      async () => {
        if (!processes.isAlive(DNS)) throw new Error(`it ended:\n${processes.logTail(DNS)}`);
        const resolver = `const {Resolver} = require("node:dns").promises; const r = new Resolver({timeout: 1000, tries: 1}); r.setServers(["${address}"]); r.resolve4("kubernetes.default.svc.cluster.local").then((a) => console.log(a[0]))`;
        return (await run([...enter, process.execPath, "-e", resolver])).trim() === "10.96.0.1";
      },
      { seconds: 60, everyMs: 300 },
    );
  }

  node(name: string): KubeNode {
    const found = this.nodes.find((node) => node.name === name);
    if (found === undefined) throw new Error(`Cannot find ${name}: there is no such node`);
    return found;
  }

  /** The condition Ready of each node: `True`, `False`, `Unknown`, or `absent`. */
  async readiness(): Promise<ReadonlyMap<string, string>> {
    const list = (await this.controlPlane.client.get("/api/v1/nodes", {
      signal: AbortSignal.timeout(10_000),
    })) as NodeList; // the API server's own schema
    const seen = new Map(
      list.items.map(({ metadata, status }) => [
        metadata.name,
        status.conditions?.find(({ type }) => type === "Ready")?.status ?? "absent",
      ]),
    );
    return new Map(this.nodes.map(({ name }) => [name, seen.get(name) ?? "absent"]));
  }

  /** Waits until these nodes (all, when not named) are Ready. */
  async untilReady(names?: readonly string[]): Promise<void> {
    let last = "";
    await until(
      "the nodes to be Ready",
      async () => {
        const seen = await this.readiness();
        last = JSON.stringify([...seen]);
        return (names ?? [...seen.keys()]).every((name) => seen.get(name) === "True");
      },
      { seconds: READY_SECONDS, everyMs: 500 },
    ).catch((error) => {
      const logs = this.nodes.map((node) => `=== ${node.name}\n${node.explain()}`);
      throw new Error([String(error), last, ...logs].join("\n"));
    });
  }

  /** Ends the cluster; nothing of it is left. */
  async stop(): Promise<void> {
    this.#forget();
    await clear(this.folder);
  }
}

/** The first cluster number that nobody has. */
function claimCluster(kept: boolean): { cluster: number; folder: string } {
  for (let cluster = 0; cluster < CLUSTERS_MAX; cluster++) {
    if (isTaken(cluster)) continue;
    const folder = claim(`cluster-${cluster}`, { kept });
    if (folder !== null) return { cluster, folder };
  }
  throw new Error(
    `Cannot start a cluster: all ${CLUSTERS_MAX} address ranges (10.77.0.0/24 to 10.77.9.0/24) are in use; next: stop a cluster (hack/cluster/kube/main.ts down)`,
  );
}
