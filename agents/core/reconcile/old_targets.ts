/**
 * Old targets: those that a move, an unpublishing or a lost answer left on a node.
 *
 * Why: until they are destroyed their node lists them to every host and lets it connect, and makes no other of their name.
 * Invariants: the present target of a volume is never one; a target that is followed by another of the same publication
 * stays while hosts may still be on their way from it to the new one, but not for ever; what has no spec goes only when
 * it had none for a while, so that nothing under way is taken for left behind.
 */

import type { NexusSpec } from "#common/types/nexus.ts";
import { isDraining } from "#common/types/node.ts";
import type { Core } from "../context.ts";
import type { TargetHosts } from "../engine/client.ts";
import { destroyOwnerless, ownerlessTargets } from "../nexus/ownerless.ts";
import { forEach } from "./each.ts";
import type { Outcome } from "./loop.ts";

/** How long hosts have to leave for the next target of the publication. */
const HOSTS_MS_MAX = 30_000;
/** The same where the engine does not say whether any is left; as long as a drain waits. */
const UNTOLD_MS_MAX = 120_000;
/** How often it is looked whether they have left. */
const HOSTS_LOOK_MS = 1000;
/** Longer than any call to an engine takes whose spec may be about to be written off. */
const OWNERLESS_MS_MIN = 30_000;

/** How long an old target is still to stay; 0: it goes now. Pure. */
export function stayMs(input: {
  /** Name of the volume's present target; null: it has none. */
  readonly present: string | null;
  /** Of the old one. */
  readonly name: string;
  /** Connected to the old one; null: not told. */
  readonly hosts: number | null;
  readonly ageMs: number;
}): number {
  const { present, name, hosts, ageMs } = input;
  // Hosts of another publication must not come back; and without a target there is none to go to.
  if (present !== name || hosts === 0) return 0;
  return Math.max(0, (hosts === null ? UNTOLD_MS_MAX : HOSTS_MS_MAX) - ageMs);
}

export class OldTargets {
  readonly #core: Core;
  /** Monotonic: since when each is known to be old, by nexus. */
  readonly #sinceMs = new Map<string, number>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** For one pass: what engines tell is asked for once. */
  look(): (spec: NexusSpec) => Promise<number> {
    const told = new Map<string, Promise<ReadonlyMap<string, TargetHosts> | null>>();
    const hostsOn = (node: string) => {
      const asked = told.get(node) ?? this.#core.registry.engine(node).targetHosts();
      told.set(node, asked);
      return asked;
    };
    const { nexuses, volumes } = this.#core.specs;
    for (const uuid of this.#sinceMs.keys()) {
      if (!nexuses.find(uuid) && !this.#core.registry.nexus(uuid)) this.#sinceMs.delete(uuid);
    }
    return async ({ uuid, name, node, owner }) => {
      const target = volumes.find(owner ?? "")?.target;
      const present = target?.active ? (nexuses.find(target.nexus)?.name ?? null) : null;
      const ageMs = this.#ageMs(uuid);
      if (stayMs({ present, name, hosts: null, ageMs }) === 0) return 0;
      const hosts = await hostsOn(node).catch(() => null); // the next look may know more
      const connected = hosts === null ? null : (hosts.get(uuid)?.connected ?? 0);
      const ms = stayMs({ present, name, hosts: connected, ageMs });
      if (ms > 0) this.#core.wakeIn(Math.min(HOSTS_LOOK_MS, ms));
      return ms;
    };
  }

  /** The drain of its node waits for the hosts of this one. */
  waitsForDrain({ node, owner }: NexusSpec): boolean {
    const spec = this.#core.specs.nodes.find(node);
    return (
      spec !== undefined && isDraining(spec) && spec.draining_volumes.some((id) => id === owner)
    );
  }

  async collectOwnerless(signal: AbortSignal): Promise<Outcome> {
    const { registry, specs, guards } = this.#core;
    const due = ownerlessTargets(this.#core).filter(({ uuid }) => {
      const leftMs = OWNERLESS_MS_MIN - this.#ageMs(uuid);
      if (leftMs > 0) this.#core.wakeIn(leftMs);
      return leftMs <= 0;
    });
    return await forEach(this.#core, due, {
      name: "ownerless targets",
      signal,
      guardOf: ({ volume }) => `volume/${volume}`,
      step: async (target) => {
        const { uuid, node, volume } = target;
        const busy = specs.volumes.find(volume)?.operation ?? guards.busy(`nexus/${uuid}`);
        if (busy || !registry.isOnline(node)) return "idle";
        const still = ownerlessTargets(this.#core, node).some((now) => now.uuid === uuid);
        return still && (await destroyOwnerless(this.#core, target)) ? "busy" : "idle";
      },
    });
  }

  #ageMs(uuid: string): number {
    const nowMs = this.#core.clock.monotonicMs();
    const sinceMs = this.#sinceMs.get(uuid) ?? nowMs;
    this.#sinceMs.set(uuid, sinceMs);
    return nowMs - sinceMs;
  }
}
