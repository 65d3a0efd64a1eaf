/** Clients that pipeline requests and never read: HTTP servers stay small, and another client is answered. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import net from "node:net";
import { test } from "node:test";
import type { Volume } from "#common/openapi/model.ts";
import { startFakeCore } from "../../agents/rest/testing/fake_core.ts";

const CONNECTIONS = 30;
const LISTS = 100;
const VOLUMES = 2000;
/** What its pod is allowed. */
const RSS_BYTES_MAX = 256 * 1024 * 1024;
const root = new URL("../..", import.meta.url).pathname;

async function rssBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]) * 1024; // the highest so far
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address ? address.port : 0;
}

test("api-rest keeps within its memory while lists are asked for and never read", {
  timeout: 120_000,
}, async () => {
  const fake = await startFakeCore();
  const volumes: Volume[] = Array.from({ length: VOLUMES }, (_, index) => manyReplicas(index));
  fake.instead.GetVolumes = async () => ({ entries: volumes });
  const port = await freePort();
  // As its image runs it.
  const args = [
    "--max-old-space-size=128",
    "--max-semi-space-size=2",
    "--import",
    "tsx",
    "agents/rest/main.ts",
    "--dummy-certificates",
    "--no-auth",
  ];
  args.push(
    "--https=127.0.0.1:0",
    `--http=127.0.0.1:${port}`,
    `--core-grpc=127.0.0.1:${fake.port}`,
  );
  const rest = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const sockets: net.Socket[] = [];
  try {
    for await (const chunk of rest.stdout) if (String(chunk).includes('"scheme":"http"')) break;
    const connect = async () => {
      const socket = net.connect(port, "127.0.0.1");
      socket.on("error", () => {}); // it may be cut: it reads nothing
      sockets.push(socket);
      await once(socket, "connect");
      return socket;
    };
    const request = "GET /v0/volumes?max_entries=0 HTTP/1.1\r\nhost: x\r\n\r\n";
    for (let index = 0; index < CONNECTIONS; index++) {
      const socket = await connect();
      socket.pause();
      socket.write(request.repeat(LISTS));
    }
    for (let turn = 0; turn < 5; turn++) {
      const startMs = performance.now();
      const answer = await fetch(`http://127.0.0.1:${port}/v0/pools`);
      assert.equal(answer.status, 200);
      await answer.arrayBuffer();
      assert.ok(performance.now() - startMs < 20_000);
    }
    const bytes = await rssBytes(rest.pid ?? 0);
    console.log(`api-rest: ${Math.round(bytes / 2 ** 20)} MiB at most, ${fake.calls.length} calls`);
    assert.ok(bytes <= RSS_BYTES_MAX, `${bytes} bytes`);
  } finally {
    for (const socket of sockets) socket.destroy();
    rest.kill();
    await fake.close();
  }
});

/** As little as a request can be, as much as a client can send. */
const FLOOD_BYTES = 1_000_000;

for (const [program, args, path] of [
  ["rest", ["--dummy-certificates", "--no-auth", "--https=127.0.0.1:0"], "/v0/pools"],
  ["metrics-exporter", ["-p5m", "--api-versions=v1"], "/metrics"],
] as const) {
  test(`${program} keeps within its memory while the smallest requests are sent on and on and never read`, {
    timeout: 120_000,
  }, async (t) => {
    const fake = await startFakeCore();
    t.after(() => fake.close());
    const port = await freePort();
    const own =
      program === "rest"
        ? [`--http=127.0.0.1:${port}`, `--core-grpc=127.0.0.1:${fake.port}`]
        : [`--metrics-endpoint=127.0.0.1:${port}`];
    const flags = ["--max-old-space-size=128", "--max-semi-space-size=2", "--import", "tsx"];
    const server = spawn(
      process.execPath,
      [...flags, `agents/${program}/main.ts`, ...args, ...own],
      {
        ...{ cwd: root, stdio: ["ignore", "pipe", "inherit"] },
        env: { ...process.env, MY_POD_IP: "127.0.0.1", MY_NODE_NAME: "node-1" },
      },
    );
    t.after(() => server.kill("SIGKILL"));
    for await (const chunk of server.stdout ?? []) if (String(chunk).includes(`${port}`)) break;
    for (const target of ["/x", "/%", path]) {
      const request = `GET ${target} HTTP/1.1\r\nHost:\r\n\r\n`;
      const floods = Array.from({ length: CONNECTIONS }, async () => {
        const socket = net.connect(port, "127.0.0.1");
        t.after(() => socket.destroy());
        const ended = new Promise((resolve) => socket.once("close", resolve));
        socket.on("error", () => {}); // it is cut
        socket.write(request.repeat(Math.ceil(FLOOD_BYTES / request.length)));
        await ended;
      });
      await Promise.all(floods); // each is cut: none may wait for ever
      const answer = await fetch(`http://127.0.0.1:${port}${path}`);
      assert.equal(answer.status, 200);
      await answer.arrayBuffer();
    }
    const bytes = await rssBytes(server.pid ?? 0);
    console.log(`${program}: ${Math.round(bytes / 2 ** 20)} MiB at most`);
    assert.ok(bytes <= RSS_BYTES_MAX, `${bytes} bytes`);
  });
}

function manyReplicas(index: number): Volume {
  const uuid = `bf207797-b23d-447a-8d3f-${String(index).padStart(12, "0")}`;
  const replica = { node: "node-1", pool: "pool-1", state: "Online" } as const;
  const ids = [1, 2, 3].map((n) => `${n}f207797-b23d-447a-8d3f-${String(index).padStart(12, "0")}`);
  return {
    spec: {
      num_replicas: 3,
      size: 2 ** 30,
      status: "Created",
      uuid,
      policy: { self_heal: true },
      thin: false,
    },
    state: {
      size: 2 ** 30,
      status: "Online",
      uuid,
      replica_topology: Object.fromEntries(ids.map((id) => [id, replica])),
    },
  };
}
