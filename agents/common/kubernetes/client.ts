/**
 * A client of the Kubernetes API server: requests, server-side apply and watches, over node's own HTTP.
 *
 * Why our own: the agents use six verbs on four kinds; this way every request has a deadline and obeys a signal,
 * and nothing but this file is loaded for it.
 * Invariants: a failure is a KubeError with the server's status and reason (status 0: it was not reached); a body
 * is bounded; a watch ends by itself when the server goes silent.
 * Source: Kubernetes documentation, "Kubernetes API concepts".
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { type Clock, deadlineSignal, systemClock } from "../clock.ts";
import { errorMessage, SvcError, type SvcErrorKind } from "../errors.ts";
import type { Connection } from "./connection.ts";

/** A list page of 500 objects is far below it. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;
/** etcd refuses objects above 1.5 MiB; an event carries one. */
const EVENT_BYTES_MAX = 8 * 1024 * 1024;
const REQUEST_MS = 30_000;
/** A silent watch is cut this long after the server should have ended it. */
const WATCH_GRACE_MS = 30_000;
const TCP_KEEPALIVE_MS = 20_000;

/** A failure as the API server tells it (`Status`), or as the connection does. */
export class KubeError extends SvcError {
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** e.g. NotFound, AlreadyExists, Conflict, Expired, Invalid. */
  readonly reason: string;

  constructor(
    message: string,
    { status, reason, cause }: { status: number; reason: string; cause?: unknown },
  ) {
    super(kindOf(status, reason), message, { fields: { status, reason }, cause });
    this.name = "KubeError";
    this.status = status;
    this.reason = reason;
  }
}

const KINDS: Readonly<Record<number, SvcErrorKind>> = {
  400: "invalid-argument",
  401: "unauthenticated",
  403: "permission-denied",
  404: "not-found",
  409: "conflict",
  410: "out-of-range",
  422: "invalid-argument",
};

function kindOf(status: number, reason: string): SvcErrorKind {
  if (reason === "AlreadyExists") return "already-exists";
  const known = KINDS[status];
  if (known !== undefined) return known;
  return status === 0 || status === 429 || status >= 500 ? "unavailable" : "internal";
}

/** The resource version is too old: what happened since is not known any more, list again. */
export function isGone(error: unknown): boolean {
  return error instanceof KubeError && error.status === 410;
}

export type PatchType = "apply" | "merge" | "json";
const PATCH_CONTENT: Readonly<Record<PatchType, string>> = {
  apply: "application/apply-patch+yaml", // JSON is YAML
  merge: "application/merge-patch+json",
  json: "application/json-patch+json",
};

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export type WatchEvent = {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: unknown;
};

type Call = {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Query;
  readonly body?: unknown;
  readonly contentType?: string;
};

function queryText(query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) params.set(key, String(value));
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/** The parts of a Status object that a person or a caller needs. */
function failureOf(call: Call, status: number, text: string): KubeError {
  let reason = "";
  let message = text.slice(0, 500).trim();
  try {
    const parsed = JSON.parse(text) as { reason?: unknown; message?: unknown } | null;
    if (typeof parsed?.reason === "string") reason = parsed.reason;
    if (typeof parsed?.message === "string") message = parsed.message;
  } catch {
    // a proxy's own page: its text has to do
  }
  const what = `Cannot ${call.method} ${call.path}: ${message || "no reason given"}`;
  return new KubeError(`${what} (status ${status})`, { status, reason });
}

async function readText(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response) {
    const buffer = part as Buffer; // no encoding is set, so parts are buffers
    bytes += buffer.length;
    if (bytes > BODY_BYTES_MAX) {
      response.destroy();
      throw new SvcError("resource-exhausted", "Cannot read an answer above 64 MiB");
    }
    parts.push(buffer);
  }
  return Buffer.concat(parts).toString("utf8");
}

export class KubeClient {
  readonly #connection: Connection;
  readonly #clock: Clock;

  constructor(connection: Connection, { clock = systemClock }: { clock?: Clock } = {}) {
    this.#connection = connection;
    this.#clock = clock;
  }

  get server(): string {
    return this.#connection.server;
  }

  get(path: string, options: { signal: AbortSignal; query?: Query }): Promise<unknown> {
    return this.#request({ method: "GET", path, ...queryOf(options) }, options.signal);
  }

  create(path: string, body: unknown, options: { signal: AbortSignal }): Promise<unknown> {
    return this.#request({ method: "POST", path, body }, options.signal);
  }

