/**
 * The DiskPool custom resource, openebs.io/v1alpha1: what a user declares and what its operator reports.
 *
 * Why here: the operator parses it and the installation publishes its schema; both are this one.
 * Invariants: `spec` is wanted and never written by the operator; `status` is only written by it.
 */
import { type Static, Type } from "typebox";

export const DISKPOOL_GROUP = "openebs.io";
export const DISKPOOL_VERSION = "v1alpha1";
export const DISKPOOL_KIND = "DiskPool";
export const DISKPOOL_PLURAL = "diskpools";
/** The lease by which operators elect a leader; the operator's rights name it. */
export const DISKPOOL_OPERATOR_LEASE = "operator-diskpool";

export const DISKPOOL_STATES = ["Creating", "Created", "Online", "Unknown", "Error"] as const;
export const DISKPOOL_CR_STATES = ["Creating", "Created", "Terminating"] as const;
export const DISKPOOL_POOL_STATUSES = ["Unknown", "Online", "Degraded", "Faulted"] as const;

export const DiskPoolSpecSchema = Type.Object(
  {
    node: Type.String({ description: "The node the pool is located on" }),
    disks: Type.Array(Type.String(), {
      description: "The disk device the pool is located on: a path or a URI (aio, uring, malloc)",
    }),
    topology: Type.Optional(
      Type.Object(
        {
          labelled: Type.Record(Type.String(), Type.String(), {
            description: "Labels that the placement of volumes can ask for",
          }),
        },
        { description: "Topology of the pool" },
      ),
    ),
  },
  { description: "The pool spec which contains the parameters we use when creating the pool" },
);
export type DiskPoolSpec = Static<typeof DiskPoolSpecSchema>;

const bytes = (description: string) => Type.Integer({ minimum: 0, format: "int64", description });

export const DiskPoolStatusSchema = Type.Object(
  {
    state: Type.Enum(DISKPOOL_STATES, { description: "The state of the pool as last seen" }),
    cr_state: Type.Optional(
      Type.Enum(DISKPOOL_CR_STATES, {
        default: "Creating",
        description: "How far the operator is with this resource",
      }),
    ),
    pool_status: Type.Optional(
      Type.Union([Type.Enum(DISKPOOL_POOL_STATUSES), Type.Null()], {
        description: "The status of the pool as its node reports it",
      }),
    ),
    capacity: bytes("Size of the pool in bytes"),
    used: bytes("Used bytes"),
    available: bytes("Available bytes"),
  },
  { description: "Status of the pool which is driven and changed by the operator" },
);
export type DiskPoolStatus = Static<typeof DiskPoolStatusSchema>;
