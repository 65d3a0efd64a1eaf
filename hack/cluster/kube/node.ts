/**
 * One node of a cluster: a machine of its own as far as Kubernetes can see, in namespaces of this one.
 *
 * It has its own network, mounts, host name, processes, /run, /etc and /var, and runs containerd with runc, a
 * kubelet and kube-proxy. Shared with the host: the kernel, /dev, /sys, the clock, the programs in /usr.
 * Invariants: every process of a node is in its process namespace, whose first process dies with the recorded one:
 * ending that ends the node with all pods, mounts and links at once, like a loss of power; what it had on disk
 * stays in its folder and is there again after start().
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { until } from "../local.ts";
import type { ProcessTable } from "../process.ts";
import type { KubeBinaries } from "./binaries.ts";
import { ctr, linkTemplate } from "./images.ts";
import { type Network, untilInside } from "./network.ts";
import {
  CONTAINERD_SOCKET,
  containerdConfig,
  initScript,
  kubeletConfig,
  type NodeFacts,
} from "./node_files.ts";
import { kubeconfig, type Pki } from "./pki.ts";
import { type RunOptions, run } from "./run.ts";
import { cgroupHierarchies, childrenOf, endOfChildren, removeCgroups } from "./state.ts";

export const DNS_SERVICE_IP = "10.96.0.10";
const IMPORT_MS = 10 * 60_000;

export interface NodeContext {
  readonly binaries: KubeBinaries;
  readonly network: Network;
  readonly processes: ProcessTable;
  /** `https://address:port` of the API server. */
  readonly server: string;
  readonly caFile: string;
  /** Numbers of all nodes, whose pods are routed to. */
  readonly numbers: readonly number[];
  readonly labels: Readonly<Record<string, string>>;
  /** Start of the names of cgroups. */
  readonly cgroupPrefix: string;
}

export class KubeNode {
  readonly name: string;
  readonly number: number;
  readonly address: string;
  /** What it has on disk; `fs/var/...` in it is what the node sees as `/var/...`. */
  readonly folder: string;
  readonly #context: NodeContext;
  readonly #facts: NodeFacts;
  #init: number | null = null;

