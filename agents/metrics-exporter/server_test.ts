/** The page is there for honest scrapers while others ask and never read. */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { silentLog } from "#common/log.ts";
import type { Exporter, Page } from "./exporter.ts";
import { startMetricsServer } from "./server.ts";

const PAGE_BYTES = 2 ** 20;
const GET = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";

test("pages that nobody reads are bounded, and a scraper is told to come again", async (t) => {
  let pages = 0;
  const page: Page = { contentType: "text/plain", body: "x".repeat(PAGE_BYTES) };
  const exporter = {
    scrape: async () => {
      pages += 1;
      return page;
    },
  };
  const listen = { host: "127.0.0.1", port: 0 };
  const server = await startMetricsServer(exporter as unknown as Exporter, {
    ...{ listen, log: silentLog, clock: systemClock },
  });
  const url = `http://127.0.0.1:${server.port}`;
  const sockets: net.Socket[] = [];
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await server.close();
  });
  assert.equal((await (await fetch(`${url}/metrics`)).text()).length, PAGE_BYTES);
  assert.equal((await fetch(`${url}/other`)).status, 404);
  assert.equal((await fetch(`${url}/metrics`, { method: "PUT" })).status, 405);
  const head = await fetch(`${url}/metrics`, { method: "HEAD" });
  assert.equal(await head.text(), "");
  pages = 0;
  for (let index = 0; index < 30; index++) {
    const socket = net.connect(server.port, "127.0.0.1");
    sockets.push(socket);
    socket.on("error", () => {}); // it may be cut
    await once(socket, "connect");
    socket.pause();
    socket.write(GET.repeat(100));
  }
  const scrape = async () => {
    const answer = await fetch(`${url}/metrics`);
    await answer.arrayBuffer();
    return { status: answer.status, retryAfter: answer.headers.get("retry-after") };
  };
  const seen = await scrape();
  assert.ok(seen.status === 200 || (seen.status === 503 && seen.retryAfter === "1"));
  assert.ok(pages <= 64, `${pages} pages were made`); // 30 x 100 were asked for
  for (const socket of sockets) socket.destroy();
  // Whoever comes when they are gone is served.
  while ((await scrape()).status !== 200) assert.ok(pages < 100);
});
