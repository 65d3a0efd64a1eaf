import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import net from "node:net";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { firstPort, loopbackAddress } from "./slot.ts";

const root = path.resolve(import.meta.dirname, "..", "..");

test("a slot is another process's no more than its addresses are, whatever the process ids", async () => {
  // Claims as a process with our id would.
  const script = `Object.defineProperty(process, "pid", { value: ${process.pid} });
    const { firstPort, loopbackAddress } = await import("./test/support/slot.ts");
    console.log(firstPort, loopbackAddress());`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--input-type=module", "-e", script],
    { cwd: root },
  );
  const [port, address] = stdout.trim().split(" ");
  assert.notEqual(Number(port), firstPort);
  assert.notEqual(address, loopbackAddress());
});

test("every port of a slot but the claim's is free, and below those of outgoing connections", async () => {
  assert.ok(firstPort >= 10_000 && firstPort + 19 < 20_000);
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: "127.0.0.1", port: firstPort, exclusive: true }, resolve);
  });
  await new Promise((resolve) => server.close(resolve));
});
