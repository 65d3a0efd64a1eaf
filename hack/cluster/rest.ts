/** A few REST v0 calls for scripts and tests, with the model's types and readable errors. */
import type { Node, Pool, Replica, Volume, Volumes } from "#common/openapi/model.ts";

export class RestError extends Error {
  readonly status: number;
  readonly kind: string;
  constructor(message: string, status: number, kind: string) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

export class RestClient {
  readonly url: string;
  readonly #signal: AbortSignal | undefined;
  /** Every call ends with an error when the signal is aborted. */
  constructor(url: string, signal?: AbortSignal) {
    this.url = url;
    this.#signal = signal;
  }

  async request(method: string, path: string, body?: unknown): Promise<unknown> {
    const late = AbortSignal.timeout(90_000);
    const response = await fetch(`${this.url}/v0${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      signal: this.#signal ? AbortSignal.any([this.#signal, late]) : late,
    });
    const text = await response.text();
    const parsed: unknown = text === "" ? null : JSON.parse(text);
    if (!response.ok) {
      const error = parsed as { kind?: string; message?: string; details?: string } | null; // RestJsonError
      const said = `${error?.kind ?? "?"}: ${error?.details ?? ""} ${error?.message ?? ""}`;
      throw new RestError(
        `${method} ${path}: ${response.status} ${said}`,
        response.status,
        error?.kind ?? "",
      );
    }
    return parsed;
  }

  // The casts below hold because api-rest validates each reply against the schema the type comes from.
  async nodes(): Promise<Node[]> {
    return (await this.request("GET", "/nodes")) as Node[];
  }
  async pools(): Promise<Pool[]> {
    return (await this.request("GET", "/pools")) as Pool[];
  }
  async replicas(): Promise<Replica[]> {
    return (await this.request("GET", "/replicas")) as Replica[];
  }
  async volume(id: string): Promise<Volume> {
    return (await this.request("GET", `/volumes/${id}`)) as Volume;
  }
  async volumes(): Promise<Volumes> {
    return (await this.request("GET", "/volumes?max_entries=0")) as Volumes;
  }
  async createPool(node: string, pool: string, disk: string): Promise<Pool> {
    return (await this.request("PUT", `/nodes/${node}/pools/${pool}`, { disks: [disk] })) as Pool;
  }
  async createVolume(
    id: string,
    body: { size: number; replicas: number; thin?: boolean },
  ): Promise<Volume> {
    const full = { thin: false, policy: { self_heal: true }, ...body };
    return (await this.request("PUT", `/volumes/${id}`, full)) as Volume;
  }
  async publish(id: string, node?: string): Promise<Volume> {
    const body = { publish_context: {}, protocol: "nvmf", ...(node === undefined ? {} : { node }) };
    return (await this.request("PUT", `/volumes/${id}/target`, body)) as Volume;
  }
  async unpublish(id: string): Promise<Volume> {
    return (await this.request("DELETE", `/volumes/${id}/target`)) as Volume;
  }
  /** Offers a replica to any host; one that is shared already (with its nexus only) is shared anew. */
  async shareReplica(replica: Replica): Promise<string> {
    if (replica.share !== "none") await this.unshareReplica(replica);
    const path = `/nodes/${replica.node}/pools/${replica.pool}/replicas/${replica.uuid}/share/nvmf`;
    return (await this.request("PUT", path)) as string;
  }
  async unshareReplica(replica: Replica): Promise<void> {
    await this.request(
      "DELETE",
      `/nodes/${replica.node}/pools/${replica.pool}/replicas/${replica.uuid}/share`,
    );
  }
}
