/**
 * Hot spare: brings a volume back to its wanted number of replicas and its nexus to the wanted children, one
 * step per pass.
 *
 * Level-triggered: reads the state, not the event. Decisions are pure functions over what is seen.
 * Invariant: a child that may come back by a partial rebuild is waited for; the last healthy copy never goes.
 */
import { toSvcError } from "#common/errors.ts";
import { childUri, type NexusSpec } from "#common/types/nexus.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import type { Core } from "../context.ts";
import type { ChildState, NexusState } from "../engine/client.ts";
import { onlineChild, removeChild } from "../nexus/ops.ts";
import { destroyOrDisown, makeAccessible } from "../replica/ops.ts";
import { FREE_WATERMARK } from "../scheduling/pool.ts";
import { replicaOfUri, replicasOfVolume } from "../scheduling/snapshot.ts";
import { isReplicaFailing, noteFault, pauseLeftMs } from "../volume/fault_memory.ts";
import {
  addReplica,
  attachReplica,
  planAttach,
  planRemoval,
  removeReplica,
} from "../volume/replicas.ts";
import { volumeStatus } from "../volume/status.ts";
import type { Outcome } from "./loop.ts";
import { isBeingReplaced, replaceFailing, surplusVictim } from "./replace.ts";

/** A clock that went back this far cannot be trusted to measure the wait: it counts as over. */
const CLOCK_DRIFT_MS = 5000;

export type FaultedInput = {
  readonly child: Pick<ChildState, "status" | "reason" | "faultedAtMs" | "hasIoLog">;
  /** The child is over a replica of the volume. */
  readonly known: boolean;
  readonly replicaOnline: boolean;
  /** Its pool has room for what it misses; only asked of children that ran out of space. */
  readonly hasRoom: boolean;
  readonly nowMs: number;
  readonly waitMs: number;
  /** It failed before and is left alone for so long; 0: it may be tried now. */
  readonly pauseMs?: number;
  /** Another replica takes its place: it is not tried any more. */
  readonly isReplaced?: boolean;
};

export type FaultedStep = {
  readonly do: "nothing" | "wait" | "online" | "remove";
  readonly why: string;
};

/** Pure decision about one child. */
export function faultedStep(input: FaultedInput): FaultedStep {
  const { child, known, replicaOnline, hasRoom, nowMs, waitMs, pauseMs = 0 } = input;
  const full = child.reason === "NoSpace";
  if (full && known && replicaOnline) {
    return hasRoom ? { do: "online", why: "room again" } : { do: "wait", why: "no space yet" };
  }
  if (child.status !== "Faulted" && !full) return { do: "nothing", why: "not faulted" };
  if (!known) return { do: "remove", why: "no replica of the volume" };
  if (input.isReplaced) return { do: "wait", why: "another replica takes its place" };
  if (child.faultedAtMs === null) return { do: "remove", why: "when it faulted is not known" };
  if (!child.hasIoLog) return { do: "remove", why: "what it missed is not known" };
  if (replicaOnline && pauseMs > 0) return { do: "wait", why: "it failed again and again" };
  if (replicaOnline) return { do: "online", why: "its replica is back" };
  const waitedMs = nowMs - child.faultedAtMs;
  if (waitedMs <= -CLOCK_DRIFT_MS) return { do: "remove", why: "the clock went back" };
  if (waitedMs >= waitMs) return { do: "remove", why: "waited long enough" };
  return { do: "wait", why: "its replica may come back" };
}

export async function reconcileReplicas(core: Core, volume: VolumeSpec): Promise<Outcome> {
  const { specs, registry } = core;
  if (!volume.policy.self_heal || volume.operation) return "idle";
  const target = volume.target?.active ? volume.target : null;
  const nexus = target ? specs.nexuses.find(target.nexus) : undefined;
  const state = target ? registry.nexus(target.nexus) : undefined;
  const ownedReplicas = replicasOfVolume(core, volume.uuid).length;
  const status = volumeStatus(volume, { nexus: state, ownedReplicas });
  switch (status) {
    case "Faulted":
      // Never served, so there is nothing to lose: empty replicas are as good as those it should have had.
      if (ownedReplicas === 0 && neverServed(volume))
        return await reconcileReplicaCount(core, volume);
      return "idle"; // nothing to heal from
    case "Shutdown":
      return "idle";
    case "Online":
      return await reconcileReplicaCount(core, volume);
    default: {
      if (nexus && state && !nexus.operation) {
        const steps = [replaceFailing, reconcileFaulted, reconcileUnknown, reconcileMissing];
        for (const step of steps) {
          if ((await step(core, { volume, nexus, state })) === "busy") return "busy";
        }
      }
      if ((await reconcileReplicaCount(core, volume)) === "busy") return "busy";
      return nexus && state ? await reconcileChildCount(core, { volume, nexus, state }) : "idle";
    }
  }
}

