/**
 * The identity of a publication: what tells one publication of a volume from the next.
 *
 * Why: a kernel that was cut off keeps its controller and reconnects by the name of the subsystem, for as long as its
 * controller-loss time allows. When the volume comes back to that node, it would go on with its old pages over what others
 * have written meanwhile. A kernel never joins a controller of one name to a device of another, and refuses a second
 * name with the same namespace while the first is there: so the name is the identity.
 *
 * Invariants:
 * - A name with a suffix is given once; the documented name (the volume's uuid alone) is given only while no host may still
 *   hold an earlier publication.
 * - A host is such a one until a later publication was seen to end well on it: its kernel refuses a later one while it
 *   holds an earlier.
 * - Whatever is not known (a crash, an engine that cannot tell, more hosts than are kept) counts as held.
 */
import { type Static, Type } from "typebox";

/** In place of a host's NQN: nobody knows which host. It is never taken back. */
export const ANY_HOST = "*";
/** A volume is published to a node or a few. */
const STALE_HOSTS_MAX = 64;

export const PublicationSchema = Type.Object({
  /** Grows with each name that has a suffix; that suffix. */
  generation: Type.Integer({ minimum: 0 }),
  /** Of the nexus, and so the subsystem: the present one's, or the last one's. */
  name: Type.String(),
  /** NQNs of the hosts that may hold an earlier publication, or ANY_HOST. */
  stale_hosts: Type.Array(Type.String(), { default: [] }),
  /** The target was moved or made again: its engine does not know all hosts of the publication. */
  interrupted: Type.Boolean({ default: false }),
  /** What `stale_hosts` becomes when the publication has ended, once that is known; null: every host of it is added. */
  outcome: Type.Union([Type.Array(Type.String()), Type.Null()], { default: null }),
});
export type Publication = Static<typeof PublicationSchema>;

/** How hosts had left a target when it was taken away from them. */
export type PublicationEnd = {
  /** `leftOpen`: its controllers that it did not shut down. */
  readonly hosts: readonly { readonly nqn: string; readonly leftOpen: number }[];
  /** false: there were more hosts. */
  readonly complete: boolean;
};

/** The part of a nexus's or subsystem's name that is the volume's uuid. */
export function volumeOfName(name: string): string {
  return name.split(":", 1)[0] ?? name;
}

/** The generation in a name of this volume: 0 for the documented one, null when it is no name of the volume. */
export function generationOf(volume: string, name: string): number | null {
  if (name === volume) return 0;
  const digits = name.startsWith(`${volume}:`) ? name.slice(volume.length + 1) : "";
  return /^[1-9][0-9]{0,14}$/.test(digits) ? Number(digits) : null;
}

/** A publication that an earlier release made: its hosts may hold it still. */
export function unrecordedPublication(volume: string, hosts: readonly string[]): Publication {
  return {
    generation: 0,
    name: volume,
    stale_hosts: merged([], hosts),
    interrupted: true,
    outcome: null,
  };
}

/** The next publication after `last` (null: the first one). */
export function nextPublication(volume: string, last: Publication | null): Publication {
  const before = last ?? { generation: 0, stale_hosts: [] };
  const isClean = before.stale_hosts.length === 0;
  const generation = isClean ? before.generation : before.generation + 1;
  return {
    generation,
    name: isClean ? volume : `${volume}:${generation}`,
    stale_hosts: [...before.stale_hosts],
    interrupted: false,
    outcome: null,
  };
}

function merged(stale: readonly string[], hosts: readonly string[]): string[] {
  const all = [...new Set([...stale, ...(hosts.length > 0 ? hosts : [ANY_HOST])])];
  return all.length > STALE_HOSTS_MAX ? [ANY_HOST] : all;
}

/** The publication once it is known how its hosts left: see `outcome`. `hosts`: whom it was for; none: anybody. */
export function withOutcome(
  publication: Publication,
  end: PublicationEnd,
  hosts: readonly string[],
): Publication {
  const open = new Set(end.hosts.filter(({ leftOpen }) => leftOpen > 0).map(({ nqn }) => nqn));
  const leftWell = new Set(end.hosts.map(({ nqn }) => nqn).filter((nqn) => !open.has(nqn)));
  const earlier = publication.stale_hosts.filter((nqn) => !leftWell.has(nqn));
  // One target from first to last has seen every host; any other says nothing of those that it has not seen.
  const unseen = publication.interrupted
    ? hosts.length > 0
      ? hosts.filter((nqn) => !leftWell.has(nqn))
      : [ANY_HOST]
    : [];
  const now = [...unseen, ...open, ...(end.complete ? [] : [ANY_HOST])];
  return { ...publication, outcome: now.length > 0 ? merged(earlier, now) : earlier };
}

/** The publication after its end was committed. */
export function endedPublication(publication: Publication, hosts: readonly string[]): Publication {
  const { outcome, stale_hosts } = publication;
  return { ...publication, stale_hosts: outcome ?? merged(stale_hosts, hosts), outcome: null };
}
