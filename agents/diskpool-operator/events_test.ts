/** Events of a DiskPool, against an API server that keeps them. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { ManualClock } from "#common/clock.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { silentLog } from "#common/log.ts";
import type { EventDraft } from "./decide.ts";
import { kubeEvents } from "./kube_resources.ts";
import type { DiskPool } from "./resource.ts";

test("an event is posted once while it holds, and again when it comes back", async (t) => {
  const notes: string[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (part) => {
      text += String(part);
    });
    request.on("end", () => {
      notes.push((JSON.parse(text) as { message: string }).message); // what kubeEvents() sends
      response.writeHead(201, { "content-type": "application/json" }).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo; // it listens on TCP
  const clock = new ManualClock();
  const client = new KubeClient(
    { server: `http://127.0.0.1:${port}`, credentials: async () => ({}) },
    { clock },
  );
  const events = kubeEvents(client, { clock, log: silentLog, instance: "test" });
  const resource = { name: "p", namespace: "n", uid: "u", resourceVersion: "1" } as DiskPool; // all that is read
  const signal = new AbortController().signal;
  const away: EventDraft = { action: "a", reason: "Check", type: "Warning", note: "away" };
  const damaged: EventDraft = { ...away, note: "damaged" };
  const round = async (...drafts: EventDraft[]) => {
    for (const draft of drafts) await events.post(resource, draft, signal);
    events.settle(resource.uid, drafts);
  };
  await round(away);
  await round(away);
  await round(away, damaged);
  assert.deepEqual(notes, ["away", "damaged"]);
  await round();
  await round(damaged);
  await round(away);
  assert.deepEqual(notes, ["away", "damaged", "damaged", "away"]);
});
