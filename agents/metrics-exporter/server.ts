/** `GET /metrics`, and 404 for everything else. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { Exporter } from "./exporter.ts";
import { chooseFormat } from "./negotiate.ts";
import type { ListenAddress } from "./options.ts";

/** A scraper that is slower than this to ask is cut. */
const REQUEST_MS = 10_000;

export type MetricsServer = { readonly port: number; close(): Promise<void> };

async function answer(
  exporter: Exporter,
  { request, response }: { request: IncomingMessage; response: ServerResponse },
): Promise<void> {
  const path = (request.url ?? "/").split("?")[0];
  if (path !== "/metrics" || (request.method !== "GET" && request.method !== "HEAD")) {
    const status = path === "/metrics" ? 405 : 404;
    response.writeHead(status, { "content-type": "text/plain" });
    response.end(status === 405 ? "Only GET is allowed\n" : "Only /metrics is here\n");
    return;
  }
  // Not the scraper's own life: others may wait for the same read.
  const format = chooseFormat(request.headers.accept);
  const { contentType, body } = await exporter.scrape(format, new AbortController().signal);
  response.writeHead(200, { "content-type": contentType, vary: "Accept" });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** @throws {SvcError} `unavailable` when the address cannot be listened on */
export async function startMetricsServer(
  exporter: Exporter,
  { listen, log }: { listen: ListenAddress; log: Log },
): Promise<MetricsServer> {
  const server = createServer({ requestTimeout: REQUEST_MS }, (request, response) => {
    answer(exporter, { request, response }).catch((error: unknown) => {
      log.error("scrape failed", { error });
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
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
    await closed;
  };
  return { port, close };
}