  /** Refused with `conflict` unless the body's resourceVersion is the current one. */
  replace(path: string, body: unknown, options: { signal: AbortSignal }): Promise<unknown> {
    return this.#request({ method: "PUT", path, body }, options.signal);
  }

  patch(
    path: string,
    body: unknown,
    { type, signal, query }: { type: PatchType; signal: AbortSignal; query?: Query },
  ): Promise<unknown> {
    const contentType = PATCH_CONTENT[type];
    return this.#request(
      { method: "PATCH", path, body, contentType, ...queryOf({ query }) },
      signal,
    );
  }

  /** Server-side apply: states what `fieldManager` wants; what it leaves out is none of its business. */
  apply(
    path: string,
    body: unknown,
    { fieldManager, signal }: { fieldManager: string; signal: AbortSignal },
  ): Promise<unknown> {
    return this.patch(path, body, { type: "apply", signal, query: { fieldManager, force: true } });
  }

  /**
   * Events of a collection after `resourceVersion`, until the server ends the watch or `signal` is aborted.
   * @throws {KubeError} 410 when the version is too old
   */
  async *watch(
    path: string,
    {
      resourceVersion,
      timeoutSec,
      signal,
    }: { resourceVersion: string; timeoutSec: number; signal: AbortSignal },
  ): AsyncGenerator<WatchEvent> {
    const query = {
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion,
      timeoutSeconds: timeoutSec,
    };
    const call: Call = { method: "GET", path, query };
    const limit = deadlineSignal(this.#clock, timeoutSec * 1000 + WATCH_GRACE_MS, signal);
    try {
      const response = await this.#send(call, limit.signal);
      if (response.statusCode !== 200) {
        throw failureOf(call, response.statusCode ?? 0, await readText(response));
      }
      for await (const line of linesOf(response)) {
        const event = JSON.parse(line) as WatchEvent; // the fields are checked by who uses them
        if (event.type === "ERROR") {
          const { code } = event.object as { code?: unknown }; // a Status object
          const status = typeof code === "number" ? code : 500;
          throw failureOf(call, status, JSON.stringify(event.object));
        }
        yield event;
      }
    } catch (error) {
      throw this.#wrap(call, error);
    } finally {
      limit.clear();
    }
  }

  async #request(call: Call, signal: AbortSignal): Promise<unknown> {
    const limit = deadlineSignal(this.#clock, REQUEST_MS, signal);
    try {
      const response = await this.#send(call, limit.signal);
      const text = await readText(response);
      const status = response.statusCode ?? 0;
      if (status < 200 || status > 299) throw failureOf(call, status, text);
      return text === "" ? null : (JSON.parse(text) as unknown);
    } catch (error) {
      throw this.#wrap(call, error);
    } finally {
      limit.clear();
    }
  }

  #wrap(call: Call, error: unknown): SvcError {
    if (error instanceof SvcError) return error;
    const what = `Cannot ${call.method} ${call.path} on ${this.server}`;
    const reason = error instanceof SyntaxError ? "the answer is no JSON" : errorMessage(error);
    return new KubeError(`${what}: ${reason}`, { status: 0, reason: "Unreachable", cause: error });
  }

  async #send(call: Call, signal: AbortSignal): Promise<IncomingMessage> {
    const { headers, ...credentials } = await this.#connection.credentials();
    const body = call.body === undefined ? null : Buffer.from(JSON.stringify(call.body), "utf8");
    const url = new URL(this.server + call.path + queryText(call.query));
    const options = {
      ...credentials,
      method: call.method,
      signal,
      headers: {
        ...headers,
        accept: "application/json",
        ...(body === null
          ? {}
          : {
              "content-type": call.contentType ?? "application/json",
              "content-length": body.length,
            }),
      },
    };
    return await new Promise((resolve, reject) => {
      const send = url.protocol === "https:" ? httpsRequest : httpRequest;
      const request = send(url, options, resolve);
      request.once("error", reject);
      request.once("socket", (socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS));
      request.end(body ?? undefined);
    });
  }
}

function queryOf({ query }: { query?: Query | undefined }): { query?: Query } {
  return query === undefined ? {} : { query };
}

async function* linesOf(response: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  response.setEncoding("utf8");
  for await (const part of response) {
    rest += part as string; // the encoding is set
    if (rest.length > EVENT_BYTES_MAX) {
      throw new SvcError("resource-exhausted", "Cannot read a watch event above 8 MiB");
    }
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") yield line;
  }
}