/** A target that was given up stays in the spec as the memory of the last one. */
function neverServed({ target, last_nexus_id, operation }: VolumeSpec): boolean {
  return target === null && last_nexus_id === null && operation === null;
}

/** A volume with its target, as wanted and as seen. */
export type Seen = {
  readonly volume: VolumeSpec;
  readonly nexus: NexusSpec;
  readonly state: NexusState;
};

/** The volume's replica a child is over, or null. */
function replicaOfChild(nexus: NexusSpec, uri: string): string | null {
  const spec = nexus.children.find((child) => childUri(child) === uri);
  return spec && "Replica" in spec ? spec.Replica.uuid : replicaOfUri(uri);
}

/** The replica's pool can hold what the replica misses. */
export function hasRoom(core: Core, volume: VolumeSpec, replica: string): boolean {
  const { registry } = core;
  const own = registry.replica(replica);
  const pool = own && registry.pool(own.pool, own.node);
  if (!own || !pool) return false;
  const free = pool.capacity - pool.used;
  const allocations = replicasOfVolume(core, volume.uuid).map(
    (spec) => registry.replica(spec.uuid)?.space?.allocated ?? 0,
  );
  const growth = Math.max(0, ...allocations) - (own.space?.allocated ?? 0);
  return free >= FREE_WATERMARK && free >= growth + FREE_WATERMARK;
}

async function reconcileFaulted(core: Core, { volume, nexus, state }: Seen): Promise<Outcome> {
  if (state.status !== "Degraded" || state.children.length < 2) return "idle";
  const owned = new Set(replicasOfVolume(core, volume.uuid).map((spec) => spec.uuid));
  for (const child of state.children) {
    const replica = replicaOfChild(nexus, child.uri);
    const known = replica !== null && owned.has(replica);
    if (known && child.status === "Faulted") await noteFault(core, replica, child);
    const spec = known ? core.specs.replicas.find(replica) : undefined;
    const pauseMs = spec ? pauseLeftMs(core, spec) : 0;
    const step = faultedStep({
      child,
      known,
      replicaOnline: known && core.registry.replica(replica)?.status === "Online",
      hasRoom: known && hasRoom(core, volume, replica),
      nowMs: core.clock.now(),
      waitMs: core.config.faultedChildWaitMs,
      pauseMs,
      isReplaced:
        spec !== undefined &&
        isReplicaFailing(core, spec) &&
        isBeingReplaced(core, { volume, nexus, state }),
    });
    if (step.do === "wait") core.wakeIn(pauseMs > 0 ? pauseMs : untilGivenUpMs(core, child));
    if (step.do === "nothing" || step.do === "wait") continue;
    if (step.do === "online" && replica !== null && !(await isThere(core, replica))) continue;
    const fields = { "volume.uuid": volume.uuid, "child.uri": child.uri, why: step.why };
    core.log.info("faulted child", { ...fields, action: step.do });
    if (step.do === "online" && replica !== null) {
      if (await tryOnline(core, nexus, { replica, uri: child.uri })) return "busy";
    }
    await removeChild(core, nexus.uuid, child.uri);
    // One that is away is of no use from now on: another takes its place without waiting for the slow sweep.
    core.trigger("replica-given-up");
    return "busy";
  }
  return "idle";
}

/** When the wait for a child is over. */
function untilGivenUpMs({ clock, config }: Core, { faultedAtMs }: ChildState): number {
  const waitedMs = clock.now() - (faultedAtMs ?? 0);
  return Math.min(config.faultedChildWaitMs, Math.max(1000, config.faultedChildWaitMs - waitedMs));
}

/**
 * The engine that had the replica when it was read last answers, and has not been started anew since: a nexus tells of a
 * lost child before anybody else knows that the engine is gone, and one that has just come back has no pool yet. A
 * failure to bring the child online would then cost it its log.
 */
async function isThere({ registry }: Core, replica: string): Promise<boolean> {
  const node = registry.node(registry.replica(replica)?.node ?? "");
  if (!node) return false;
  try {
    const found = await registry.anyClient(node.id)?.probe();
    if (found === undefined) return false;
    const { instanceUuid } = found;
    // Engines of other versions may tell it in one place alone.
    if (instanceUuid === null || node.instanceUuid === null) return true;
    return instanceUuid === node.instanceUuid;
  } catch {
    return false; // no answer: waited for, like a replica that is known to be away
  }
}

