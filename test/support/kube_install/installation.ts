/**
 * An installation of this repository's manifests on a real cluster, as a test sees it: synthesized by `cdk8s synth`,
 * applied by kubectl, watched through the API server, removed by `kubectl delete`.
 *
 * Invariants: nothing here goes around Kubernetes except the pools' disks, which are files in each node's folder for
 * the engine; what went wrong is explained by the pods' own words.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { execa } from "execa";
import type { Pool, Volume } from "#common/openapi/model.ts";
import { until } from "../../../hack/cluster/local.ts";
import { KubeApi, messageOf } from "../kube/api.ts";
import type { ClusterUnderTest } from "./cluster_under_test.ts";
import { diskPool, NAMESPACE } from "./documented.ts";

const root = path.resolve(import.meta.dirname, "..", "..", "..");

/** The folder of a node that io-engine sees under the same name. */
export const ENGINE_FOLDER = "/var/local/io-engine";
export const DISK = `aio://${ENGINE_FOLDER}/disk1.img`;

export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly lastTransitionTime: string;
    }[];
    readonly containerStatuses?: readonly {
      readonly name: string;
      readonly restartCount: number;
    }[];
  };
}

export const isReady = ({ metadata, status }: Pod): boolean =>
  metadata.deletionTimestamp === undefined &&
  (status.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false);

const componentOf = ({ metadata }: Pod): string => metadata.labels?.["app"] ?? metadata.name;

export class Installation {
  readonly cluster: ClusterUnderTest;
  /** Where `cdk8s synth` has written the manifests. */
  readonly dist: string;
  readonly #folder: string;
  /** For what is asked again and again: a kubectl each time would slow down what is waited for. */
  readonly #api: KubeApi;
  #applied = { atMs: 0, wall: 0 };

  private constructor(cluster: ClusterUnderTest, folder: string) {
    this.cluster = cluster;
    this.#folder = folder;
    this.dist = path.join(folder, "dist");
    this.#api = new KubeApi(cluster.controlPlane.kubeconfig);
  }

