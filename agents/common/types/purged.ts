/**
 * Tombstones: what was given up for good, and what it had.
 *
 * Why: a disk or a node that counts as lost may come back, and nothing on it may be taken for live again then.
 * Invariants: a tombstone is written before anything is forgotten, and stays; its keys are a space of their own, which other
 * control planes do not read.
 */
import { type Static, Type } from "typebox";
import { UuidText } from "./stored.ts";

/** "Purging": begun, to be carried on with until all is forgotten. */
const PurgeState = Type.Enum(["Purging", "Purged"]);

export const PurgedPoolSchema = Type.Object({
  /** Of the tombstone: a name may be purged more than once. */
  uuid: UuidText,
  pool: Type.String(),
  node: Type.String(),
  disks: Type.Array(Type.String()),
  /** Of the pool on its disk; null: nobody knows it. */
  pool_uuid: Type.Union([Type.String(), Type.Null()]),
  replicas: Type.Array(UuidText),
  /** Wall clock, ms. */
  at: Type.Integer({ minimum: 0 }),
  state: PurgeState,
});
export type PurgedPool = Static<typeof PurgedPoolSchema>;

export const PurgedNodeSchema = Type.Object({
  node: Type.String(),
  endpoint: Type.String(),
  /** Its targets, of this time and of those before. */
  nexuses: Type.Array(UuidText),
  at: Type.Integer({ minimum: 0 }),
  state: PurgeState,
});
export type PurgedNode = Static<typeof PurgedNodeSchema>;
