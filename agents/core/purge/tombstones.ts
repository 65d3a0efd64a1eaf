/**
 * The tombstones: in the store, and in memory for every look at what an engine reports.
 *
 * Invariant: memory follows the store, so what a tombstone names is never in use while the store does not say that it is gone.
 */
import { SvcError, toSvcError } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import type { StoredKind } from "#common/store/keys.ts";
import type { StoreEntry, StoreOp } from "#common/store/mod.ts";
import {
  type PurgedNode,
  PurgedNodeSchema,
  type PurgedPool,
  PurgedPoolSchema,
} from "#common/types/purged.ts";
import { decodeStored } from "#common/types/stored.ts";

export type TombstoneWriter = {
  readonly write: (ops: readonly StoreOp[]) => Promise<void>;
  readonly keyOf: (kind: StoredKind, id: string) => string;
};

/** What an engine says of a pool. */
export type PoolName = { readonly id: string; readonly node: string; readonly uuid: string };

export class Tombstones {
  readonly #writer: TombstoneWriter;
  readonly #pools = new Map<string, PurgedPool>();
  readonly #nodes = new Map<string, PurgedNode>();
  readonly #poolUuids = new Set<string>();
  readonly #replicas = new Set<string>();
  readonly #nexuses = new Set<string>();

  constructor(writer: TombstoneWriter) {
    this.#writer = writer;
  }

  load(entries: { readonly pools: readonly StoreEntry[]; readonly nodes: readonly StoreEntry[] }) {
    for (const { key, value } of entries.pools) {
      this.#keepPool(decodeStored(PurgedPoolSchema, value, key));
    }
    for (const { key, value } of entries.nodes) {
      this.#keepNode(decodeStored(PurgedNodeSchema, value, key));
    }
  }

  pools(): PurgedPool[] {
    return [...this.#pools.values()];
  }

  nodes(): PurgedNode[] {
    return [...this.#nodes.values()];
  }

  node(id: string): PurgedNode | undefined {
    return this.#nodes.get(id);
  }

  /** A purge of a pool of this name that is not at its end. */
  openPool(id: string): PurgedPool | undefined {
    return this.pools().find(({ pool, state }) => pool === id && state === "Purging");
  }

  /**
   * It is one that was given up. `wanted`: uuid of the pool that has the name now, where it is known; it tells an old one
   * apart whose own uuid nobody knew.
   */
  isPool({ id, node, uuid }: PoolName, wanted: string | undefined): boolean {
    if (uuid !== "" && this.#poolUuids.has(uuid)) return true;
    const nameless = this.pools().some(
      (old) => old.pool === id && old.node === node && old.pool_uuid === null,
    );
    return nameless && wanted !== undefined && uuid !== "" && uuid !== wanted;
  }

  isReplica(uuid: string): boolean {
    return this.#replicas.has(uuid);
  }

  isNexus(uuid: string): boolean {
    return this.#nexuses.has(uuid);
  }

  /** @throws {SvcError} `failed-persist` */
  async putPool(tombstone: PurgedPool): Promise<void> {
    await this.#write("PurgedPool", tombstone.uuid, tombstone);
    this.#keepPool(tombstone);
  }

  /** @throws {SvcError} `failed-persist` */
  async putNode(tombstone: PurgedNode): Promise<void> {
    await this.#write("PurgedNode", tombstone.node, tombstone);
    this.#keepNode(tombstone);
  }

  #keepPool(tombstone: PurgedPool): void {
    this.#pools.set(tombstone.uuid, tombstone);
    if (tombstone.pool_uuid !== null) this.#poolUuids.add(tombstone.pool_uuid);
    for (const uuid of tombstone.replicas) this.#replicas.add(uuid);
  }

  #keepNode(tombstone: PurgedNode): void {
    this.#nodes.set(tombstone.node, tombstone);
    for (const uuid of tombstone.nexuses) this.#nexuses.add(uuid);
  }

  async #write(kind: StoredKind, id: string, value: PurgedPool | PurgedNode): Promise<void> {
    const key = this.#writer.keyOf(kind, id);
    try {
      await this.#writer.write([{ op: "put", key, value: encodeJson(value) }]);
    } catch (error) {
      throw new SvcError("failed-persist", `Cannot persist the purge of ${id}`, {
        cause: toSvcError(error),
      });
    }
  }
}
