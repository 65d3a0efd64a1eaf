import assert from "node:assert/strict";
import { test } from "node:test";
import { storeKeys } from "./keys.ts";
import { MemoryStore } from "./memory.ts";
import { fencedNexusInfo, readNexusInfo } from "./nexus_info.ts";

const NEXUS = "aa207797-b23d-447a-8d3f-98d378acfa8a";
const VOLUME = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const SUCCESSOR = "cc207797-b23d-447a-8d3f-98d378acfa8a";
const RECORD = `{"children":[{"healthy":true,"uuid":"${VOLUME}"}],"clean_shutdown":false}`;
const keys = storeKeys({ clusterUid: "c", namespace: "mayastor" });
const key = keys.nexusInfo(VOLUME, NEXUS);

const read = (store: MemoryStore, legacy = false) =>
  readNexusInfo(store, keys, { volume: VOLUME, nexus: NEXUS, legacy });

test("fencedNexusInfo() keeps what the record said and names the successor", async () => {
  const store = new MemoryStore();
  await store.put(key, RECORD.replace("}]", ',"later":1}]'));
  const stored = await read(store);
  assert.ok(stored);
  const fence = fencedNexusInfo(stored, SUCCESSOR);
  assert.ok(await store.txn({ when: stored.unchanged, apply: [fence] }));
  const after = await store.get(key);
  assert.deepEqual(JSON.parse(after?.value ?? ""), {
    children: [{ healthy: true, uuid: VOLUME, later: 1 }],
    clean_shutdown: false,
    fenced_by: SUCCESSOR,
  });
  assert.equal((await read(store))?.info.fenced_by, SUCCESSOR);
  assert.equal(await store.txn({ when: stored.unchanged, apply: [fence] }), null, "once only");
});

test("readNexusInfo() finds a 1.0 record while it may, and notices when a newer one comes", async () => {
  const store = new MemoryStore();
  await store.put(NEXUS, RECORD);
  assert.equal(await read(store), null);
  const stored = await read(store, true);
  assert.equal(stored?.key, NEXUS);
  await store.put(key, RECORD);
  const apply = [fencedNexusInfo(stored, SUCCESSOR)];
  assert.equal(await store.txn({ when: stored.unchanged, apply }), null);
  assert.equal((await read(store, true))?.key, key);
});
