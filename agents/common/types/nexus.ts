/**
 * The stored nexus: which node fans a volume's I/O out, over which children.
 *
 * Invariants: `owner` is the volume it serves, or null; shut down is persisted as {"Created":"Shutdown"}.
 */
import { type Static, Type } from "typebox";
import { assertNever } from "../errors.ts";
import {
  absentAsNull,
  BytesSchema,
  nullable,
  opRecord,
  ProtocolText,
  specStatus,
  U64Schema,
  UuidText,
} from "./stored.ts";

export const RESERVATION_TYPES = [
  "Reserved",
  "WriteExclusive",
  "ExclusiveAccess",
  "WriteExclusiveRegsOnly",
  "ExclusiveAccessRegsOnly",
  "WriteExclusiveAllRegs",
  "ExclusiveAccessAllRegs",
] as const;

/** Last controller id a target may hand out (0xffef). */
export const CONTROLLER_ID_MAX = 65519;

export const NvmfConfigSchema = Type.Object(
  {
    controllerIdRange: Type.Object({
      start: Type.Integer({ minimum: 1, maximum: 0xffff }),
      end: Type.Integer({ minimum: 1, maximum: 0xffff }),
    }),
    reservationKey: U64Schema,
    reservationType: Type.Enum(RESERVATION_TYPES),
    preemptPolicy: Type.Union([
      Type.Literal("Holder"),
      Type.Object({ ArgKey: nullable(U64Schema) }),
    ]),
  },
  {
    default: {
      controllerIdRange: { start: 1, end: CONTROLLER_ID_MAX },
      reservationKey: 1,
      reservationType: "ExclusiveAccess",
      preemptPolicy: "Holder",
    },
  },
);
export type NvmfConfig = Static<typeof NvmfConfigSchema>;

const NexusChildSchema = Type.Union([
  Type.Object({ Replica: Type.Object({ uuid: UuidText, share_uri: Type.String() }) }),
  Type.Object({ Uri: Type.String() }),
]);
export type NexusChild = Static<typeof NexusChildSchema>;

const NexusOperation = Type.Union([
  Type.Literal("Create"),
  Type.Literal("Destroy"),
  Type.Literal("Shutdown"),
  Type.Object({ Share: Type.Tuple([ProtocolText, Type.Array(Type.String())]) }),
  Type.Literal("Unshare"),
  Type.Object({ AddChild: NexusChildSchema }),
  Type.Object({ RemoveChild: NexusChildSchema }),
]);
export type NexusOperation = Static<typeof NexusOperation>;

export const NexusSpecSchema = Type.Object({
  uuid: UuidText,
  name: Type.String({ default: "" }),
  node: Type.String(),
  children: Type.Array(NexusChildSchema),
  size: BytesSchema,
  spec_status: specStatus(["Unknown", "Online", "Degraded", "Faulted", "Shutdown"]),
  share: ProtocolText,
  managed: Type.Boolean(),
  owner: absentAsNull(UuidText),
  operation: absentAsNull(opRecord(NexusOperation)),
  nvmf_config: absentAsNull(NvmfConfigSchema),
  status_info: Type.Object(
    { shutdown_failed: Type.Boolean({ default: false }) },
    { default: { shutdown_failed: false } },
  ),
  allowed_hosts: Type.Array(Type.String(), { default: [] }),
});
export type NexusSpec = Static<typeof NexusSpecSchema>;

export function childUri(child: NexusChild): string {
  return "Replica" in child ? child.Replica.share_uri : child.Uri;
}

export function isShutdown(spec: NexusSpec): boolean {
  return typeof spec.spec_status === "object" && spec.spec_status.Created === "Shutdown";
}

/** The nexus after the operation was carried out; null when it is gone. */
export function commitNexus(spec: NexusSpec, operation: NexusOperation): NexusSpec | null {
  const done: NexusSpec = { ...spec, operation: null };
  if (typeof operation === "string") {
    switch (operation) {
      case "Create":
        return { ...done, spec_status: { Created: "Online" } };
      case "Destroy":
        return null;
      case "Shutdown":
        return { ...done, spec_status: { Created: "Shutdown" } };
      case "Unshare":
        return { ...done, share: "none" };
      default:
        return assertNever(operation);
    }
  }
  if ("Share" in operation) {
    const [share, allowed_hosts] = operation.Share;
    return { ...done, share, allowed_hosts };
  }
  const changed = "AddChild" in operation ? operation.AddChild : operation.RemoveChild;
  const others = spec.children.filter((child) => childUri(child) !== childUri(changed));
  return { ...done, children: "AddChild" in operation ? [...others, changed] : others };
}
