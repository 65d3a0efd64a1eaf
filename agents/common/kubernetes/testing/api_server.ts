/**
 * A small Kubernetes API server for tests: real HTTP, objects in memory.
 *
 * Why: what matters to a controller is how versions, watches and deletion behave, and a test must be able to break
 * them: stop and start, cut watches, forget history, hold back answers.
 * What it does: list (with a limit), get, create (generateName), replace and patch with compare and swap, merge
 * patch, server-side apply with uid precondition and field removal at the top level of the object (status whole),
 * status subresource, finalizers, watch with bookmarks, 410 for versions it has forgotten.
 * Invariant: as in the real one, every write has a new resource version and every watcher sees every write once.
 */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export type KubeObject = {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    generateName?: string;
    deletionTimestamp?: string;
    finalizers?: string[];
    [key: string]: unknown;
  };
  [key: string]: unknown;
};

type Change = { readonly version: number; readonly collection: string; readonly line: string };
type Watcher = { readonly collection: string; readonly response: ServerResponse };
type Target = { readonly collection: string; readonly name: string | null; readonly sub: string };

/** What the server has seen, for asserts: "PATCH /apis/…/status". */
export type SeenRequest = { readonly method: string; readonly path: string; readonly type: string };

class Refusal extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

function targetOf(path: string): Target {
  const parts = path.split("/").filter((part) => part !== "");
  const core = parts[0] === "api";
  const head = parts.slice(0, core ? 2 : 3);
  let rest = parts.slice(head.length);
  if (rest[0] === "namespaces" && rest.length > 2) {
    head.push(...rest.slice(0, 2));
    rest = rest.slice(2);
  }
  const [plural = "", name = null, sub = ""] = rest;
  return { collection: `/${[...head, plural].join("/")}`, name, sub };
}

