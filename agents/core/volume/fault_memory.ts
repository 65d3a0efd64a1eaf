/**
 * What is remembered of a replica that a nexus lost, again and again, although its engine was there.
 *
 * Why: a bad sector fails the child over it, its rebuild reaches the sector and fails it again. Without a memory that
 * is a loop of rebuilds that ends never. With it each further try waits longer, and a replica whose own disk is to
 * blame is made anew elsewhere.
 * Invariants: the memory is part of the replica's spec, so another leader has it too; one fault is noted once; a fault
 * in an earlier life of the engine counts no more, since its restart explains it; what lies further back than the
 * window does not count.
 */
import type { Random } from "#common/random.ts";
import { poolOf, type ReplicaFault, type ReplicaSpec } from "#common/types/replica.ts";
import { type Core, poolStateOf } from "../context.ts";
import type { ChildState } from "../engine/client.ts";

/** How far back faults count. */
export const FAULT_WINDOW_MS = 30 * 60_000;
/** So many faults of its own disk, and the replica is replaced. */
export const FAULTS_TO_REPLACE = 3;
/** So many suffice where the engine itself calls the replica's pool unwell. */
export const FAULTS_TO_REPLACE_UNWELL = 2;
/** The pause after the second fault; after each further one it is PAUSE_GROWTH times as long. */
const PAUSE_MS_FIRST = 5000;
const PAUSE_GROWTH = 4;
/**
 * Before the first try after a time-out: by then its engine has noticed a disk that does not answer, whose replica is
 * waited for. A try in between would fail, and cost the replica what is known of the writes it missed.
 */
export const PAUSE_MS_TIMED_OUT = 12_000;
/** As long as a replica that is away is waited for. */
export const PAUSE_MS_MAX = 600_000;
/** Pauses differ by up to this part, so that many replicas of one disk are not all tried at once. */
const JITTER = 0.25;
/** The pause is at its longest before the list is full. */
const FAULTS_KEPT_MAX = 8;
/** A clock that went back this far cannot be trusted to measure a pause: it counts as over. */
const CLOCK_DRIFT_MS = 5000;

/** Pure: how long the replica is left alone after its n-th fault in the window. The first costs nothing. */
export function pauseMs(count: number, random: Pick<Random, "uint32">): number {
  if (count < 2) return 0;
  const longestMs = PAUSE_MS_FIRST * PAUSE_GROWTH ** (count - 2);
  const part = random.uint32() / 2 ** 32;
  return Math.round(Math.min(longestMs, PAUSE_MS_MAX) * (1 - JITTER * part));
}

export type FaultContext = {
  readonly nowMs: number;
  /** The present life of the replica's engine; null: it does not tell. */
  readonly instance: string | null;
};

/** Pure: those that count now. */
export function faultsThatCount(
  faults: readonly ReplicaFault[] | undefined,
  { nowMs, instance }: FaultContext,
): ReplicaFault[] {
  return (faults ?? []).filter((fault) => {
    const sameLife = fault.instance === null || instance === null || fault.instance === instance;
    const ageMs = nowMs - fault.at;
    return sameLife && ageMs < FAULT_WINDOW_MS && ageMs > -CLOCK_DRIFT_MS;
  });
}

/** Pure: the replica's own disk fails it again and again. */
export function isFailing(
  faults: readonly ReplicaFault[],
  { unwell = false }: { readonly unwell?: boolean } = {},
): boolean {
  // A time-out may be the network's; on a pool that its engine calls unwell it is the disk's.
  const isOwn = ({ own, reason }: ReplicaFault) => own || (unwell && reason === "TimedOut");
  const own = faults.filter(isOwn).length;
  if (unwell && own >= FAULTS_TO_REPLACE_UNWELL) return true;
  if (own === 0) return false;
  // A rebuild that failed may have failed at its source: it counts only beside faults that were surely its own.
  const rebuilds = faults.filter(({ own, reason }) => !own && reason === "RebuildFailed").length;
  return own + rebuilds >= FAULTS_TO_REPLACE;
}

/** Pure: when it may be tried again; 0: at once. */
export function retryAtMs(faults: readonly ReplicaFault[]): number {
  return Math.max(0, ...faults.map((fault) => fault.retry_at));
}

