/**
 * A kind cluster as the installation suite sees one: nodes that can be lost and come back, and kubectl.
 * Invariants: its name is its own, so that no other cluster of the machine is touched; stop() removes all of it.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { execa } from "execa";
import type {
  ClusterNode,
  ClusterUnderTest,
  ControlPlaneUnderTest,
} from "../../test/support/kube_install/cluster_under_test.ts";

const NAME = "mayastor-e2e";
const WAIT = "3m";

/** One node: a container of Docker. */
class KindNode implements ClusterNode {
  readonly name: string;
  readonly address: string;

  constructor(name: string, address: string) {
    this.name = name;
    this.address = address;
  }

  async exec(argv: readonly string[]): Promise<string> {
    return (await execa("docker", ["exec", this.name, ...argv])).stdout;
  }

  /** Ends everything on it at once, without a word to anybody. */
  async stop(): Promise<void> {
    await execa("docker", ["kill", this.name]);
  }

  async start(): Promise<void> {
    await execa("docker", ["start", this.name]);
  }
}

class KindControlPlane implements ControlPlaneUnderTest {
  readonly kubeconfig: string;

  constructor(kubeconfig: string) {
    this.kubeconfig = kubeconfig;
  }

  async kubectl(
    args: readonly string[],
    options: { readonly input?: string } = {},
  ): Promise<string> {
    const { stdout } = await execa("kubectl", args, {
      env: { KUBECONFIG: this.kubeconfig },
      ...(options.input === undefined ? {} : { input: options.input }),
    });
    return stdout;
  }
}

export class KindCluster implements ClusterUnderTest {
  readonly controlPlane: KindControlPlane;
  readonly nodes: readonly ClusterNode[];
  readonly #folder: string;

  private constructor(
    folder: string,
    parts: { controlPlane: KindControlPlane; nodes: readonly ClusterNode[] },
  ) {
    this.#folder = folder;
    this.controlPlane = parts.controlPlane;
    this.nodes = parts.nodes;
  }

  /** @throws when kind or the kernel's initiator is missing */
  static async start(): Promise<KindCluster> {
    if (!existsSync("/sys/module/nvme_tcp")) {
      throw new Error(
        "Cannot run on kind: its nodes share this machine's kernel, which has no nvme-tcp loaded; modprobe nvme-tcp",
      );
    }
    const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-kind-"));
    const kubeconfig = path.join(folder, "kubeconfig");
    const config = path.join(import.meta.dirname, "kind.yaml");
    try {
      await execa(
        "kind",
        [
          "create",
          "cluster",
          "--name",
          NAME,
          "--config",
          config,
          "--kubeconfig",
          kubeconfig,
          "--wait",
          WAIT,
        ],
        { stdio: ["ignore", "inherit", "inherit"] },
      );
      const controlPlane = new KindControlPlane(kubeconfig);
      const template =
        '{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address}{"\\n"}{end}';
      const lines = await controlPlane.kubectl([
        ...["get", "nodes", "-l", "openebs.io/engine=mayastor", "-o", `jsonpath=${template}`],
      ]);
      const nodes = lines
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => line.split(" "))
        .map(([name = "", address = ""]) => new KindNode(name, address))
        .sort((a, b) => a.name.localeCompare(b.name));
      return new KindCluster(folder, { controlPlane, nodes });
    } catch (error) {
      await KindCluster.#remove(folder);
      throw error;
    }
  }

  node(name: string): ClusterNode {
    const found = this.nodes.find((node) => node.name === name);
    if (found === undefined) throw new Error(`There is no node ${name}`);
    return found;
  }

  /** Gives every node the images of docker-archives. */
  async load(archives: readonly string[]): Promise<void> {
    for (const archive of archives)
      await execa("kind", ["load", "image-archive", archive, "--name", NAME]);
  }

  async stop(): Promise<void> {
    await KindCluster.#remove(this.#folder);
  }

  static async #remove(folder: string): Promise<void> {
    await execa("kind", ["delete", "cluster", "--name", NAME]);
    rmSync(folder, { recursive: true, force: true });
  }
}