function merge(into: unknown, patch: unknown): unknown {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const base = into !== null && typeof into === "object" && !Array.isArray(into) ? into : {};
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

export class TestApiServer {
  readonly requests: SeenRequest[] = [];
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #watchers = new Set<Watcher>();
  readonly #sockets = new Set<Socket>();
  #history: Change[] = [];
  /** Versions up to here are forgotten. */
  #forgotten = 0;
  #version = 100;
  #server: Server | null = null;
  #port = 0;
  /** Requests that are refused with this status while it is set. */
  failWith: number | null = null;
  /** Waited for between what a request did and its answer, as on a slow network; watches are not held up. */
  beforeAnswer: (request: SeenRequest) => Promise<void> = async () => {};

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get watches(): number {
    return this.#watchers.size;
  }

  /** Starts on a free port, later starts on the same one. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        response.destroy(error instanceof Error ? error : undefined);
      });
    });
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, "127.0.0.1", resolve);
    });
    this.#port = (server.address() as AddressInfo).port; // listening on TCP
    this.#server = server;
  }

  /** As a crash: every connection is cut; objects stay (they are in etcd). */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (!server) return;
    for (const socket of this.#sockets) socket.destroy();
    this.#watchers.clear();
    await new Promise((resolve) => server.close(resolve));
  }

  /** Ends every watch, as a load balancer may. */
  cutWatches(): void {
    for (const { response } of this.#watchers) response.destroy();
    this.#watchers.clear();
  }

  /** Forgets what happened until now: a watch from an older version is answered with 410. */
  compact(): void {
    this.#forgotten = this.#version;
    this.#history = [];
  }

  /** Sends a bookmark to every watcher. */
  bookmark(): void {
    const object = { metadata: { resourceVersion: String(this.#version) } };
    for (const { response } of this.#watchers) {
      response.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
    }
  }

  all(collection: string): KubeObject[] {
    return structuredClone([...(this.#objects.get(collection)?.values() ?? [])]);
  }

  find(collection: string, name: string): KubeObject | undefined {
    return structuredClone(this.#objects.get(collection)?.get(name));
  }

  /** Creates as a user would. */
  put(collection: string, object: KubeObject): KubeObject {
    return this.#create(collection, object);
  }

  /** Changes as another client would; null: the object's own rules refuse. */
  change(collection: string, name: string, patch: unknown): KubeObject {
    return this.#write(collection, this.#need(collection, name), patch);
  }

  /** Deletes as a user would: with finalizers it is only marked. */
  remove(collection: string, name: string): void {
    const found = this.#need(collection, name);
    if ((found.metadata.finalizers ?? []).length > 0) {
      const deletionTimestamp = new Date().toISOString();
      this.#write(collection, found, { metadata: { deletionTimestamp } });
      return;
    }
    this.#erase(collection, found);
  }

  #need(collection: string, name: string): KubeObject {
    const found = this.#objects.get(collection)?.get(name);
    if (!found) throw new Refusal(404, "NotFound", `${collection} "${name}" not found`);
    return found;
  }

  #create(collection: string, given: KubeObject): KubeObject {
    const object = structuredClone(given);
    const { generateName } = object.metadata;
    if (!object.metadata.name && generateName) {
      object.metadata.name = generateName + randomUUID().slice(0, 5);
    }
    const { name } = object.metadata;
    if (this.#objects.get(collection)?.has(name)) {
      throw new Refusal(409, "AlreadyExists", `${collection} "${name}" already exists`);
    }
    object.metadata.uid = randomUUID();
    if (collection.endsWith("/customresourcedefinitions")) {
      object["status"] = { conditions: [{ type: "Established", status: "True" }] };
    }
    this.#store(collection, object, "ADDED");
    return object;
  }

  #store(collection: string, object: KubeObject, type: "ADDED" | "MODIFIED"): void {
    this.#version += 1;
    object.metadata.resourceVersion = String(this.#version);
    const objects = this.#objects.get(collection) ?? new Map<string, KubeObject>();
    this.#objects.set(collection, objects);
    objects.set(object.metadata.name, object);
    this.#tell(collection, type, object);
  }

  #erase(collection: string, object: KubeObject): void {
    this.#version += 1;
    object.metadata.resourceVersion = String(this.#version);
    this.#objects.get(collection)?.delete(object.metadata.name);
    this.#tell(collection, "DELETED", object);
  }

  #tell(collection: string, type: string, object: KubeObject): void {
    const line = `${JSON.stringify({ type, object })}\n`;
    this.#history.push({ version: this.#version, collection, line });
    for (const watcher of this.#watchers) {
      if (watcher.collection === collection) watcher.response.write(line);
    }
  }

  #write(collection: string, found: KubeObject, patch: unknown): KubeObject {
    const { uid, resourceVersion } = (patch as KubeObject).metadata ?? {};
    if (uid !== undefined && uid !== found.metadata.uid) {
      throw new Refusal(409, "Conflict", "the UID in the precondition does not match");
    }
    if (resourceVersion !== undefined && resourceVersion !== found.metadata.resourceVersion) {
      throw new Refusal(409, "Conflict", "the object has been modified");
    }
    const next = merge(found, patch) as KubeObject; // an object merged into an object
    const { deletionTimestamp, finalizers = [] } = next.metadata;
    if (deletionTimestamp !== undefined && finalizers.length === 0) {
      this.#erase(collection, next);
      return next;
    }
    if (JSON.stringify(next) === JSON.stringify(found)) return found; // the real one: no new version
    this.#store(collection, next, "MODIFIED");
    return next;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.url);
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer); // no encoding is set
    const body: unknown =
      parts.length === 0 ? null : JSON.parse(Buffer.concat(parts).toString("utf8"));
    const method = request.method ?? "GET";
    const type = request.headers["content-type"] ?? "";
    const seen: SeenRequest = { method, path: url.pathname, type };
    this.requests.push(seen);
    try {
      if (this.failWith !== null) throw new Refusal(this.failWith, "Broken", "told to fail");
      const target = targetOf(url.pathname);
      if (url.searchParams.get("watch") === "true") return this.#watch(target, url, response);
      const answer = JSON.stringify(this.#answer({ method, type, target, url, body }));
      await this.beforeAnswer(seen);
      response.writeHead(method === "POST" ? 201 : 200, { "content-type": "application/json" });
      response.end(answer);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const { status: code, reason, message } = error;
      response.writeHead(code, { "content-type": "application/json" });
      response.end(JSON.stringify({ kind: "Status", status: "Failure", code, reason, message }));
    }
  }

  #answer({
    method,
    type,
    target: { collection, name, sub },
    url,
    body,
  }: {
    method: string;
    type: string;
    target: Target;
    url: URL;
    body: unknown;
  }): unknown {
    const object = body as KubeObject; // what our own client sends
    switch (method) {
      case "GET":
        return name === null ? this.#list(collection, url) : this.#need(collection, name);
      case "POST":
        return this.#create(collection, object);
      case "PUT": {
        const found = this.#need(collection, name ?? "");
        const { resourceVersion } = object.metadata;
        if (resourceVersion !== undefined && resourceVersion !== found.metadata.resourceVersion) {
          throw new Refusal(409, "Conflict", "the object has been modified");
        }
        const next = structuredClone({ ...object, status: found["status"] });
        next.metadata.uid = found.metadata.uid ?? "";
        this.#store(collection, next, "MODIFIED");
        return next;
      }
      case "PATCH":
        return this.#patch({ collection, name: name ?? "", sub, type, object });
      default:
        throw new Refusal(405, "MethodNotAllowed", `${method} is not supported`);
    }
  }

  #patch({
    collection,
    name,
    sub,
    type,
    object,
  }: {
    collection: string;
    name: string;
    sub: string;
    type: string;
    object: KubeObject;
  }): KubeObject {
    const found = this.#objects.get(collection)?.get(name);
    const isApply = type.startsWith("application/apply-patch");
    if (!found) {
      if (isApply && object.metadata.uid !== undefined) {
        throw new Refusal(409, "Conflict", "the object was deleted: its UID is a precondition");
      }
      throw new Refusal(404, "NotFound", `${collection} "${name}" not found`);
    }
    const { metadata, spec, status } = object;
    if (sub === "status") {
      // The one who applies owns the whole status: what it leaves out goes.
      const emptied = isApply ? { ...structuredClone(found), status: {} } : found;
      return this.#write(collection, emptied, { metadata, status });
    }
    return this.#write(collection, found, spec === undefined ? { metadata } : { metadata, spec });
  }

  #list(collection: string, url: URL): unknown {
    const objects = this.all(collection);
    const from = Number(url.searchParams.get("continue") ?? 0);
    const limit = Number(url.searchParams.get("limit") ?? 0) || objects.length;
    const next = from + limit < objects.length ? String(from + limit) : "";
    return {
      kind: "List",
      metadata: { resourceVersion: String(this.#version), continue: next },
      items: objects.slice(from, from + limit),
    };
  }

  #watch({ collection }: Target, url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get("resourceVersion") ?? 0);
    if (from < this.#forgotten) {
      throw new Refusal(410, "Expired", `too old resource version: ${from}`);
    }
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    const missed = this.#history.filter(
      (change) => change.version > from && change.collection === collection,
    );
    for (const { line } of missed) response.write(line);
    const watcher = { collection, response };
    this.#watchers.add(watcher);
    response.once("close", () => this.#watchers.delete(watcher));
  }
}
