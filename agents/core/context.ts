/**
 * What every part of agent-core works with: the ports to the world and the two memories, wanted and seen.
 *
 * Invariant: parts reach the world only through here, so that a test or a simulation can own all of it.
 */
import type { Clock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { nodeHostNqn } from "#common/nqn.ts";
import type { Random } from "#common/random.ts";
import type { StoreKeys } from "#common/store/keys.ts";
import type { Compare, ObjectStore, StoreOp } from "#common/store/mod.ts";
import { fencedNexusInfo, readNexusInfo, type StoredNexusInfo } from "#common/store/nexus_info.ts";
import type { NexusInfo } from "#common/types/cluster.ts";
import type { EngineConnector, PoolState } from "./engine/client.ts";
import type { CoreConfig } from "./options.ts";
import type { Tombstones } from "./purge/tombstones.ts";
import type { Registry } from "./registry/registry.ts";
import type { Reservations } from "./scheduling/space.ts";
import type { Guards } from "./specs/guards.ts";
import type { Specs } from "./specs/tables.ts";

export type Trigger =
  | "start"
  | "node-online"
  | "node-offline"
  | "volume-degraded"
  | "creating-to-deleting"
  | "replica-given-up"
  | "changed";

/** How far the drain of a node has come. */
export type DrainProgress = {
  /** Targets that are still to be moved. */
  readonly moving: number;
  /** Old targets that hosts are still connected to. */
  readonly waiting: number;
  /** How long those are waited for at most; null: none is. */
  readonly waitMs: number | null;
  /** Why a target cannot be moved. */
  readonly why?: string;
};

export type Core = {
  readonly config: CoreConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: ObjectStore;
  readonly keys: StoreKeys;
  readonly connect: EngineConnector;
  readonly registry: Registry;
  readonly specs: Specs;
  readonly guards: Guards;
  /** What was given up for good. */
  readonly tombstones: Tombstones;
  /** Replicas that were decided on and whose specs are not written yet: their space is taken. */
  readonly reservations: Reservations;
  /** By node; those that are being drained. */
  readonly drains: Map<string, DrainProgress>;
  /** Writes under the leader's lock. */
  readonly write: (ops: readonly StoreOp[]) => Promise<void>;
  /** The same while `when` holds; false: it does not. */
  readonly writeIf: (when: readonly Compare[], ops: readonly StoreOp[]) => Promise<boolean>;
  /** Asks for a reconcile pass soon. */
  readonly trigger: (reason: Trigger) => void;
  /** Asks for one when so much time has passed: something falls due then. */
  readonly wakeIn: (ms: number) => void;
  /** 1.0 compatibility: NexusInfo may live at the root of the key space. */
  legacy: boolean;
  /** Rebuilds that engines have been asked for and not yet confirmed. */
  rebuildsStarting: number;
};

/** The host NQN a node's initiator uses: what it registered with, else the published form. */
export function hostNqnOf(core: Core, node: string): string {
  const registered = core.registry.node(node)?.hostNqn ?? core.specs.nodes.find(node)?.node_nqn;
  return registered ?? nodeHostNqn(node);
}

/** The state of a pool: on the node that its spec names; one without a spec is looked for everywhere. */
export function poolStateOf(core: Core, id: string): PoolState | undefined {
  return core.registry.pool(id, core.specs.pools.find(id)?.node);
}

export async function storedNexusInfoOf(
  core: Core,
  id: { readonly volume: string | null; readonly nexus: string },
): Promise<StoredNexusInfo | null> {
  return await readNexusInfo(core.store, core.keys, { ...id, legacy: core.legacy });
}

export async function nexusInfoOf(
  core: Core,
  id: { readonly volume: string | null; readonly nexus: string },
): Promise<NexusInfo | null> {
  return (await storedNexusInfoOf(core, id))?.info ?? null;
}

/** From now on the record stays as it was read, whatever the nexus that made it does. False: it changed meanwhile. */
export async function fenceNexusInfo(
  core: Core,
  stored: StoredNexusInfo,
  by: string,
): Promise<boolean> {
  return await core.writeIf(stored.unchanged, [fencedNexusInfo(stored, by)]);
}

export async function deleteNexusInfo(
  core: Core,
  id: { readonly volume: string | null; readonly nexus: string },
): Promise<void> {
  const keys = [core.keys.nexusInfo(id.volume, id.nexus)];
  if (core.legacy) keys.push(core.keys.legacyNexusInfo(id.nexus));
  await core.write(keys.map((key) => ({ op: "delete", key })));
}

/** Those whose start is still under way count too: two at a time must not both take the last place. */
function rebuildsOf({ registry, rebuildsStarting }: Core): number {
  return registry.nexuses().reduce((sum, nexus) => sum + nexus.rebuilds, rebuildsStarting);
}

/** A further rebuild may start now. */
export function hasRebuildSlot(core: Core): boolean {
  const { maxRebuilds } = core.config;
  return maxRebuilds === null || rebuildsOf(core) < maxRebuilds;
}

/**
 * Runs a call that starts a rebuild.
 * @throws {SvcError} `resource-exhausted` when no further rebuild may start now
 */
export async function withRebuildSlot<T>(core: Core, start: () => Promise<T>): Promise<T> {
  if (!hasRebuildSlot(core)) {
    const { maxRebuilds } = core.config;
    throw new SvcError(
      "resource-exhausted",
      `Cannot start a rebuild: ${rebuildsOf(core)} run already and ${maxRebuilds} is the most allowed`,
    );
  }
  core.rebuildsStarting += 1;
  try {
    return await start();
  } finally {
    core.rebuildsStarting -= 1;
  }
}
