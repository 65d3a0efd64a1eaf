/**
 * The REST server: HTTP in, one route of the table, HTTP out.
 *
 * Why fastify: routing and connection handling; parsing, errors and the document are the route table's own, so that
 * the quirks of the published interface are in one place.
 * Invariants: every answer above 399 is a RestJsonError; a request's signal is aborted when its client goes away or
 * the server is stopped late; close() ends within a bounded time, whatever the peers do; nothing is kept between
 * requests.
 */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from "fastify";
import type { Clock } from "#common/clock.ts";
import { errorMessage, isKind, SvcError, toSvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { ERROR_STATUS, toRestError } from "#common/openapi/errors.ts";
import { type RestJsonError, RestJsonErrorSchema } from "#common/openapi/model.ts";
import type { CoreClient } from "#common/rpc/core_api.ts";
import { Admission, boundPipelines } from "#common/rpc/http_admission.ts";
import type { Verifier } from "./auth.ts";
import type { KeyAndCertificate } from "./certificate.ts";
import { BASE_PATH, makeDocument } from "./document.ts";
import { plain, type RawRequest, type Route } from "./route.ts";
import { routes } from "./routes/mod.ts";
import { pageHtml } from "./ui.ts";

/** A volume with hundreds of labels fits; a mistaken upload does not. */
const BODY_BYTES_MAX = 1024 * 1024;
/** Child URIs are path segments. */
const PARAM_LENGTH_MAX = 4096;
/** How long a client may take to send its headers, and its whole request. */
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;
/** Connections at a time: far above what operators and agents of a large cluster keep. */
const CONNECTIONS_MAX = 1024;
/** What a client waits before it asks again after a 503. */
const RETRY_AFTER_S = "1";
/** How long close() lets running requests finish before it aborts them. */
const DRAIN_MS = 5_000;
/** How long the aborted ones have to be answered before their connections are cut. */
const ANSWER_MS = 1_000;

export type RestServer = {
  /** Starts to listen; resolves to the port really bound. @throws {SvcError} `unavailable` */
  listen(address: { host: string; port: number }): Promise<number>;
  close(): Promise<void>;
  /** For tests: answers without a network; limits. */
  readonly app: Pick<FastifyInstance, "inject" | "server">;
};

export type RestServerOptions = {
  readonly core: CoreClient;
  readonly verifier: Verifier;
  readonly log: Log;
  readonly clock: Clock;
  /** null: plain HTTP */
  readonly tls: KeyAndCertificate | null;
  /** Shared by the listeners of a process; its own when not given. */
  readonly admission?: Admission;
};

/** `/nodes/{id}` as fastify spells it; a child's URI may hold slashes and takes the rest of the path. */
export function fastifyPath(path: string): string {
  return BASE_PATH + path.replace("{child_id}", "*").replaceAll(/\{(\w+)\}/g, ":$1");
}

/** The status and body that a failure is answered with. */
export function errorAnswer(error: unknown, url: string): { status: number; body: RestJsonError } {
  const failure = toSvcError(error, "Cannot answer the request");
  const rest = toRestError(failure);
  const status = ERROR_STATUS[rest.kind];
  if (isKind(failure, "deserialize")) return { status, body: { ...rest, message: "" } };
  if (isKind(failure, "unauthorized")) return { status, body: { ...rest, message: url } };
  return { status, body: rest };
}

function send(reply: FastifyReply, status: number, value: unknown): unknown {
  return reply.code(status).type("application/json").send(JSON.stringify(value));
}

/** What fastify itself refuses (bad URL, body too large, broken framing) becomes a parse failure. */
function fromFramework(error: unknown): unknown {
  if (error instanceof SvcError || !(error instanceof Error)) return error;
  const status = "statusCode" in error ? error.statusCode : undefined;
  return typeof status === "number" && status >= 400 && status < 500
    ? new SvcError("deserialize", error.message, { cause: error })
    : error;
}

/**
 * Answers what is not even HTTP, or did not come in time, on the bare socket. A peer that has gone gets nothing.
 */
function refuseSocket(error: Error & { readonly code: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const late = error.code === "ERR_HTTP_REQUEST_TIMEOUT";
  const rest: RestJsonError = late
    ? { details: "The request did not arrive in time", message: "", kind: "Timeout" }
    : { details: `Cannot read the request: ${error.message}`, message: "", kind: "Deserialize" };
  const status = ERROR_STATUS[rest.kind];
  const body = JSON.stringify(rest);
  socket.write(
    [
      `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`,
      "content-type: application/json",
      `content-length: ${Buffer.byteLength(body)}`,
      ...["connection: close", "", body],
    ].join("\r\n"),
  );
  socket.destroySoon();
}

/** What the body of a request may take; one that does not say counts as the largest allowed. */
function bodyBytes({ headers }: FastifyRequest): number {
  if (headers["transfer-encoding"] !== undefined) return BODY_BYTES_MAX;
  const bytes = Number(headers["content-length"] ?? 0);
  return Math.min(bytes, BODY_BYTES_MAX); // a larger one is refused before it is read
}

/**
 * Lists grow with the cluster. What an engine is asked for waits for it, and must not hold up everybody's lists meanwhile; it
 * is as large as one node.
 */
export function hasLargeAnswer({ method, path }: Pick<Route, "method" | "path">): boolean {
  return method === "GET" && !path.endsWith("}") && !path.endsWith("/block_devices");
}

function rawRequest(request: FastifyRequest): RawRequest {
  const mark = request.url.indexOf("?");
  // fastify's params are the decoded segments by name; "*" is the rest of the path.
  const params = { ...(request.params as Record<string, string>) };
  const rest = params["*"];
  if (rest !== undefined) params["child_id"] = rest;
  return {
    params,
    query: mark < 0 ? null : request.url.slice(mark + 1),
    body: typeof request.body === "string" ? request.body : "",
  };
}

/** Makes the server; listen() starts it. */
export function makeRestServer(options: RestServerOptions): RestServer {
  const { core, verifier, log, clock, tls, admission = new Admission(clock) } = options;
  const document = makeDocument(routes, plain(RestJsonErrorSchema));
  const documentText = JSON.stringify(document);
  const page = pageHtml(document, `${BASE_PATH}/api/spec`);
  const stopped = new AbortController();
  const sockets = new Set<Socket>();
  let closing = false;

  const answerError = (error: unknown, request: FastifyRequest, reply: FastifyReply): unknown => {
    const { status, body } = errorAnswer(fromFramework(error), request.url);
    const fields = { "http.method": request.method, "http.url": request.url, status, error };
    if (status >= 500) log.warn("request failed", fields);
    else log.debug("request failed", fields);
    if (status === 503) reply.header("retry-after", RETRY_AFTER_S);
    return send(reply, status, body);
  };

  const common = {
    exposeHeadRoutes: false,
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: "idle" as const,
    return503OnClosing: false, // ours below is a RestJsonError
    requestTimeout: REQUEST_MS,
    clientErrorHandler: refuseSocket,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    frameworkErrors: answerError,
  };
  // The two servers differ only in the socket below; everything registered here is the same.
  const app = (
    tls ? fastify({ ...common, https: { key: tls.key, cert: tls.cert } }) : fastify(common)
  ) as FastifyInstance;

  app.server.headersTimeout = HEADERS_MS;
  app.server.maxConnections = CONNECTIONS_MAX;
  boundPipelines(app.server);
  // The raw connections: with TLS also those that never finish, or never begin, their handshake.
  app.server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });

  app.addHook("onRequest", async (request, reply) => {
    if (closing) {
      reply.header("connection", "close");
      throw new SvcError("unavailable", "The server is stopping");
    }
    admission.body(request.raw.socket, reply.raw, bodyBytes(request));
  });

  // Bodies stay text: the route that wants one parses it, and says what is wrong in its own words.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "string" }, (_request, body, done) => done(null, body));
  app.setErrorHandler(answerError);
  app.setNotFoundHandler((request, reply) => {
    const body: RestJsonError = {
      details: `${request.method} ${request.url}: no such operation`,
      message: "",
      kind: "NotFound",
    };
    return send(reply, ERROR_STATUS.NotFound, body);
  });

  const handle = async (route: Route, request: FastifyRequest, reply: FastifyReply) => {
    verifier.verify(request.headers.authorization);
    const gone = new AbortController();
    const onClose = () => {
      if (!reply.raw.writableFinished) gone.abort(new SvcError("aborted", "The client has gone"));
    };
    reply.raw.once("close", onClose);
    const signal = AbortSignal.any([gone.signal, stopped.signal]);
    const isLarge = hasLargeAnswer(route);
    const to = { socket: request.raw.socket, response: reply.raw };
    const exchange = { ...to, signal, isLarge, route: route.path };
    return await admission.run(exchange, async () => {
      const value = await route.run(rawRequest(request), { core, signal });
      if (!route.response) return reply.code(204).send();
      const text = JSON.stringify(value);
      admission.answering(exchange, text.length);
      return reply.code(200).type("application/json").send(text);
    });
  };
  for (const route of routes) {
    app.route({
      method: route.method,
      url: fastifyPath(route.path),
      handler: (request, reply) => handle(route, request, reply),
    });
  }
  app.get(`${BASE_PATH}/api/spec`, (_request, reply) =>
    reply.type("application/json").send(documentText),
  );
  app.get(`${BASE_PATH}/swagger-ui`, (_request, reply) =>
    reply.type("text/html; charset=utf-8").send(page),
  );

  return {
    app,
    async listen({ host, port }) {
      try {
        await app.listen({ host, port });
      } catch (error) {
        const message = `Cannot serve REST on ${host}:${port}: ${errorMessage(error)}`;
        throw new SvcError("unavailable", message, { cause: error });
      }
      const bound = app.addresses()[0];
      return typeof bound === "object" ? bound.port : port;
    },
    async close() {
      closing = true;
      const drained = new AbortController();
      const cutLate = async () => {
        await clock.sleep(DRAIN_MS, drained.signal);
        stopped.abort(new SvcError("unavailable", "The server is stopping"));
        await clock.sleep(ANSWER_MS, drained.signal);
        for (const socket of sockets) socket.destroy();
      };
      const late = cutLate().catch(() => {}); // drained in time
      await app.close();
      drained.abort();
      await late;
    },
  };
}
