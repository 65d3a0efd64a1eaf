/**
 * A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
 *
 * Why: manifests, RBAC and the operator are shown against the real thing; a cluster's nodes join it.
 * Alone it listens on loopback with free ports; for a cluster it lives in the cluster's network namespace.
 * TLS, the Node and RBAC authorizers and signed service account tokens are on, as in production. NetworkPolicy
 * objects are accepted but not enforced: no network plugin here does that.
 * Invariants: everything lives in one folder (state.ts); each piece can be stopped and started on its own, and
 * etcd's data stays as long as the folder.
 */
import { randomBytes } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { get } from "node:https";
import path from "node:path";
import { KubeClient } from "#common/kubernetes/client.ts";
import type { Credentials } from "#common/kubernetes/connection.ts";
import { freePort, until } from "../local.ts";
import { ProcessTable } from "../process.ts";
import { ensureKubeBinaries, type KubeBinaries } from "./binaries.ts";
import { type Issued, kubeconfig, Pki, readKubeconfig } from "./pki.ts";
import { type RunOptions, run } from "./run.ts";
import { claim, clear, clearStale, stopOnSignal } from "./state.ts";

const SERVICE_CIDR = "10.96.0.0/16";
const API_SERVICE_IP = "10.96.0.1";
/** The API server ends within this after SIGTERM, with watches open or not. */
const STOP_GRACE_MS = 3000;
const READY_SECONDS = 180;
const PROBE_MS = 5000;

/** Where the pieces run. */
export interface Place {
  readonly folder: string;
  /** What to put before a command so that it runs there; empty on loopback. */
  readonly enter: readonly string[];
  /** Where clients reach the API server. */
  readonly address: string;
  readonly ports: Ports;
}

export interface Ports {
  readonly api: number;
  readonly etcd: number;
  readonly etcdPeer: number;
  readonly controllerManager: number;
  readonly scheduler: number;
}

export interface ControlPlaneOptions {
  readonly log?: (line: string) => void;
  /** false: etcd and the API server alone (nothing makes service accounts' default tokens, pods or endpoints). */
  readonly controllers?: boolean;
  /** More options for the API server, e.g. a short `--etcd-compaction-interval`. */
  readonly apiServerArgs?: readonly string[];
  /** Silence after which a node is NotReady; Kubernetes' own default. */
  readonly nodeMonitorGraceSeconds?: number;
  /** A cluster's; absent: a folder of its own, on loopback. */
  readonly place?: Place;
  /** The record of what runs in that place. */
  readonly processes?: ProcessTable;
}

type Tls = Omit<Credentials, "headers">;

/** Asks once; any failure is a no. Cheaper than a kubectl, which would slow down what it waits for. */
function answersOk(url: string, tls: Tls): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(url, { ...tls, agent: false, timeout: PROBE_MS }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(false));
  });
}

const CONTROLLERS = ["scheduler", "controller-manager"] as const;

const USERS = {
  admin: { commonName: "admin", organization: "system:masters" },
  "controller-manager": { commonName: "system:kube-controller-manager" },
  scheduler: { commonName: "system:kube-scheduler" },
} as const;

export class ControlPlane {
  readonly binaries: KubeBinaries;
  readonly place: Place;
  readonly pki: Pki;
  readonly processes: ProcessTable;
  /** Path of the cluster administrator's kubeconfig. */
  readonly kubeconfig: string;
  readonly #options: ControlPlaneOptions;
  readonly #certificates = new Map<string, Issued>();
  #client: KubeClient | null = null;
  #forget: () => void = () => {};

  private constructor(
    place: Place,
    { binaries, pki, options }: { binaries: KubeBinaries; pki: Pki; options: ControlPlaneOptions },
  ) {
    this.binaries = binaries;
    this.place = place;
    this.pki = pki;
    this.#options = options;
    this.processes = options.processes ?? new ProcessTable(place.folder);
    this.kubeconfig = path.join(place.folder, "admin.kubeconfig");
  }

