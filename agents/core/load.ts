/**
 * What agent-core reads at its start: the registry configuration, 1.0 entries to take over, all specs.
 *
 * Invariants: an unreadable spec stops the start (guessing would lose somebody's data); 1.0 entries are copied
 * before they are deleted, so a crash in between repeats the copy; what a volume's last target knew of its replicas
 * outlives 1.0 compatibility.
 */
import { SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { decodeJson, encodeJson } from "#common/store/json.ts";
import {
  REGISTRY_CONFIG_ID,
  SPEC_KINDS,
  type SpecKind,
  type StoreKeys,
} from "#common/store/keys.ts";
import type { ObjectStore, StoreEntry, StoreOp } from "#common/store/mod.ts";
import {
  NexusInfoSchema,
  type RegistryConfig,
  RegistryConfigSchema,
} from "#common/types/cluster.ts";
import { decodeStored } from "#common/types/stored.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import type { Tombstones } from "./purge/tombstones.ts";
import type { Specs } from "./specs/tables.ts";

export type Loader = {
  readonly store: ObjectStore;
  readonly keys: StoreKeys;
  readonly write: (ops: readonly StoreOp[]) => Promise<void>;
  readonly log: Log;
  readonly pageSize: number;
};

const LEGACY_LABEL = "openebs.io/created-by";
const LEGACY_LABEL_OLD = "msp-operator";
const LEGACY_LABEL_NEW = "operator-diskpool";
/** Below etcd's default limit of operations in a transaction (128). */
const WRITE_BATCH = 64;

/** Fills the tables; returns whether 1.0 compatibility is on. */
export async function loadSpecs(
  loader: Loader,
  specs: Specs,
  tombstones: Tombstones,
): Promise<{ legacy: boolean }> {
  const { store, keys, pageSize } = loader;
  const found = await store.list(keys.legacyPrefix, { pageSize });
  const config = await loadConfig(loader, found.length > 0);
  if (found.length > 0) await migrate(loader);
  const list = (kind: SpecKind | "PurgedPool" | "PurgedNode") =>
    store.list(keys.kindPrefix(kind), { pageSize });
  tombstones.load({ pools: await list("PurgedPool"), nodes: await list("PurgedNode") });
  specs.volumes.load(await list("VolumeSpec"));
  specs.nodes.load(await list("NodeSpec"));
  specs.nexuses.load(await list("NexusSpec"));
  specs.pools.load(await list("PoolSpec"));
  specs.replicas.load(await list("ReplicaSpec"));
  if (!config.mayastor_compat_v1) return { legacy: false };
  return { legacy: !(await endCompat(loader, specs, config)) };
}

async function loadConfig(loader: Loader, legacyFound: boolean): Promise<RegistryConfig> {
  const { store, keys, write } = loader;
  const key = keys.object("CoreRegistryConfig", REGISTRY_CONFIG_ID);
  const entry = await store.get(key);
  const stored = entry && decodeStored(RegistryConfigSchema, entry.value, key);
  const base = stored ?? { id: REGISTRY_CONFIG_ID, registration: "Automatic" as const };
  const config = legacyFound ? { ...base, mayastor_compat_v1: true } : base;
  if (encodeJson(config) !== entry?.value) {
    await write([{ op: "put", key, value: encodeJson(config) }]);
  }
  return config;
}

/** 1.0 named the operator differently in labels. */
export function migrateValue(value: string, key: string): string {
  const rename = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(rename);
    if (typeof node !== "object" || node === null) return node;
    return Object.fromEntries(
      Object.entries(node).map(([name, field]) =>
        name === LEGACY_LABEL && field === LEGACY_LABEL_OLD
          ? [name, LEGACY_LABEL_NEW]
          : [name, rename(field)],
      ),
    );
  };
  return encodeJson(rename(decodeJson(value, key)));
}

async function writeAll(loader: Loader, ops: readonly StoreOp[]): Promise<void> {
  for (let start = 0; start < ops.length; start += WRITE_BATCH) {
    await loader.write(ops.slice(start, start + WRITE_BATCH));
  }
}

async function migrate(loader: Loader): Promise<void> {
  const { store, keys, log, pageSize } = loader;
  for (const kind of SPEC_KINDS) {
    const prefix = keys.legacyKindPrefix(kind);
    const entries = await store.list(prefix, { pageSize });
    const idOf = (entry: StoreEntry) => entry.key.slice(prefix.length);
    const puts = entries.map((entry) => ({
      op: "put" as const,
      key: keys.object(kind, idOf(entry)),
      value: migrateValue(entry.value, entry.key),
    }));
    await writeAll(loader, puts);
    await writeAll(
      loader,
      entries.map((entry) => ({ op: "delete" as const, key: entry.key })),
    );
    if (entries.length > 0) log.info("1.0 entries taken over", { kind, count: entries.length });
  }
}

/** The nexuses that serve a volume, or may: their engine may still write a NexusInfo at the root. */
function servingNexuses({ target, operation }: VolumeSpec): string[] {
  const begun = operation?.operation;
  const old = typeof begun === "object" && "Publish" in begun ? [begun.Publish[1]] : [];
  return target?.active ? [target.nexus, ...old] : old;
}

/** Ends 1.0 compatibility once no volume depends on a NexusInfo at the root. True when it ended. */
async function endCompat(loader: Loader, specs: Specs, config: RegistryConfig): Promise<boolean> {
  const { store, keys, write, log, pageSize } = loader;
  const kept: StoreOp[] = [];
  for (const volume of specs.volumes.all()) {
    for (const nexus of servingNexuses(volume)) {
      if (!(await store.get(keys.nexusInfo(volume.uuid, nexus)))) return false;
    }
    // Unpublished: what its last nexus wrote still says which replicas may be used.
    const last = volume.target?.nexus ?? volume.last_nexus_id;
    if (last === null || (await store.get(keys.nexusInfo(volume.uuid, last)))) continue;
    const root = await store.get(keys.legacyNexusInfo(last));
    if (!root) continue;
    if (!isNexusInfo(root)) return false; // publishing it will say why it cannot be read
    kept.push({ op: "put", key: keys.nexusInfo(volume.uuid, last), value: root.value });
  }
  await writeAll(loader, kept);
  const bare = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
  const stale: StoreOp[] = [];
  for (const digit of "0123456789abcdef") {
    for (const entry of await store.list(digit, { pageSize })) {
      if (bare.test(entry.key) && isNexusInfo(entry)) stale.push({ op: "delete", key: entry.key });
    }
  }
  await writeAll(loader, stale);
  const { mayastor_compat_v1: _, ...rest } = config;
  const key = keys.object("CoreRegistryConfig", REGISTRY_CONFIG_ID);
  await write([{ op: "put", key, value: encodeJson(rest) }]);
  log.info("1.0 compatibility ended", { removed: stale.length, kept: kept.length });
  return true;
}

function isNexusInfo(entry: StoreEntry): boolean {
  try {
    decodeStored(NexusInfoSchema, entry.value, entry.key);
    return true;
  } catch (error) {
    if (error instanceof SvcError) return false; // somebody else's key: leave it
    throw error;
  }
}
