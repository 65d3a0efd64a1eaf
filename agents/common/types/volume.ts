/**
 * The stored volume: what the user asked for, and where it is served.
 *
 * Invariants: `target.active` is false once unpublished, and the rest of the target stays as the memory of the
 * last one (its nexus names the NexusInfo that says which replicas are healthy).
 */
import { type Static, Type } from "typebox";
import { assertNever } from "../errors.ts";
import { NvmfConfigSchema } from "./nexus.ts";
import {
  endedPublication,
  type Publication,
  PublicationSchema,
  unrecordedPublication,
} from "./publication.ts";
import {
  absentAsNull,
  BytesSchema,
  Labels,
  nullable,
  opRecord,
  specStatus,
  UuidText,
  VolumeProtocolText,
} from "./stored.ts";

const Labelled = Type.Object({ exclusion: Labels, inclusion: Labels });
const Explicit = Type.Object({
  allowed_nodes: Type.Array(Type.String()),
  preferred_nodes: Type.Array(Type.String()),
});
export const TopologySpec = Type.Object({
  node: absentAsNull(
    Type.Union([Type.Object({ Labelled: Labelled }), Type.Object({ Explicit: Explicit })]),
  ),
  pool: absentAsNull(Type.Object({ Labelled: Labelled })),
});
export type TopologySpec = Static<typeof TopologySpec>;

export const TargetConfigSchema = Type.Object({
  node: Type.String(),
  nexus: UuidText,
  protocol: nullable(VolumeProtocolText),
  active: Type.Boolean({ default: true }),
  config: NvmfConfigSchema,
  frontend: Type.Object(
    {
      host_acl: Type.Array(Type.Object({ node_name: Type.String(), node_nqn: Type.String() }), {
        default: [],
      }),
    },
    { default: { host_acl: [] } },
  ),
});
export type TargetConfig = Static<typeof TargetConfigSchema>;

const VolumeOperation = Type.Union([
  Type.Literal("Create"),
  Type.Literal("Destroy"),
  Type.Object({ Share: VolumeProtocolText }),
  Type.Literal("Unshare"),
  Type.Object({ SetReplica: Type.Integer({ minimum: 0, maximum: 255 }) }),
  Type.Object({
    Publish: Type.Tuple([Type.String(), UuidText, nullable(VolumeProtocolText)]),
  }),
  Type.Object({
    Publish2: Type.Object({ config: TargetConfigSchema, publish_context: absentAsNull(Labels) }),
  }),
  Type.Object({ Republish: Type.Object({ config: TargetConfigSchema }) }),
  Type.Literal("Unpublish"),
  Type.Object({ RemoveUnusedReplica: UuidText }),
]);
export type VolumeOperation = Static<typeof VolumeOperation>;

export const VOLUME_STATES = ["Unknown", "Online", "Degraded", "Faulted", "Shutdown"] as const;

export const VolumeSpecSchema = Type.Object({
  uuid: UuidText,
  size: BytesSchema,
  labels: absentAsNull(Labels),
  num_replicas: Type.Integer({ minimum: 0, maximum: 255 }),
  status: specStatus(VOLUME_STATES),
  policy: Type.Object({ self_heal: Type.Boolean() }),
  topology: absentAsNull(TopologySpec),
  last_nexus_id: absentAsNull(UuidText),
  operation: absentAsNull(opRecord(VolumeOperation)),
  thin: Type.Boolean({ default: false }),
  target: absentAsNull(TargetConfigSchema),
  publish_context: absentAsNull(Labels),
  affinity_group: absentAsNull(Type.Object({ id: Type.String() })),
  /** Null: not published yet, or by an earlier release. */
  publication: absentAsNull(PublicationSchema),
});
export type VolumeSpec = Static<typeof VolumeSpecSchema>;

/** Host NQNs that the target is published to; none: anybody. */
export function hostsOfTarget({ frontend }: Pick<TargetConfig, "frontend">): string[] {
  return frontend.host_acl.map(({ node_nqn }) => node_nqn);
}

/** What is known of the present or last publication; null: there was none. */
export function publicationOf(
  spec: Pick<VolumeSpec, "uuid" | "target" | "publication">,
): Publication | null {
  if (spec.publication !== null) return spec.publication;
  if (spec.target === null) return null;
  const { active } = spec.target;
  const unrecorded = unrecordedPublication(spec.uuid, hostsOfTarget(spec.target));
  return active ? { ...unrecorded, stale_hosts: [] } : unrecorded;
}

/** The volume once its target is gone. */
function unpublished(spec: VolumeSpec): VolumeSpec {
  if (spec.target === null) return spec;
  const publication = publicationOf(spec);
  return {
    ...spec,
    target: { ...spec.target, active: false },
    publication: publication && endedPublication(publication, hostsOfTarget(spec.target)),
  };
}

/** 1.x published without reservations. */
const NO_RESERVATIONS = {
  controllerIdRange: { start: 1, end: 65519 },
  reservationKey: 0,
  reservationType: "Reserved",
  preemptPolicy: { ArgKey: null },
} as const;

/** The volume after the operation was carried out; null when it is gone. */
export function commitVolume(spec: VolumeSpec, operation: VolumeOperation): VolumeSpec | null {
  const done: VolumeSpec = { ...spec, operation: null };
  if (typeof operation === "string") {
    switch (operation) {
      case "Create":
        return { ...done, status: { Created: "Online" } };
      case "Destroy":
        return null;
      case "Unshare":
        return { ...done, target: spec.target && { ...spec.target, protocol: null } };
      case "Unpublish":
        return unpublished(done);
      default:
        return assertNever(operation);
    }
  }
  if ("Share" in operation) {
    return { ...done, target: spec.target && { ...spec.target, protocol: operation.Share } };
  }
  if ("SetReplica" in operation) return { ...done, num_replicas: operation.SetReplica };
  if ("RemoveUnusedReplica" in operation) return done;
  if ("Publish2" in operation) {
    const { config, publish_context } = operation.Publish2;
    return { ...done, target: config, publish_context, last_nexus_id: null };
  }
  if ("Republish" in operation) return { ...done, target: operation.Republish.config };
  const [node, nexus, protocol] = operation.Publish;
  const frontend = { host_acl: [] };
  const target = { node, nexus, protocol, active: true, config: NO_RESERVATIONS, frontend };
  return { ...done, target, publish_context: null, last_nexus_id: null };
}

/** The name of the operation, as REST shows it. */
export function volumeOperationName(operation: VolumeOperation) {
  if (typeof operation === "string") return operation;
  if ("Share" in operation) return "Share";
  if ("SetReplica" in operation) return "SetReplica";
  if ("RemoveUnusedReplica" in operation) return "RemoveUnusedReplica";
  if ("Republish" in operation) return "Republish";
  return "Publish";
}
