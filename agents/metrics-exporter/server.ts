/**
 * `GET /metrics`, and 404 for everything else.
 *
 * Invariant: what is under way is bounded, per connection and in all: a client that asks and never reads cannot take the
 * memory of the pod. close() ends within a bounded time, whatever the peers do.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Clock } from "#common/clock.ts";
import { errorMessage, isKind, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import {
  ADMISSION_LIMITS,
  Admission,
  type AdmissionLimits,
  boundPipelines,
} from "#common/rpc/http_admission.ts";
import type { Exporter } from "./exporter.ts";
import { chooseFormat } from "./negotiate.ts";
import type { ListenAddress } from "./options.ts";

/** A scraper that is slower than this to ask is cut. */
const REQUEST_MS = 10_000;
/** Connections at a time: a few servers scrape, one connection each. */
const CONNECTIONS_MAX = 128;
/** Above a page of a node with hundreds of volumes, and far below the memory of the pod. */
const LIMITS: AdmissionLimits = { ...ADMISSION_LIMITS, queue: 64, unreadBytes: 8 * 1024 * 1024 };
/** What a client waits before it asks again after a 503. */
const RETRY_AFTER_S = "1";
/** How long close() lets running scrapes finish. */
const DRAIN_MS = 5_000;

export type MetricsServer = { readonly port: number; close(): Promise<void> };
type Exchange = { readonly request: IncomingMessage; readonly response: ServerResponse };

function plain(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "text/plain" });
  response.end(text);
}

async function answer(
  exporter: Exporter,
  admission: Admission,
  { request, response }: Exchange,
): Promise<void> {
  const path = (request.url ?? "/").split("?")[0];
  const isRead = request.method === "GET" || request.method === "HEAD";
  const { socket } = request;
  const gone = new AbortController();
  response.once("close", () => gone.abort(new SvcError("aborted", "The client has gone")));
  const isLarge = path === "/metrics" && isRead;
  const exchange = { socket, response, signal: gone.signal, isLarge, route: "/metrics" };
  await admission.run(exchange, async () => {
    if (path !== "/metrics") return plain(response, 404, "Only /metrics is here\n");
    if (!isRead) return plain(response, 405, "Only GET is allowed\n");
    // Not the scraper's own life: others may wait for the same read.
    const format = chooseFormat(request.headers.accept);
    const { contentType, body } = await exporter.scrape(format, new AbortController().signal);
    const isHead = request.method === "HEAD";
    admission.answering(exchange, isHead ? 0 : body.length);
    response.writeHead(200, { "content-type": contentType, vary: "Accept" });
    response.end(isHead ? undefined : body);
  });
}

function refuse(error: unknown, response: ServerResponse): void {
  if (response.headersSent) response.end();
  else if (isKind(error, "unavailable")) {
    response.setHeader("retry-after", RETRY_AFTER_S);
    plain(response, 503, `${error.message}\n`);
  } else plain(response, 500, "");
}

/** @throws {SvcError} `unavailable` when the address cannot be listened on */
export async function startMetricsServer(
  exporter: Exporter,
  { listen, log, clock }: { listen: ListenAddress; log: Log; clock: Clock },
): Promise<MetricsServer> {
  const admission = new Admission(clock, LIMITS);
  const server = createServer({ requestTimeout: REQUEST_MS }, (request, response) => {
    answer(exporter, admission, { request, response }).catch((error: unknown) => {
      if (!isKind(error, "unavailable", "aborted")) log.error("scrape failed", { error });
      refuse(error, response);
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  boundPipelines(server);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      const where = `${listen.host}:${listen.port}`;
      const message = `Cannot serve metrics on ${where}: ${errorMessage(error)}`;
      reject(new SvcError("unavailable", message, { cause: error }));
    });
    server.listen({ host: listen.host, port: listen.port }, resolve);
  });
  const { port } = server.address() as AddressInfo; // listening on TCP
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeIdleConnections();
    const drained = new AbortController();
    const cutLate = clock.sleep(DRAIN_MS, drained.signal).then(
      () => server.closeAllConnections(),
      () => {}, // drained in time
    );
    await closed;
    drained.abort();
    await cutLate;
  };
  return { port, close };
}
