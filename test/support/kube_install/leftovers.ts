/**
 * Step: what is there before an installation is there after it, and nothing else: cluster-scoped objects, namespaces,
 * processes, listening ports, sockets and files on the nodes.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { until } from "../../../hack/cluster/local.ts";
import { NAMESPACE } from "./documented.ts";
import type { Installation } from "./installation.ts";

/** Kinds that the cluster itself makes and removes as time passes. */
const TRANSIENT = ["componentstatuses", "certificatesigningrequests.certificates.k8s.io"];
/** Where the installation may have put something on a node. */
const FOLDERS = ["/var/local", "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry"];
const PORTS = [10124, 8420, 4421, 10199, 9502];
const PROGRAMS =
  /\/(io-engine|csi-node|csi-controller|agent-core|api-rest|operator-diskpool|metrics-exporter)|sidecars\//;

/**
 * Kept on purpose: a folder of a node belongs to the node's owner. The engine's configuration and reservations, and
 * etcd's data, would be found again by a new installation.
 */
const KEPT = [
  "/var/local/io-engine",
  "/var/local/mayastor",
  "/var/lib/kubelet/plugins/io.openebs.mayastor",
  // The kubelet's own, for staging volumes of any driver.
  "/var/lib/kubelet/plugins/kubernetes.io",
];

type Objects = ReadonlySet<string>;

async function clusterObjects(installation: Installation): Promise<Objects> {
  const kinds = await installation.kubectl([
    ...["api-resources", "--namespaced=false", "--verbs=list", "-o", "name"],
  ]);
  const wanted = kinds.split("\n").filter((kind) => kind !== "" && !TRANSIENT.includes(kind));
  const text = await installation.kubectl(["get", wanted.join(","), "-o", "name"]);
  return new Set(text.split("\n").filter((name) => name !== ""));
}

export class Leftovers {
  readonly #installation: Installation;
  readonly #objects: Objects;
  readonly #files: ReadonlyMap<string, ReadonlySet<string>>;

  private constructor(
    installation: Installation,
    objects: Objects,
    files: ReadonlyMap<string, ReadonlySet<string>>,
  ) {
    this.#installation = installation;
    this.#objects = objects;
    this.#files = files;
  }

  static async before(installation: Installation): Promise<Leftovers> {
    const files = new Map<string, ReadonlySet<string>>();
    for (const { name } of installation.cluster.nodes)
      files.set(name, new Set(await filesOf(installation, name)));
    return new Leftovers(installation, await clusterObjects(installation), files);
  }

  /** Removes the DiskPools, then everything, as documented; then looks. */
  async check(t: TestContext): Promise<void> {
    const installation = this.#installation;
    await installation.kubectl(["delete", "dsp", "--all", "-n", NAMESPACE]);
    assert.deepEqual(await installation.restPools(), []);
    await installation.kubectl(["delete", "-f", installation.dist, "--ignore-not-found"]);
    await installation.untilGone("the namespace", ["get", "namespace", NAMESPACE], 120);
    const left = [...(await clusterObjects(installation))].filter((o) => !this.#objects.has(o));
    assert.deepEqual(left, [], "cluster-scoped objects");
    for (const { name } of installation.cluster.nodes) await this.#checkNode(t, name);
  }

  async #checkNode(t: TestContext, name: string): Promise<void> {
    const node = this.#installation.cluster.node(name);
    const { spec } = await this.#installation.json<{ spec: { drivers: unknown[] | null } }>([
      ...["get", "csinode", name],
    ]);
    assert.deepEqual(spec.drivers ?? [], [], `${name}: the driver is unregistered`);
    const listening = await until(
      `${name} listens on none of our ports`,
      async () => {
        const text = await node.exec(["ss", "--listening", "--tcp", "--numeric", "--no-header"]);
        return PORTS.some((port) => text.includes(`:${port} `)) ? null : "none";
      },
      { seconds: 30, everyMs: 500 },
    );
    assert.equal(listening, "none");
    const processes = (await node.exec(["ps", "-e", "-o", "args"])).split("\n");
    assert.deepEqual(
      processes.filter((line) => PROGRAMS.test(line)),
      [],
      `${name}: processes`,
    );
    const before = this.#files.get(name) ?? new Set();
    const left = (await filesOf(this.#installation, name)).filter((file) => !before.has(file));
    const odd = left.filter((file) => !KEPT.some((kept) => file.slice(2).startsWith(kept)));
    assert.deepEqual(odd, [], `${name}: files`);
    assert.deepEqual(
      left.filter((file) => file.startsWith("s ")),
      [],
      `${name}: sockets`,
    );
    t.diagnostic(`${name} keeps: ${left.map((file) => file.slice(2)).join(" ")}`);
  }
}

/** Files as `type path`: s is a socket, d a folder, f a file. */
async function filesOf(installation: Installation, name: string): Promise<string[]> {
  const text = await installation.cluster
    .node(name)
    .exec([...["sh", "-c", `find ${FOLDERS.join(" ")} -printf '%y %p\\n' 2>/dev/null || true`]]);
  return text.split("\n").filter((line) => line !== "");
}