  /** `https://address:port` of the API server. */
  get server(): string {
    return `https://${this.place.address}:${this.place.ports.api}`;
  }

  /** The API as the cluster administrator; quicker than a kubectl for each request. */
  get client(): KubeClient {
    this.#client ??= new KubeClient(readKubeconfig(this.kubeconfig));
    return this.#client;
  }

  /** For tests that look into etcd or write to it; answers on loopback only. */
  get etcdEndpoint(): string {
    return `http://127.0.0.1:${this.place.ports.etcd}`;
  }

  /** Starts everything and waits until the API server is ready and namespaces get their service accounts. */
  static async start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const binaries = await ensureKubeBinaries(options.log);
    const own = options.place === undefined;
    const place = options.place ?? (await ControlPlane.#claimPlace());
    const pki = await Pki.create(path.join(place.folder, "pki"));
    const plane = new ControlPlane(place, { binaries, pki, options });
    if (own) plane.#forget = stopOnSignal(() => plane.stop());
    try {
      await plane.#issue();
      await plane.startEtcd();
      await plane.startApiServer();
      if (options.controllers !== false) await plane.#startControllers();
    } catch (error) {
      const tails = plane.processes.ended.map(
        (name) => `--- ${name} ended:\n${plane.processes.logTail(name)}`,
      );
      if (own) await plane.stop();
      throw new Error([`Cannot start the control plane: ${String(error)}`, ...tails].join("\n"), {
        cause: error,
      });
    }
    return plane;
  }