async function tryOnline(
  core: Core,
  nexus: NexusSpec,
  { replica, uri }: { readonly replica: string; readonly uri: string },
): Promise<boolean> {
  try {
    if ((await makeAccessible(core, replica, nexus.node)) !== uri) return false; // it moved
    await onlineChild(core, nexus.uuid, uri);
    return true;
  } catch (error) {
    const failure = toSvcError(error);
    if (failure.kind === "resource-exhausted") throw failure; // rebuild limit: later, not never
    core.log.warn("child cannot be brought online", { "child.uri": uri, error: failure });
    return false;
  }
}

/** Children the nexus has but should not. */
async function reconcileUnknown(core: Core, { nexus, state }: Seen): Promise<Outcome> {
  const wanted = new Set(nexus.children.map(childUri));
  const unknown = state.children.find((child) => !wanted.has(child.uri));
  if (!unknown || state.children.length < 2) return "idle";
  await removeChild(core, nexus.uuid, unknown.uri);
  return "busy";
}

/** Children the nexus should have but has not: forgotten here, attached again below by a full rebuild. */
async function reconcileMissing(core: Core, { nexus, state }: Seen): Promise<Outcome> {
  const present = new Set(state.children.map((child) => child.uri));
  const children = nexus.children.filter((child) => present.has(childUri(child)));
  if (children.length === nexus.children.length) return "idle";
  await core.guards.run(`nexus/${nexus.uuid}`, async () => {
    await core.specs.nexuses.update(nexus.uuid, (old) => ({ ...old, children }));
  });
  return "busy";
}

async function reconcileReplicaCount(core: Core, volume: VolumeSpec): Promise<Outcome> {
  const owned = replicasOfVolume(core, volume.uuid);
  if (owned.length < volume.num_replicas) {
    await addReplica(core, volume, volume.num_replicas);
    return "busy";
  }
  if (owned.length === volume.num_replicas) return "idle";
  const nexus = volume.target?.active ? core.specs.nexuses.find(volume.target.nexus) : undefined;
  const state = nexus && core.registry.nexus(nexus.uuid);
  const used = new Set(
    nexus?.children.map((child) => ("Replica" in child ? child.Replica.uuid : "")) ?? [],
  );
  const victim =
    nexus && state
      ? await surplusVictim(core, { volume, nexus, state })
      : await planRemoval(core, volume, volume.num_replicas);
  if (!victim || used.has(victim.uuid)) return "idle"; // a child goes by the child count below
  await destroyOrDisown(core, victim.uuid);
  return "busy";
}

async function reconcileChildCount(core: Core, { volume, nexus, state }: Seen): Promise<Outcome> {
  if (!core.registry.isOnline(nexus.node)) return "idle";
  if (state.status !== "Online" && state.status !== "Degraded") return "idle";
  if (state.children.length < volume.num_replicas) {
    const plan = await planAttach(core, volume, nexus);
    if (!plan) return "idle"; // nothing to attach yet: a node or a pool is away, or it failed before
    if ("discard" in plan) await destroyOrDisown(core, plan.discard.uuid);
    else await attachReplica(core, nexus, plan.attach.uuid);
    return "busy";
  }
  if (state.children.length === volume.num_replicas) return "idle";
  const victim = await surplusVictim(core, { volume, nexus, state });
  if (!victim) return "idle";
  await removeReplica(core, volume, victim.uuid);
  return "busy";
}

/** How long a replica must be away before it is given up, so that a restarting engine can import its pool. */
export const AWAY_MS_MIN = 30_000;

/** Remembers since when replicas have been away. */
export class AwayReplicas {
  readonly #since = new Map<string, number>();

  /** How long the replica has been away; 0 when it is there. */
  awayMs(replica: string, options: { readonly online: boolean; readonly nowMs: number }): number {
    if (options.online) {
      this.#since.delete(replica);
      return 0;
    }
    const since = this.#since.get(replica) ?? options.nowMs;
    this.#since.set(replica, since);
    return options.nowMs - since;
  }

  forget(alive: ReadonlySet<string>): void {
    for (const replica of this.#since.keys()) if (!alive.has(replica)) this.#since.delete(replica);
  }
}

/** Pure: a replica that is of no use to its volume any more and is replaced by another. */
export function isUseless(input: {
  readonly online: boolean;
  readonly awayMs: number;
  readonly isChild: boolean;
  readonly healthy: boolean;
  readonly nodeKnown: boolean;
}): boolean {
  const { online, awayMs, isChild, healthy, nodeKnown } = input;
  return !online && !isChild && !healthy && nodeKnown && awayMs >= AWAY_MS_MIN;
}
