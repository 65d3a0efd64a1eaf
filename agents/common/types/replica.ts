/**
 * The stored replica: an lvol that holds one copy of a volume.
 *
 * Invariants: a managed replica without owner is garbage; its name is its uuid unless somebody else named it.
 */
import { type Static, Type } from "typebox";
import { assertNever } from "../errors.ts";
import {
  absentAsNull,
  BytesSchema,
  opRecord,
  ProtocolText,
  specStatus,
  UuidText,
} from "./stored.ts";

const OwnersSchema = Type.Object({
  volume: absentAsNull(UuidText),
  disown_all: Type.Boolean({ default: false }),
});
export type ReplicaOwners = Static<typeof OwnersSchema>;

const ReplicaOperation = Type.Union([
  Type.Literal("Create"),
  Type.Literal("Destroy"),
  Type.Object({ Share: Type.Tuple([ProtocolText, Type.Array(Type.String())]) }),
  Type.Literal("Unshare"),
  Type.Object({ OwnerUpdate: OwnersSchema }),
]);
export type ReplicaOperation = Static<typeof ReplicaOperation>;

/** A time at which a nexus lost the replica while its engine was there. */
const ReplicaFaultSchema = Type.Object({
  /** When agent-core learnt of it; wall clock, ms. */
  at: Type.Integer({ minimum: 0 }),
  /** The nexus's word for why. */
  reason: Type.String(),
  /** The nexus's time stamp of it: one fault is noted once. */
  stamp: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  /** The engine's life in which it happened: a restart explains it. */
  instance: Type.Union([Type.String(), Type.Null()]),
  /** The replica is not tried again before. */
  retry_at: Type.Integer({ minimum: 0 }),
  /** It says that the replica's own disk is bad. */
  own: Type.Boolean(),
});
export type ReplicaFault = Static<typeof ReplicaFaultSchema>;

export const ReplicaSpecSchema = Type.Object({
  name: Type.String(),
  uuid: UuidText,
  size: BytesSchema,
  pool: Type.Union([Type.String(), Type.Tuple([Type.String(), Type.String()])]),
  share: ProtocolText,
  thin: Type.Boolean(),
  status: specStatus(["unknown", "online", "degraded", "faulted"]),
  managed: Type.Boolean(),
  owners: OwnersSchema,
  operation: absentAsNull(opRecord(ReplicaOperation)),
  allowed_hosts: Type.Array(Type.String(), { default: [] }),
  /** The last few faults, oldest first; absent: none. Other control planes ignore it. */
  faults: Type.Optional(Type.Array(ReplicaFaultSchema)),
});
export type ReplicaSpec = Static<typeof ReplicaSpecSchema>;

export function poolOf(spec: ReplicaSpec): string {
  return typeof spec.pool === "string" ? spec.pool : spec.pool[0];
}

export function poolUuidOf(spec: ReplicaSpec): string | null {
  return typeof spec.pool === "string" ? null : spec.pool[1];
}

/** The replica after the operation was carried out; null when it is gone. */
export function commitReplica(spec: ReplicaSpec, operation: ReplicaOperation): ReplicaSpec | null {
  const done: ReplicaSpec = { ...spec, operation: null };
  if (typeof operation === "string") {
    switch (operation) {
      case "Create":
        return { ...done, status: { Created: "online" } };
      case "Destroy":
        return null;
      case "Unshare":
        return { ...done, share: "none", allowed_hosts: [] };
      default:
        return assertNever(operation);
    }
  }
  if ("Share" in operation) {
    const [share, allowed_hosts] = operation.Share;
    return { ...done, share, allowed_hosts };
  }
  return { ...done, owners: operation.OwnerUpdate };
}
