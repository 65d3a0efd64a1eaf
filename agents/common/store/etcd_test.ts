/** What only the real etcd can do to us: crash, come back, compact its history. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../clock.ts";
import { EtcdStore } from "./etcd.ts";
import type { StoreEvent } from "./mod.ts";
import { EtcdServer, etcdMissing } from "./testing/etcd.ts";

describe("EtcdStore and its server's troubles", { skip: etcdMissing(), timeout: 90_000 }, () => {
  let server: EtcdServer;
  let store: EtcdStore;
  before(async () => {
    server = await EtcdServer.create();
    store = new EtcdStore({ endpoints: server.endpoint, timeoutMs: 2000 });
  });
  after(async () => {
    await store.close();
    await server.stop();
  });

  test("a call fails as unavailable or late while the server is down, and works again after", async () => {
    await store.put("/k", "kept");
    await server.kill();
    await assert.rejects(store.get("/k"), (error: { kind?: string }) =>
      ["unavailable", "deadline-exceeded"].includes(error.kind ?? ""),
    );
    await server.start();
    for (;;) {
      try {
        assert.equal((await store.get("/k"))?.value, "kept");
        return;
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        await systemClock.sleep(50); // the client's connection is still coming back
      }
    }
  });

  test("a watch that missed compacted history reports a reset and goes on", async () => {
    const events: StoreEvent[] = [];
    const watch = await store.watchPrefix("/c/", (event) => events.push(event));
    const other = new EtcdStore({ endpoints: server.endpoint, timeoutMs: 5000 });
    await store.put("/c/1", "seen");
    while (events.length < 1) await systemClock.sleep(10);
    await server.kill();
    await server.start();
    // The watcher is still backing off: everything it will ask for is compacted first.
    let revision = 0n;
    for (const value of ["a", "b", "c"]) {
      await other.put("/c/2", value);
      revision = (await other.get("/c/2"))?.modRevision ?? 0n;
    }
    execFileSync(
      "/usr/bin/etcdctl",
      [`--endpoints=${server.endpoint}`, "compact", revision.toString()],
      { env: { ETCDCTL_API: "3" } },
    );
    await store.put("/c/3", "later");
    const last = () => events.at(-1);
    const complete = () => {
      const event = last();
      if (event?.type === "reset") return event.entries.some((entry) => entry.key === "/c/3");
      return event?.type === "put" && event.entry.key === "/c/3";
    };
    while (!complete()) await systemClock.sleep(10);
    await other.put("/c/4", "live");
    const live = () => {
      const event = last();
      return event?.type === "put" && event.entry.key === "/c/4";
    };
    while (!live()) await systemClock.sleep(10);
    await watch.close();
    await other.close();
  });
});