  static async #claimPlace(): Promise<Place> {
    await clearStale();
    const folder = claim(`api-${randomBytes(4).toString("hex")}`, { kept: false });
    if (folder === null) throw new Error("Cannot start a control plane: its folder exists already");
    // Below the range of outgoing connections; two that start at the same moment look in different places.
    let next = 21_000 + (process.pid % 1000) * 8;
    const port = async () => {
      const found = await freePort(next);
      next = found + 1;
      return found;
    };
    const ports = {
      api: await port(),
      etcd: await port(),
      etcdPeer: await port(),
      controllerManager: await port(),
      scheduler: await port(),
    };
    return { folder, enter: [], address: "127.0.0.1", ports };
  }

  async #issue(): Promise<void> {
    const { address, folder } = this.place;
    const service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    const dns = ["localhost", ...service, "kubernetes.default.svc.cluster.local"];
    const ips = new Set(["127.0.0.1", API_SERVICE_IP, address]);
    const names = [...dns.map((name) => `DNS:${name}`), ...[...ips].map((ip) => `IP:${ip}`)];
    const issue = async (name: string, subject: Parameters<Pki["issue"]>[1]) => {
      this.#certificates.set(name, await this.pki.issue(name, subject));
    };
    await Promise.all([
      issue("apiserver", { commonName: "kube-apiserver", names }),
      issue("front-proxy", { commonName: "front-proxy" }),
      issue("kubelet-client", { commonName: "apiserver-kubelet", organization: "system:masters" }),
      ...Object.entries(USERS).map(([name, subject]) => issue(name, subject)),
    ]);
    for (const name of Object.keys(USERS)) {
      const text = kubeconfig(this.server, this.pki.ca.cert, this.#certificate(name));
      writeFileSync(path.join(folder, `${name}.kubeconfig`), text, { mode: 0o600 });
    }
  }

  #certificate(name: string): Issued {
    const found = this.#certificates.get(name);
    if (found === undefined) throw new Error(`No certificate for ${name}`);
    return found;
  }

  #start(name: string, command: readonly string[]): void {
    this.processes.start(name, [...this.place.enter, ...command], { cwd: this.place.folder });
  }

  async #untilAnswers(name: string, check: () => Promise<boolean>): Promise<void> {
    await until(
      `${name} to be ready`,
      async () => {
        if (await check().catch(() => false)) return "ready";
        return this.processes.isAlive(name) ? null : "ended";
      },
      { seconds: READY_SECONDS, everyMs: 100 },
    ).then((outcome) => {
      if (outcome === "ended")
        throw new Error(`Cannot start ${name}: it ended\n${this.processes.logTail(name)}`);
    });
  }

  async startEtcd(): Promise<void> {
    const { folder, ports } = this.place;
    const client = this.etcdEndpoint;
    const peer = `http://127.0.0.1:${ports.etcdPeer}`;
    this.#start("etcd", [
      ...["etcd", "--name", "kube", "--data-dir", path.join(folder, "etcd")],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--initial-cluster", `kube=${peer}`, "--logger", "zap", "--log-level", "warn"],
      "--unsafe-no-fsync", // the machine may lose power, the test is then over anyway
    ]);
    await this.#untilAnswers("etcd", async () => {
      const probe = ["etcdctl", "--endpoints", client, "endpoint", "health"];
      await run([...this.place.enter, ...probe], { env: { ETCDCTL_API: "3" }, timeoutMs: 5000 });
      return true;
    });
  }

  async stopEtcd(): Promise<void> {
    await this.processes.end("etcd", "SIGTERM", STOP_GRACE_MS);
  }

  /** Starts the API server and waits until it says that it is ready. */
  async startApiServer(): Promise<void> {
    const { place, pki } = this;
    const loopback = place.address === "127.0.0.1";
    const pair = (flag: string, certificate: Issued, keyFlag: string) => [
      `--${flag}=${certificate.cert}`,
      `--${keyFlag}=${certificate.key}`,
    ];
    this.#start("apiserver", [
      this.binaries.apiServer,
      `--etcd-servers=${this.etcdEndpoint}`,
      `--bind-address=${loopback ? "127.0.0.1" : "0.0.0.0"}`,
      `--advertise-address=${place.address}`,
      // Endpoints may not be loopback addresses: alone, the kubernetes Service has none.
      `--endpoint-reconciler-type=${loopback ? "none" : "master-count"}`,
      `--secure-port=${place.ports.api}`,
      ...pair("tls-cert-file", this.#certificate("apiserver"), "tls-private-key-file"),
      `--client-ca-file=${pki.ca.cert}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${pki.serviceAccount.publicKey}`,
      `--service-account-signing-key-file=${pki.serviceAccount.key}`,
      `--requestheader-client-ca-file=${pki.ca.cert}`,
      "--requestheader-allowed-names=front-proxy",
      "--requestheader-username-headers=X-Remote-User",
      "--requestheader-group-headers=X-Remote-Group",
      "--requestheader-extra-headers-prefix=X-Remote-Extra-",
      ...pair("proxy-client-cert-file", this.#certificate("front-proxy"), "proxy-client-key-file"),
      ...pair(
        "kubelet-client-certificate",
        this.#certificate("kubelet-client"),
        "kubelet-client-key",
      ),
      `--kubelet-certificate-authority=${pki.ca.cert}`,
      "--kubelet-preferred-address-types=InternalIP",
      "--authorization-mode=Node,RBAC",
      "--enable-admission-plugins=NodeRestriction",
      "--anonymous-auth=false",
      "--allow-privileged=true",
      `--service-cluster-ip-range=${SERVICE_CIDR}`,
      ...(this.#options.apiServerArgs ?? []),
    ]);
    const { server, credentials } = readKubeconfig(this.kubeconfig);
    const { headers: _none, ...tls } = await credentials(); // a certificate, no token
    await this.#untilAnswers("apiserver", () => answersOk(`${server}/readyz`, tls));
  }

  /** Ends the API server; etcd keeps what it holds. */
  async stopApiServer(): Promise<void> {
    await this.processes.end("apiserver", "SIGTERM", STOP_GRACE_MS);
  }

  async restartApiServer(): Promise<void> {
    await this.stopApiServer();
    await this.startApiServer();
  }

  /** Ends controller manager and scheduler and starts them afresh. */
  async restartControllers(): Promise<void> {
    for (const name of CONTROLLERS) await this.processes.end(name, "SIGTERM", STOP_GRACE_MS);
    await this.#startControllers();
  }

  async #startControllers(): Promise<void> {
    const { pki, place } = this;
    const identity = (name: string) =>
      ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(
        (flag) => `--${flag}=${path.join(place.folder, `${name}.kubeconfig`)}`,
      );
    // --port=0: the plain-text port is a fixed one, on which two control planes would collide.
    const local = ["--bind-address=127.0.0.1", "--port=0", "--leader-elect=false"];
    this.#start("controller-manager", [
      this.binaries.controllerManager,
      ...identity("controller-manager"),
      ...local,
      `--secure-port=${place.ports.controllerManager}`,
      `--service-account-private-key-file=${pki.serviceAccount.key}`,
      `--root-ca-file=${pki.ca.cert}`,
      `--cluster-signing-cert-file=${pki.ca.cert}`,
      `--cluster-signing-key-file=${pki.ca.key}`,
      "--use-service-account-credentials",
      `--node-monitor-grace-period=${this.#options.nodeMonitorGraceSeconds ?? 40}s`,
      // Volumes' binding and nodes' loss are what tests wait for most.
      "--node-monitor-period=2s",
      "--pvclaimbinder-sync-period=5s",
    ]);
    this.#start("scheduler", [
      this.binaries.scheduler,
      ...identity("scheduler"),
      ...local,
      `--secure-port=${place.ports.scheduler}`,
    ]);
    await this.#untilAnswers("controller-manager", async () => {
      await this.client.get("/api/v1/namespaces/default/serviceaccounts/default", {
        signal: AbortSignal.timeout(5000),
      });
      return true;
    });
    await this.#untilAnswers("scheduler", async () => true);
  }

  /** Runs kubectl as the cluster administrator; its standard output. */
  async kubectl(
    args: readonly string[],
    options: Pick<RunOptions, "input" | "timeoutMs"> = {},
  ): Promise<string> {
    const cache = path.join(this.place.folder, "kubectl-cache");
    const command = [this.binaries.kubectl, "--kubeconfig", this.kubeconfig, "--cache-dir", cache];
    return await run([...command, ...args], options);
  }

  /** Path of a kubeconfig with a real token of that service account, asked for through the TokenRequest API. */
  async kubeconfigFor(namespace: string, serviceAccount: string): Promise<string> {
    const url = `/api/v1/namespaces/${namespace}/serviceaccounts/${serviceAccount}/token`;
    const request = {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      metadata: { namespace, name: serviceAccount },
      spec: { expirationSeconds: 24 * 3600 },
    };
    const answer: unknown = JSON.parse(
      await this.kubectl(["create", "--raw", url, "-f", "-"], { input: JSON.stringify(request) }),
    );
    const token = (answer as { status?: { token?: unknown } }).status?.token; // checked next
    if (typeof token !== "string")
      throw new Error(`Cannot get a token for ${namespace}/${serviceAccount}: the answer has none`);
    const file = path.join(this.place.folder, `${namespace}.${serviceAccount}.kubeconfig`);
    writeFileSync(file, kubeconfig(this.server, this.pki.ca.cert, { token }, namespace), {
      mode: 0o600,
    });
    return file;
  }

  /** Ends everything; a control plane of its own also leaves no folder. */
  async stop(): Promise<void> {
    this.#forget();
    if (this.#options.place === undefined) {
      await clear(this.place.folder);
      return;
    }
    if (!existsSync(this.place.folder)) return;
    for (const name of [...CONTROLLERS, "apiserver", "etcd"]) {
      await this.processes.end(name, "SIGKILL");
    }
  }
}
