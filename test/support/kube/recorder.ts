/**
 * Stands between a program and the API server and writes down every call, as the authorizer sees it.
 *
 * Why: rights are least when they are exactly the calls that are made; and a program is cut off from the API server
 * here while everything else goes on.
 * Invariants: it changes nothing of what passes; the program's own token is what the API server judges.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, request as httpsRequest, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import os from "node:os";
import path from "node:path";

/** What RBAC decides on. */
export type Attributes = {
  readonly verb: string;
  readonly group: string;
  /** With its subresource, as rules spell it: `diskpools/status`. */
  readonly resource: string;
  readonly namespace: string | null;
  /** Null for list, watch and create. */
  readonly name: string | null;
};

export type RecordedCall = Attributes & {
  readonly path: string;
  /** Null until the API server has answered. */
  status: number | null;
  readonly body: string;
};

const VERBS: Readonly<Record<string, readonly [one: string, all: string]>> = {
  GET: ["get", "list"],
  POST: ["create", "create"],
  PUT: ["update", "update"],
  PATCH: ["patch", "patch"],
  DELETE: ["delete", "deletecollection"],
};

/** Null for what is not about a resource (discovery, version, health). */
export function attributesOf(method: string, url: string): Attributes | null {
  const { pathname, searchParams } = new URL(url, "https://api.invalid");
  const parts = pathname
    .split("/")
    .filter((part) => part !== "")
    .map(decodeURIComponent);
  const isCore = parts[0] === "api";
  if (!isCore && parts[0] !== "apis") return null;
  const rest = parts.slice(isCore ? 2 : 3);
  if (rest.length === 0) return null;
  const group = isCore ? "" : (parts[1] ?? "");
  // `namespaces/x` alone is the namespace itself.
  const namespace = rest[0] === "namespaces" && rest.length > 2 ? (rest[1] ?? null) : null;
  const [resource = "", name = null, subresource] = namespace === null ? rest : rest.slice(2);
  const [one, all] = VERBS[method] ?? [method.toLowerCase(), method.toLowerCase()];
  const watches = ["1", "true"].includes(searchParams.get("watch") ?? "");
  const verb = method === "GET" && watches ? "watch" : name === null ? all : one;
  const full = subresource === undefined ? resource : `${resource}/${subresource}`;
  return { verb, group, resource: full, namespace, name };
}

export class ApiRecorder {
  readonly calls: RecordedCall[] = [];
  /** What a program must trust to talk to the API server through here. */
  readonly caPem: Buffer;
  readonly #server: Server;
  readonly #target: { readonly server: string; readonly ca: Buffer };
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  private constructor(
    target: { readonly server: string; readonly ca: Buffer },
    tls: { readonly key: Buffer; readonly cert: Buffer },
  ) {
    this.#target = target;
    this.caPem = tls.cert;
    this.#server = createServer(tls, (request, response) => this.#pass(request, response));
    this.#server.on("connection", (socket: Socket) => {
      if (this.#isCut) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("tlsClientError", () => {}); // the client's business
  }

  static async start(target: {
    readonly server: string;
    readonly ca: Buffer;
  }): Promise<ApiRecorder> {
    const recorder = new ApiRecorder(target, selfSigned());
    await new Promise<void>((resolve) => recorder.#server.listen(0, "127.0.0.1", resolve));
    return recorder;
  }

  get host(): string {
    return "127.0.0.1";
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // it listens on TCP
  }

  /** From now on nothing passes and every connection ends. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  /** Calls that the API server answered. */
  answered(): readonly RecordedCall[] {
    return this.calls.filter(({ status }) => status !== null);
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #pass(request: IncomingMessage, response: ServerResponse): void {
    const { method = "GET", url = "/" } = request;
    const attributes = attributesOf(method, url);
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("error", () => {}); // its connection ended: the response sees it too
    request.on("end", () => {
      const body = Buffer.concat(parts);
      const call: RecordedCall | null =
        attributes === null
          ? null
          : { ...attributes, path: url, status: null, body: body.toString("utf8") };
      if (call !== null) this.calls.push(call);
      const { host: _, ...headers } = request.headers;
      const options = { method, headers, ca: this.#target.ca };
      const upstream = httpsRequest(new URL(this.#target.server + url), options, (answer) => {
        if (call !== null) call.status = answer.statusCode ?? 0;
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        response.flushHeaders(); // a watch begins before its first event
        answer.on("error", () => response.destroy());
        answer.pipe(response);
      });
      upstream.on("error", () => response.destroy()); // the program sees a lost connection
      response.on("close", () => upstream.destroy());
      upstream.end(body);
    });
  }
}

/** A certificate for 127.0.0.1 that is its own authority. */
function selfSigned(): { key: Buffer; cert: Buffer } {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-tls-"));
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(folder, name));
  try {
    execFileSync(
      "openssl",
      [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        ...["-keyout", key ?? "", "-out", cert ?? "", "-days", "2", "-subj", "/CN=api-recorder"],
        ...["-addext", "subjectAltName=IP:127.0.0.1"],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    return { key: readFileSync(key ?? ""), cert: readFileSync(cert ?? "") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
