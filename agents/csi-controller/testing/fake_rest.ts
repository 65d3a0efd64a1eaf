/**
 * A REST server that keeps volumes in memory, as far as the CSI controller can tell it from the real one: statuses and
 * kinds of failures are those of api-rest.
 * Only tests import this.
 */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { ERROR_STATUS } from "#common/openapi/errors.ts";
import type {
  CreateVolumeBody,
  PublishVolumeBody,
  RestErrorKind,
  Volume,
} from "#common/openapi/model.ts";

const MIB = 1024 * 1024;
const NODES = ["node-1", "node-2"];
/** Pools as REST tells them, in place of one a node. */
type PoolAnswer = ReturnType<typeof pool>;
/** Of each node's pool. */
export const POOL_BYTES = 512 * MIB;

type Answer = readonly [status: number, body: unknown];

const failure = (kind: RestErrorKind, message: string): Answer => [
  ERROR_STATUS[kind],
  { kind, details: message, message },
];

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const part of request) text += String(part);
  return text;
}

export class FakeRest {
  readonly volumes = new Map<string, Volume>();
  /** Bodies of the volumes that were asked for. */
  readonly created: CreateVolumeBody[] = [];
  /** Calls that change something. */
  readonly changes: string[] = [];
  /** Called before a call is answered. */
  onCall: (call: string) => Promise<void> = async () => {};
  /** Nodes whose engine is away: the state of a target there cannot be seen. */
  readonly away = new Set<string>();
  /** Of nodes whose engine has registered with a host NQN of its own. */
  readonly hostNqns = new Map<string, string>();
  readonly cordoned = new Set<string>();
  pools: PoolAnswer[] = NODES.map(pool);
  /** The target lets everyone in, as without access lists. */
  open = false;
  /** As an api-rest of 2.2, which does not say to whom a volume is published. */
  old = false;
  url = "";

