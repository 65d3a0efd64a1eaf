/**
 * How well a volume is, from what is wanted and what is seen. Pure.
 *
 * Invariants: without a target only the number of owned replicas counts; a target whose state cannot be read
 * makes the volume Unknown.
 */
import type { VolumeSpec } from "#common/types/volume.ts";
import type { NexusState } from "../engine/client.ts";

export type VolumeStatus = "Unknown" | "Online" | "Degraded" | "Faulted" | "Shutdown";

export function volumeStatus(
  spec: VolumeSpec,
  {
    nexus,
    ownedReplicas,
  }: { readonly nexus: NexusState | undefined; readonly ownedReplicas: number },
): VolumeStatus {
  if (!spec.target?.active) {
    if (ownedReplicas >= spec.num_replicas) return "Online";
    return ownedReplicas === 0 ? "Faulted" : "Degraded";
  }
  if (!nexus) return "Unknown";
  switch (nexus.status) {
    case "Online":
      return nexus.children.length === spec.num_replicas ? "Online" : "Degraded";
    case "ShuttingDown":
    case "Shutdown":
      return "Unknown"; // as 2.2 reports it
    default:
      return nexus.status;
  }
}