  constructor(number: number, folder: string, context: NodeContext) {
    const { addresses } = context.network;
    this.number = number;
    this.name = `node-${number}`;
    this.address = addresses.node(number);
    this.folder = folder;
    this.#context = context;
    this.#facts = {
      name: this.name,
      folder,
      address: this.address,
      podCidr: addresses.nodePodCidr(number),
      cgroup: `${context.cgroupPrefix}${this.name}`,
      caFile: context.caFile,
      certFile: path.join(folder, "..", "pki", `${this.name}.crt`),
      keyFile: path.join(folder, "..", "pki", `${this.name}.key`),
    };
  }

  get isRunning(): boolean {
    return this.#context.processes.isAlive(this.name);
  }

  #program(name: string): string {
    return `${this.name}.${name}`;
  }

  /** Gives the node its identity and its images; before the first start(). */
  async prepare(pki: Pki, proxyConfig: string, template: string): Promise<void> {
    const { folder } = this;
    mkdirSync(folder, { recursive: true });
    const names = [`DNS:${this.name}`, `IP:${this.address}`];
    const [issued] = await Promise.all([
      pki.issue(this.name, {
        commonName: `system:node:${this.name}`,
        organization: "system:nodes",
        names,
      }),
      linkTemplate(template, path.join(folder, "containerd")),
    ]);
    const { server, caFile } = this.#context;
    const write = (name: string, text: string) =>
      writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    write("kubelet.kubeconfig", kubeconfig(server, caFile, issued));
    write("proxy.kubeconfig", proxyConfig);
    write("kubelet.json", kubeletConfig(this.#facts, DNS_SERVICE_IP));
    const root = path.join(folder, "containerd");
    const at = { root, state: "/run/containerd/state", socket: CONTAINERD_SOCKET };
    write("containerd.toml", containerdConfig(at));
  }

  /** Boots the machine and starts containerd, kubelet and kube-proxy; it becomes Ready soon after. */
  async start(): Promise<void> {
    const { processes, network, numbers } = this.#context;
    if (this.isRunning) throw new Error(`Cannot start ${this.name}: it is running already`);
    rmSync(path.join(this.folder, "ready"), { force: true });
    writeFileSync(path.join(this.folder, "init.sh"), initScript(this.#facts, this.#makeCgroups()));
    const apart = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"];
    processes.start(
      this.name,
      [
        ...["unshare", ...apart, "--propagation", "private"],
        ...["bash", path.join(this.folder, "init.sh")],
      ],
      { cwd: "/" },
    );
    await until(
      `${this.name} to boot`,
      async () => {
        if (!this.isRunning) return "ended";
        return existsSync(path.join(this.folder, "ready")) ? "ready" : null;
      },
      { seconds: 60, everyMs: 20 },
    ).then((outcome) => {
      if (outcome === "ended")
        throw new Error(`Cannot start ${this.name}:\n${processes.logTail(this.name)}`);
    });
    const init = this.#findInit();
    await untilInside(() => init, "net");
    this.#init = init;
    await network.attach(this.name, this.number, init);
    for (const other of numbers) {
      if (other !== this.number) await network.routePods(init, other);
    }
    this.startContainerd();
    await until(
      `containerd of ${this.name}`,
      async () => await this.exec([...ctr(CONTAINERD_SOCKET), "version"]),
      { seconds: 60 },
    ).catch((error) => {
      throw new Error(`${String(error)}\n${processes.logTail(this.#program("containerd"))}`);
    });
    this.startKubelet();
    this.#startProxy();
  }

  /** In every hierarchy one group for the node, with the pods' below it and its own programs in `system`. */
  #makeCgroups(): string[] {
    const hierarchies = cgroupHierarchies();
    if (!hierarchies.some((hierarchy) => path.basename(hierarchy) === "memory")) {
      throw new Error(
        `Cannot start ${this.name}: Kubernetes 1.20 as set up here needs cgroups of version 1; next: boot the machine with systemd.unified_cgroup_hierarchy=0`,
      );
    }
    return hierarchies.map((hierarchy) => {
      const group = path.join(hierarchy, this.#facts.cgroup);
      const system = path.join(group, "system");
      mkdirSync(group, { recursive: true });
      // A cpuset without cores and memory takes no process.
      for (const file of ["cpuset.cpus", "cpuset.mems"]) {
        const above = path.join(hierarchy, file);
        if (!existsSync(above)) continue;
        writeFileSync(path.join(group, file), readFileSync(above));
        mkdirSync(system, { recursive: true });
        writeFileSync(path.join(system, file), readFileSync(above));
      }
      mkdirSync(system, { recursive: true });
      return system;
    });
  }

  #findInit(): number {
    const outer = this.#context.processes.pid(this.name);
    const [init] = outer === null ? [] : childrenOf(outer);
    if (init === undefined)
      throw new Error(`Cannot find the first process of ${this.name}: it has ended`);
    return init;
  }

  /** Command prefix that runs a program on this node. */
  get enter(): readonly string[] {
    if (this.#init === null || !this.isRunning)
      throw new Error(`Cannot run a program on ${this.name}: the node is stopped`);
    const kinds = ["--mount", "--net", "--uts", "--ipc", "--pid"];
    return ["nsenter", "--target", String(this.#init), ...kinds, "--wdns=/", "--"];
  }

  /** Runs a program on this node, in its namespaces, as root; its standard output. */
  async exec(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    return await run([...this.enter, ...argv], options);
  }

  #startProgram(name: string, command: readonly string[]): void {
    // Ends with the nsenter that is recorded.
    const bound = ["setpriv", "--pdeathsig", "KILL", ...command];
    this.#context.processes.start(this.#program(name), [...this.enter, ...bound], { cwd: "/" });
  }

  startContainerd(): void {
    const config = path.join(this.folder, "containerd.toml");
    this.#startProgram("containerd", ["containerd", "--config", config]);
  }

  /** Ends containerd; containers run on, as on a real node. */
  async stopContainerd(): Promise<void> {
    await this.#context.processes.end(this.#program("containerd"), "SIGKILL");
  }

  startKubelet(): void {
    const labels = Object.entries(this.#context.labels).map(([key, value]) => `${key}=${value}`);
    this.#startProgram("kubelet", [
      this.#context.binaries.kubelet,
      `--config=${path.join(this.folder, "kubelet.json")}`,
      `--kubeconfig=${path.join(this.folder, "kubelet.kubeconfig")}`,
      "--root-dir=/var/lib/kubelet",
      `--node-ip=${this.address}`,
      `--hostname-override=${this.name}`,
      `--node-labels=${labels.join(",")}`,
      "--container-runtime=remote",
      `--container-runtime-endpoint=unix://${CONTAINERD_SOCKET}`,
    ]);
  }

  /** Ends the kubelet; pods run on, unattended. */
  async stopKubelet(): Promise<void> {
    await this.#context.processes.end(this.#program("kubelet"), "SIGKILL");
  }

  #startProxy(): void {
    const { binaries, network } = this.#context;
    this.#startProgram("proxy", [
      binaries.proxy,
      `--kubeconfig=${path.join(this.folder, "proxy.kubeconfig")}`,
      `--hostname-override=${this.name}`,
      `--cluster-cidr=${network.addresses.podCidr}`,
      "--proxy-mode=iptables",
      "--conntrack-max-per-core=0", // the limit is the whole machine's
      "--oom-score-adj=0",
      `--bind-address=${this.address}`,
    ]);
  }

  /** Node loss: silence on the wire first, then everything on it ends at once. What is on disk stays. */
  async stop(): Promise<void> {
    const { processes, network } = this.#context;
    if (this.isRunning) await network.detach(this.name).catch(() => {}); // lost already with its namespace
    const outer = processes.pid(this.name);
    const ended = endOfChildren(outer === null ? [] : [outer]);
    await processes.end(this.name, "SIGKILL");
    for (const name of ["proxy", "kubelet", "containerd"]) {
      await processes.end(this.#program(name), "SIGKILL");
    }
    await ended();
    this.#init = null;
    await removeCgroups((name) => name === this.#facts.cgroup);
  }

  /** Pulls the cable: everything on the node goes on, but nobody reaches it. */
  async cutNetwork(): Promise<void> {
    await this.#context.network.setLink(this.name, "down");
  }

  async mendNetwork(): Promise<void> {
    await this.#context.network.setLink(this.name, "up");
  }

  /** Gives the node one more image, from a docker-archive tar. */
  async importImage(archive: string): Promise<void> {
    // By standard input: the file may lie where the node sees its own copy of a folder.
    const command = [...this.enter, ...ctr(CONTAINERD_SOCKET), "images", "import", "-"];
    const quoted = command.map((word) => `'${word}'`).join(" ");
    await run(["bash", "-c", `exec ${quoted} < "$1"`, "bash", archive], { timeoutMs: IMPORT_MS });
  }

  /** The ends of this node's logs, for error messages. */
  explain(lines = 8): string {
    const { processes } = this.#context;
    return ["containerd", "kubelet", "proxy"]
      .map((name) => this.#program(name))
      .map((name) => `--- ${name}\n${processes.logTail(name, lines)}`)
      .join("\n");
  }
}
