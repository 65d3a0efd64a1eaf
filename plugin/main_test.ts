/** The program itself: what a signal does to it. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, test } from "node:test";
import { startFakeRest } from "./testing/fake_rest.ts";

const rest = await startFakeRest();
after(() => rest.close());

test("the first Ctrl-C ends a command that waits, with code 1", { timeout: 60_000 }, async () => {
  const args = ["--import", "tsx", join(import.meta.dirname, "main.ts"), "-r", rest.url];
  const child = spawn(process.execPath, [...args, "-t", "5m", "get", "nodes"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  try {
    rest.answers["GET /v0/nodes"] = { body: null, instead: () => child.kill("SIGINT") };
    let err = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text;
    });
    const [code] = await once(child, "close");
    assert.match(err, /^Failed to list nodes\. Error error in request: .*: interrupted\n$/);
    assert.equal(code, 1);
  } finally {
    child.kill("SIGKILL");
  }
});
