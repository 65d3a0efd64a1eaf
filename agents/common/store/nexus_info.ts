/**
 * NexusInfo: the nexus's own word on which children are healthy, kept in the store by the engine.
 *
 * Invariants: while 1.0 compatibility is on, a missing v2 document falls back to the bare uuid key; an engine replaces
 * only what its nexus put last, so a record that agent-core fenced says for good what that nexus may have done.
 */
import { type NexusInfo, NexusInfoSchema } from "../types/cluster.ts";
import { decodeStored } from "../types/stored.ts";
import { encodeJson } from "./json.ts";
import type { StoreKeys } from "./keys.ts";
import type { Compare, ObjectStore, StoreOp } from "./mod.ts";

export type NexusInfoId = { readonly volume: string | null; readonly nexus: string };

/** What a record said, where, and what holds as long as it says the same. */
export type StoredNexusInfo = {
  readonly key: string;
  readonly info: NexusInfo;
  readonly unchanged: readonly Compare[];
};

export async function readNexusInfo(
  store: Pick<ObjectStore, "get">,
  keys: StoreKeys,
  { volume, nexus, legacy }: NexusInfoId & { readonly legacy: boolean },
): Promise<StoredNexusInfo | null> {
  const unchanged: Compare[] = [];
  const places = [keys.nexusInfo(volume, nexus), ...(legacy ? [keys.legacyNexusInfo(nexus)] : [])];
  for (const key of places) {
    const entry = await store.get(key);
    unchanged.push({ target: "mod", key, is: entry?.modRevision ?? 0n });
    if (!entry) continue;
    return { key, info: decodeStored(NexusInfoSchema, entry.value, key), unchanged };
  }
  return null;
}

/** The same record under another revision, naming the nexus that comes instead: its maker cannot put it any more. */
export function fencedNexusInfo({ key, info }: StoredNexusInfo, by: string): StoreOp {
  return { op: "put", key, value: encodeJson({ ...info, fenced_by: by }) };
}