  async start(t: Pick<TestContext, "after">): Promise<void> {
    const server = createServer((request, response) => {
      this.#answer(request).then(
        ([status, body]) => {
          response.writeHead(status).end(status === 204 ? "" : JSON.stringify(body));
        },
        (error: Error) => response.destroy(error),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(() => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo; // it listens on TCP
    this.url = `http://127.0.0.1:${port}`;
  }

  /** The next call of that name waits until it is released. */
  holdUp(call: string): { readonly started: Promise<void>; readonly release: () => void } {
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const started = new Promise<void>((resolve) => {
      this.onCall = async (name) => {
        if (name !== call) return;
        this.onCall = async () => {};
        resolve();
        await released;
      };
    });
    return { started, release };
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const url = new URL(request.url ?? "", "http://x");
    const path = url.pathname.replace("/v0", "");
    const text = await bodyOf(request);
    const call = `${request.method} ${path}`;
    await this.onCall(call);
    if (request.method !== "GET") this.changes.push(call);
    const [, kind = "", id = "", part = ""] = path.split("/").map(decodeURIComponent);
    if (kind === "nodes" && part === "pools") {
      return NODES.includes(id)
        ? [200, this.pools.filter(({ spec }) => spec.node === id)]
        : failure("NotFound", `no node ${id}`);
    }
    if (kind === "nodes") {
      if (id === "") return [200, NODES.map((name) => this.#node(name))];
      return NODES.includes(id) ? [200, this.#node(id)] : failure("NotFound", `no node ${id}`);
    }
    if (kind === "pools") return [200, this.pools];
    if (id === "") return this.#list(url.searchParams);
    if (part === "target") return this.#target(request.method, id, text);
    return this.#volume(request.method, id, text);
  }

  #node(id: string) {
    const status = this.away.has(id) ? "Offline" : "Online";
    const [grpcEndpoint, endpoint] = ["10.0.0.1:10124", { id, grpcEndpoint: "10.0.0.1:10124" }];
    const cordon = { cordonedstate: { cordonlabels: ["repair"] } };
    const spec = this.cordoned.has(id) ? { ...endpoint, cordondrainstate: cordon } : endpoint;
    const state = { id, grpcEndpoint, status };
    const nqn = this.hostNqns.get(id);
    return { id, spec, state: nqn === undefined ? state : { ...state, node_nqn: nqn } };
  }

  #list(query: URLSearchParams): Answer {
    const all = [...this.volumes.keys()].map((id) => this.#seen(id));
    const most = Number(query.get("max_entries"));
    if (most === 0) return [200, { entries: all }];
    const first = Number(query.get("starting_token"));
    const entries = all.slice(first, first + most);
    const end = first + most;
    return [200, end < all.length ? { entries, next_token: end } : { entries }];
  }

  #seen(id: string): Volume | undefined {
    const volume = this.volumes.get(id);
    const node = volume?.spec.target?.node;
    if (!volume || node === undefined) return volume;
    const { frontend_nodes, ...rest } = volume.spec.target ?? { node };
    const target = this.old || !frontend_nodes ? rest : { ...rest, frontend_nodes };
    const { target: nexus, ...state } = volume.state;
    const shown = this.away.has(node) || !nexus ? state : { ...state, target: nexus };
    return { spec: { ...volume.spec, target }, state: shown };
  }

  #volume(method: string | undefined, id: string, text: string): Answer {
    const found = this.#seen(id);
    if (method === "PUT") {
      if (found) return failure("AlreadyExists", `volume ${id} already exists`);
      const body = JSON.parse(text) as CreateVolumeBody; // what the controller sends
      if (body.size > POOL_BYTES || body.replicas > NODES.length) {
        return failure("ResourceExhausted", "Not enough suitable pools available");
      }
      this.created.push(body);
      this.volumes.set(id, volumeOf(id, body));
      return [200, this.#seen(id)];
    }
    if (!found) return failure("NotFound", `volume ${id} not found`);
    if (method === "GET") return [200, found];
    this.volumes.delete(id);
    return [204, null];
  }

  #target(method: string | undefined, id: string, text: string): Answer {
    const volume = this.volumes.get(id);
    if (!volume) return failure("NotFound", `volume ${id} not found`);
    if (method === "DELETE") {
      if (!volume.spec.target) return failure("NotPublished", `volume ${id} is not published`);
      const { target: _, ...spec } = volume.spec;
      const { target: __, ...state } = volume.state;
      this.volumes.set(id, { spec, state });
      return [200, this.#seen(id)];
    }
    const body = JSON.parse(text) as PublishVolumeBody; // what the controller sends
    const frontend = body.frontend_node ?? "";
    const nodes = volume.spec.target?.frontend_nodes ?? [];
    if (volume.spec.target && !body.republish) return failure("AlreadyPublished", "it is");
    if (body.republish && nodes.length > 0 && nodes.every(({ name }) => name !== frontend)) {
      return failure("PermissionDenied", `volume ${id} is not published to node ${frontend}`);
    }
    if (!body.republish) this.publish(id, { node: body.node ?? "node-1", frontend });
    return [200, this.#seen(id)];
  }

  /** As somebody else may do. */
  publish(id: string, { node, frontend }: { node: string; frontend: string }): void {
    const volume = this.volumes.get(id);
    if (!volume) throw new Error(`there is no volume ${id}`);
    const nqn = `nqn.2019-05.io.openebs:node-name:${frontend}`;
    const target = { node, protocol: "nvmf" as const, frontend_nodes: [{ name: frontend, nqn }] };
    const uri = `nvmf://10.1.0.5:4421/nqn.2019-05.io.openebs:${id}`;
    const deviceUri = this.open ? uri : `${uri}?hostnqn=${nqn}`;
    const nexus = { ...{ uuid: id, node, size: volume.spec.size, state: "Online" as const } };
    this.volumes.set(id, {
      spec: { ...volume.spec, target },
      state: {
        ...volume.state,
        target: { ...nexus, protocol: "nvmf", rebuilds: 0, children: [], deviceUri },
      },
    });
  }
}

function pool(node: string) {
  const id = node.replace("node", "pool");
  const of = { id, node, disks: ["/dev/sdb"] };
  const labels = { "openebs.io/created-by": "operator-diskpool" };
  const state = { ...of, status: "Online", capacity: POOL_BYTES, used: 0, committed: 0 };
  return { id, spec: { ...of, labels, status: "Created" }, state };
}

function volumeOf(uuid: string, body: CreateVolumeBody): Volume {
  const { size, replicas, thin, policy } = body;
  return {
    spec: { uuid, size, thin, policy, num_replicas: replicas, status: "Created" },
    state: { uuid, size, status: "Online", replica_topology: {} },
  };
}
