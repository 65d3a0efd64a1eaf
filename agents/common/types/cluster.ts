/** Small stored documents of the cluster itself: registry configuration, lease owner, NexusInfo. */
import { type Static, Type } from "typebox";
import { UuidText } from "./stored.ts";

/** `mayastor_compat_v1` is only present while true. */
export const RegistryConfigSchema = Type.Object({
  id: Type.String(),
  registration: Type.Enum(["Automatic", "Manual"]),
  mayastor_compat_v1: Type.Optional(Type.Boolean()),
});
export type RegistryConfig = Static<typeof RegistryConfigSchema>;

export const LeaseOwnerSchema = Type.Object({
  kind: Type.String(),
  lease_id: Type.String(),
  instance_name: Type.String(),
});
export type LeaseOwner = Static<typeof LeaseOwnerSchema>;

/** Written by the engine's nexus: which children hold the data, and whether it was closed properly. */
export const NexusInfoSchema = Type.Object({
  children: Type.Array(Type.Object({ healthy: Type.Boolean(), uuid: UuidText })),
  clean_shutdown: Type.Boolean(),
  /** Written by agent-core: the nexus that is about to serve instead. Who made the record cannot change it any more. */
  fenced_by: Type.Optional(Type.String()),
});
export type NexusInfo = Static<typeof NexusInfoSchema>;
