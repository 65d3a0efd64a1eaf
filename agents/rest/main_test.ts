/** The program as it is deployed: options, both listeners, the way down. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:https";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { startFakeCore } from "./testing/fake_core.ts";

const fake = await startFakeCore();
after(() => fake.close());

function start(...args: string[]) {
  const script = join(import.meta.dirname, "main.ts");
  return spawn(process.execPath, ["--import", "tsx", script, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LOG_LEVEL: "info" },
  });
}

test("api-rest serves HTTPS and HTTP until SIGTERM", async () => {
  const child = start(
    "--dummy-certificates",
    "--no-auth",
    "--https=127.0.0.1:0",
    "--http=127.0.0.1:0",
    `--core-grpc=http://127.0.0.1:${fake.port}`,
    "--request-timeout=5s",
  );
  try {
    const ports = new Map<string, number>();
    for await (const line of createInterface({ input: child.stdout })) {
      const entry: { msg: string; scheme: string; port: number } = JSON.parse(line);
      if (entry.msg === "listening") ports.set(entry.scheme, entry.port);
      if (ports.size === 2) break;
    }
    const plain = await fetch(`http://127.0.0.1:${ports.get("http")}/v0/nodes/worker-0`);
    assert.equal(plain.status, 200);
    const port = ports.get("https");
    const asked = request({ port, path: "/v0/nodes", rejectUnauthorized: false, agent: false });
    asked.end();
    const [answer] = await once(asked, "response");
    assert.equal(answer.statusCode, 200);
    answer.resume();
    await once(answer, "end");
    assert.deepEqual(
      fake.calls.map(({ method }) => method),
      ["GetNode", "GetNodes"],
    );
    child.stdout.resume();
    child.kill("SIGTERM");
    const [code] = await once(child, "exit");
    assert.equal(code, 0);
  } finally {
    child.kill("SIGKILL");
  }
});

test("api-rest says what is wrong with its options and ends with 1", async () => {
  const child = start("--no-auth");
  let text = "";
  child.stderr.on("data", (chunk) => {
    text += chunk;
  });
  child.stdout.resume();
  const [code] = await once(child, "close");
  assert.equal(code, 1);
  assert.match(text, /^Cannot start: give either --cert-file and --key-file, or --dummy-certif/);
});
