/**
 * NexusInfo: the nexus's own word on which children are healthy, kept in the store by the engine.
 *
 * Invariant: while 1.0 compatibility is on, a missing v2 document falls back to the bare uuid key.
 */

import { type NexusInfo, NexusInfoSchema } from "../types/cluster.ts";
import { decodeStored } from "../types/stored.ts";
import type { StoreKeys } from "./keys.ts";
import type { ObjectStore } from "./mod.ts";

export type NexusInfoId = { readonly volume: string | null; readonly nexus: string };

export async function readNexusInfo(
  store: Pick<ObjectStore, "get">,
  keys: StoreKeys,
  { volume, nexus, legacy }: NexusInfoId & { readonly legacy: boolean },
): Promise<NexusInfo | null> {
  const key = keys.nexusInfo(volume, nexus);
  const entry =
    (await store.get(key)) ?? (legacy ? await store.get(keys.legacyNexusInfo(nexus)) : null);
  return entry ? decodeStored(NexusInfoSchema, entry.value, entry.key) : null;
}