/** Pure: the memory with one more fault. */
export function withFault(
  faults: readonly ReplicaFault[] | undefined,
  child: Pick<ChildState, "reason" | "faultedAtMs">,
  context: FaultContext & { readonly own: boolean; readonly random: Pick<Random, "uint32"> },
): ReplicaFault[] {
  const { nowMs, instance, own, random } = context;
  const counted = faultsThatCount(faults, context);
  // Of a fault that is learnt of late, part of the time is over; clocks of two machines may differ.
  const agoMs = Math.max(0, nowMs - (child.faultedAtMs ?? nowMs));
  const leastMs = child.reason === "TimedOut" ? Math.max(0, PAUSE_MS_TIMED_OUT - agoMs) : 0;
  const retry_at = nowMs + Math.max(Math.round(leastMs), pauseMs(counted.length + 1, random));
  const stamp = child.faultedAtMs === null ? null : Math.floor(child.faultedAtMs);
  const fault = { at: nowMs, reason: child.reason, stamp, instance, retry_at, own };
  return [...counted, fault].slice(-FAULTS_KEPT_MAX);
}

/** Why a child stopped says something about its replica, unless somebody took it out or it has no space. */
function isNoted(reason: ChildState["reason"]): boolean {
  return reason !== "ByClient" && reason !== "NoSpace" && reason !== "None";
}

/** Its engine says that the disk gives errors, is slow, or does not answer. */
function isUnwell(core: Core, spec: ReplicaSpec): boolean {
  const status = poolStateOf(core, poolOf(spec))?.status;
  return status === "Degraded" || status === "Unknown";
}

function contextOf(core: Core, spec: ReplicaSpec): FaultContext {
  const node = core.specs.pools.find(poolOf(spec))?.node ?? core.registry.replica(spec.uuid)?.node;
  const instance = node === undefined ? null : (core.registry.node(node)?.instanceUuid ?? null);
  return { nowMs: core.clock.now(), instance };
}

/** The faults of a replica that count now. */
export function faultsOf(core: Core, spec: ReplicaSpec): ReplicaFault[] {
  return faultsThatCount(spec.faults, contextOf(core, spec));
}

/** The replica is made anew elsewhere, when there is a place, and it holds no current copy. */
export function isReplicaFailing(core: Core, spec: ReplicaSpec): boolean {
  return isFailing(faultsOf(core, spec), { unwell: isUnwell(core, spec) });
}

/** How long until it may be tried again; 0: now. A pause longer than any is a clock that was set. */
export function pauseLeftMs(core: Core, spec: ReplicaSpec): number {
  const leftMs = retryAtMs(faultsOf(core, spec)) - core.clock.now();
  return leftMs > PAUSE_MS_MAX + CLOCK_DRIFT_MS ? 0 : Math.max(0, leftMs);
}

/** Notes that a nexus lost the replica, once for each time. Callers hold the volume's guard. */
export async function noteFault(core: Core, replica: string, child: ChildState): Promise<void> {
  const spec = core.specs.replicas.find(replica);
  if (!spec || spec.operation || !isNoted(child.reason)) return;
  if (core.registry.replica(replica)?.status !== "Online") return; // that it is away says it all
  const stamp = child.faultedAtMs === null ? null : Math.floor(child.faultedAtMs);
  if (stamp !== null && spec.faults?.some((fault) => fault.stamp === stamp)) return;
  const { random, log } = core;
  const own = child.reason === "IoFailure";
  const context = { ...contextOf(core, spec), own, random };
  const faults = withFault(spec.faults, child, context);
  await core.guards.run(`replica/${replica}`, async () => {
    if (!core.specs.replicas.find(replica)) return;
    await core.specs.replicas.update(replica, (old) => ({ ...old, faults }));
  });
  log.warn("a nexus lost the replica", {
    ...{ "replica.uuid": replica, "pool.id": poolOf(spec), reason: child.reason },
    ...{ "faults.count": faults.length, "retry.in_ms": pauseLeftMs(core, spec) },
    failing: isFailing(faults, { unwell: isUnwell(core, spec) }),
  });
}

/** The successor waits as long as the one before it would, so that bad disks are not tried one after the other. */
export async function inheritPauses(
  core: Core,
  { from, to }: { readonly from: string; readonly to: string },
): Promise<void> {
  const faults = core.specs.replicas.find(from)?.faults?.map((fault) => ({
    ...{ at: fault.at, reason: "Inherited", stamp: null, instance: null },
    ...{ retry_at: 0, own: false },
  }));
  if (!faults || faults.length === 0) return;
  await core.guards.run(`replica/${to}`, async () => {
    await core.specs.replicas.update(to, (old) => ({ ...old, faults }));
  });
}
