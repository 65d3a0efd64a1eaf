/**
 * An api-rest double over real HTTP: pools that are made, read and destroyed, and a list of volumes.
 * Why: which calls a program makes to Kubernetes does not depend on engines; behaviour is tested with the real one.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

type PoolBody = { readonly disks: readonly string[]; readonly labels?: object };

export class RestDouble {
  readonly pools = new Map<string, object>();
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      let text = "";
      request.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      request.on("end", () => {
        const { status, body } = this.#answer(request.method ?? "", request.url ?? "", text);
        response.writeHead(status, { "content-type": "application/json" });
        response.end(body === null ? "" : JSON.stringify(body));
      });
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`; // it listens on TCP
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(method: string, url: string, text: string): { status: number; body: unknown } {
    const { pathname } = new URL(url, "http://rest.invalid");
    const [, node, made] = /^\/v0\/nodes\/([^/]+)\/pools\/([^/]+)$/.exec(pathname) ?? [];
    if (node !== undefined && made !== undefined) {
      if (method === "DELETE") return { status: this.pools.delete(made) ? 204 : 404, body: null };
      const { disks, labels = {} } = JSON.parse(text) as PoolBody; // what the operator under test sent
      const state = { capacity: 1 << 30, disks, id: made, node, status: "Online", used: 0 };
      const spec = { disks, id: made, labels, node, status: "Created" };
      this.pools.set(made, { id: made, spec, state });
      return { status: 200, body: this.pools.get(made) };
    }
    const read = /^\/v0\/pools\/([^/]+)$/.exec(pathname)?.[1];
    const pool = read === undefined ? undefined : this.pools.get(read);
    if (pool !== undefined) return { status: 200, body: pool };
    if (pathname === "/v0/volumes") return { status: 200, body: { entries: [] } };
    return {
      status: 404,
      body: { details: "", message: `${pathname} is not there`, kind: "NotFound" },
    };
  }
}