  /** Writes the manifests as the documentation says. `values` are of the form name=value. */
  static async synth(
    cluster: ClusterUnderTest,
    { profile, values }: { readonly profile: string; readonly values: readonly string[] },
  ): Promise<Installation> {
    const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-install-"));
    const installation = new Installation(cluster, folder);
    await execa("cdk8s", ["synth", "--no-check-upgrade", "--output", installation.dist], {
      cwd: root,
      preferLocal: true,
      env: { MAYASTOR_PROFILE: profile, MAYASTOR_SET: values.join(",") },
    });
    // `kubectl mayastor` finds its plugin on the PATH.
    mkdirSync(path.join(folder, "bin"));
    symlinkSync(
      path.join(root, "plugin", "kubectl-mayastor"),
      path.join(folder, "bin", "kubectl-mayastor"),
    );
    return installation;
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async kubectl(args: readonly string[], input?: string): Promise<string> {
    return await this.cluster.controlPlane.kubectl(args, input === undefined ? {} : { input });
  }

  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.kubectl([...args, "-o", "json"])) as T; // as the API server has it
  }

  /** `kubectl mayastor ...`, as a user runs it. */
  async plugin(...args: readonly string[]): Promise<string> {
    const { stdout } = await execa("kubectl", ["mayastor", ...args], {
      env: {
        KUBECONFIG: this.cluster.controlPlane.kubeconfig,
        PATH: `${path.join(this.#folder, "bin")}:${process.env["PATH"] ?? ""}`,
      },
    });
    return stdout;
  }

  async apply(): Promise<void> {
    this.#applied = { atMs: performance.now(), wall: Date.now() };
    await this.kubectl(["apply", "-f", this.dist]);
  }

  async pods(): Promise<readonly Pod[]> {
    const list = await this.#api.must("GET", `/api/v1/namespaces/${NAMESPACE}/pods`);
    return list["items"] as readonly Pod[]; // the API server's own schema
  }

  async podsOf(component: string): Promise<readonly Pod[]> {
    return (await this.pods()).filter((pod) => componentOf(pod) === component);
  }

  /** The node of a component that has one pod. */
  async nodeOf(component: string): Promise<string> {
    const nodes = (await this.podsOf(component)).map(({ spec }) => spec.nodeName);
    const [node] = nodes;
    if (nodes.length !== 1 || node === undefined)
      throw new Error(`Expected one pod of ${component} on a node, found ${JSON.stringify(nodes)}`);
    return node;
  }

  /**
   * Waits until `expected` pods of each component are Ready and no other pod is there.
   * @returns seconds from apply() to the last pod of each component, and for all of them
   */
  async untilReady(
    expected: Readonly<Record<string, number>>,
    seconds: number,
  ): Promise<Readonly<Record<string, number>>> {
    let seen: readonly Pod[] = [];
    try {
      await until(
        "every pod Ready",
        async () => {
          seen = await this.pods();
          const total = Object.values(expected).reduce((sum, count) => sum + count, 0);
          const isWhole = Object.entries(expected).every(
            ([name, count]) =>
              seen.filter((pod) => componentOf(pod) === name && isReady(pod)).length === count,
          );
          return isWhole && seen.length === total;
        },
        { seconds, everyMs: 500 },
      );
    } catch (error) {
      throw new Error(`${String(error)}\n${await this.explain()}`);
    }
    const all = (performance.now() - this.#applied.atMs) / 1000;
    const byComponent = Object.keys(expected).map((name) => {
      const times = seen
        .filter((pod) => componentOf(pod) === name)
        .flatMap(({ status }) => status.conditions ?? [])
        .filter(({ type }) => type === "Ready")
        .map(({ lastTransitionTime }) => Date.parse(lastTransitionTime));
      return [name, (Math.max(...times) - this.#applied.wall) / 1000] as const;
    });
    return { ...Object.fromEntries(byComponent), all };
  }

  /** What a person would look at when pods do not come up. */
  async explain(): Promise<string> {
    const look = async (...args: string[]) =>
      `$ kubectl ${args.join(" ")}\n${await this.kubectl(args).catch(String)}`;
    const parts = [
      await look("get", "pods", "-n", NAMESPACE, "-o", "wide"),
      await look("get", "events", "-A", "--sort-by=.lastTimestamp"),
    ];
    for (const pod of await this.pods().catch(() => [])) {
      if (isReady(pod)) continue;
      const { name } = pod.metadata;
      parts.push(await look("logs", "-n", NAMESPACE, name, "--all-containers", "--tail=15"));
    }
    return parts.join("\n");
  }

  /** Makes a disk on each node and a DiskPool for it; waits until all are Online. */
  async createPools(mib: number): Promise<void> {
    for (const [index, node] of this.cluster.nodes.entries()) {
      await node.exec(["truncate", "--size", `${mib}M`, `${ENGINE_FOLDER}/disk1.img`]);
      const manifest = diskPool(`pool-on-node-${index + 1}`, node.name, DISK);
      await this.kubectl(["create", "-f", "-"], manifest);
    }
  }

  /** A call of REST v0 through the API server's proxy, as the plugin reaches it. */
  async rest<T>(method: "GET" | "PUT" | "DELETE", url: string, body?: unknown): Promise<T> {
    const service = "services/mayastor-api-rest:8081/proxy";
    const at = `/api/v1/namespaces/${NAMESPACE}/${service}/v0${url}`;
    const answer = await this.#api.call(method, at, body === undefined ? {} : { body });
    if (answer.status < 200 || answer.status > 299)
      throw new Error(`${method} ${url}: status ${answer.status}: ${messageOf(answer.body)}`);
    return (answer.body === "" ? null : answer.body) as T; // api-rest validates its replies
  }

  async volume(uuid: string): Promise<Volume> {
    return await this.rest<Volume>("GET", `/volumes/${uuid}`);
  }

  async restPools(): Promise<readonly Pool[]> {
    return await this.rest<readonly Pool[]>("GET", "/pools");
  }

  async untilVolume(uuid: string, status: string, seconds: number): Promise<Volume> {
    let last = "";
    try {
      return await until(
        `volume ${uuid} ${status}`,
        async () => {
          const volume = await this.volume(uuid);
          last = JSON.stringify(volume.state);
          return volume.state.status === status ? volume : null;
        },
        { seconds, everyMs: 500 },
      );
    } catch (error) {
      throw new Error(`${String(error)}\nlast state: ${last}\n${await this.explain()}`);
    }
  }

  async untilGone(what: string, args: readonly string[], seconds = 60): Promise<void> {
    await until(
      `${what} gone`,
      async () => (await this.kubectl([...args, "--ignore-not-found", "-o", "name"])).trim() === "",
      { seconds, everyMs: 500 },
    );
  }
}
