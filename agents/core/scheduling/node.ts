/**
 * Which node gets a volume's target. Pure.
 *
 * Invariant: a node that is offline, cordoned, the present target's or already serving a nexus of the volume is
 * never chosen on its own account.
 */
export type NodeItem = {
  readonly id: string;
  readonly online: boolean;
  readonly cordoned: boolean;
  /** It has a nexus (in any state) of this volume. */
  readonly hasNexusOfVolume: boolean;
  readonly nexusCount: number;
  readonly groupNexusCount: number;
  /** It holds a usable replica of the volume: reads stay local. */
  readonly hasReplica: boolean;
};

export type NodeRequest = {
  /** A preference, or nothing. */
  readonly preferred: string | null;
  /** The node of the target that is being left, if any. */
  readonly leaving: string | null;
};

/** Nodes that may take the target, best first. */
export function selectNodes(
  nodes: readonly NodeItem[],
  { preferred, leaving }: NodeRequest,
): NodeItem[] {
  const rank = (wanted: boolean) => (wanted ? 0 : 1);
  return nodes
    .filter((node) => node.online && !node.cordoned && node.id !== leaving)
    .filter((node) => !node.hasNexusOfVolume)
    .sort(
      (a, b) =>
        a.groupNexusCount - b.groupNexusCount ||
        rank(a.id === preferred) - rank(b.id === preferred) ||
        a.nexusCount - b.nexusCount ||
        rank(a.hasReplica) - rank(b.hasReplica) ||
        (a.id < b.id ? -1 : 1),
    );
}
