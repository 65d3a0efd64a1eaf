/** The stored pool: disks of one node, as the user gave them. Invariant: exactly one disk. */
import { type Static, Type } from "typebox";
import { absentAsNull, Labels, opRecord, specStatus } from "./stored.ts";

const PoolOperation = Type.Enum(["Create", "Destroy"]);
export type PoolOperation = Static<typeof PoolOperation>;

export const PoolSpecSchema = Type.Object({
  node: Type.String(),
  id: Type.String(),
  disks: Type.Array(Type.String()),
  status: specStatus(["Unknown", "Online", "Degraded", "Faulted"]),
  labels: absentAsNull(Labels),
  operation: absentAsNull(opRecord(PoolOperation)),
  /** Of the pool on its disk, once it was seen. Other control planes ignore it. */
  uuid: Type.Optional(Type.String()),
});
export type PoolSpec = Static<typeof PoolSpecSchema>;

/** The pool after the operation was carried out; null when it is gone. */
export function commitPool(spec: PoolSpec, operation: PoolOperation): PoolSpec | null {
  if (operation === "Destroy") return null;
  return { ...spec, operation: null, status: { Created: "Online" } };
}
