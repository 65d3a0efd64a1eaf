/**
 * What to do about a DiskPool: pure functions over the resource and what the control plane said.
 *
 * Why pure: every case, the rare ones too, is a line in a test.
 * Invariants: a status is only written when it differs; a pool is destroyed only for a resource that is being
 * deleted and only on the node that the resource names; a failure always has a time to look again.
 */
import { isKind, type SvcError } from "#common/errors.ts";
import type { BlockDevice, Pool, PurgeCost } from "#common/openapi/model.ts";
import type { DiskPoolStatus } from "#common/types/diskpool.ts";
import { type DiskPool, FINALIZER, PURGE_ANNOTATION } from "./resource.ts";

/** After an error; as published. */
export const ERROR_MS = 20_000;
/** While a pool that was just made has not been seen by its node yet; as published. */
export const NOT_SEEN_MS = 3_000;
export const CREATED_BY = { "openebs.io/created-by": "operator-diskpool" } as const;

export type EventDraft = {
  readonly action: string;
  readonly reason: string;
  /** Kubernetes knows no others. */
  readonly type: "Normal" | "Warning";
  readonly note: string;
};

/** What the resource alone tells. */
export type FirstStep =
  | { readonly do: "nothing" }
  | { readonly do: "protect" }
  | { readonly do: "report"; readonly status: DiskPoolStatus }
  | { readonly do: "create" }
  | { readonly do: "look" }
  | { readonly do: "destroy" };

export type Outcome = {
  /** Null: leave the status alone. */
  readonly status: DiskPoolStatus | null;
  readonly events: readonly EventDraft[];
  readonly afterMs: number;
};

/** The answer to reading a pool. */
export type Seen =
  | { readonly is: "there"; readonly pool: Pool }
  | { readonly is: "gone" }
  | { readonly is: "unreachable"; readonly error: SvcError }
  | { readonly is: "failed"; readonly error: SvcError };

const EMPTY = { capacity: 0, used: 0, available: 0 } as const;

export function firstStep(resource: DiskPool): FirstStep {
  const isProtected = resource.finalizers.includes(FINALIZER);
  if (resource.deleting) return isProtected ? { do: "destroy" } : { do: "nothing" };
  if (!isProtected) return { do: "protect" };
  if (resource.status === null) {
    return { do: "report", status: { state: "Creating", cr_state: "Creating", ...EMPTY } };
  }
  return (resource.status.cr_state ?? "Creating") === "Creating"
    ? { do: "create" }
    : { do: "look" };
}

/** Sorts a failed read. */
export function seenFailure(error: SvcError): Seen {
  if (isKind(error, "not-found")) return { is: "gone" };
  if (isKind(error, "unavailable", "timeout", "deadline-exceeded", "aborted")) {
    return { is: "unreachable", error };
  }
  return { is: "failed", error };
}

/** The status that the state of its pool gives a resource; pools without one are on a node that is down. */
export function statusOf(pool: Pool, resource: DiskPool): DiskPoolStatus {
  const cr_state = resource.deleting ? "Terminating" : "Created";
  const { state } = pool;
  if (state === undefined) {
    return { state: "Unknown", cr_state, pool_status: "Unknown", ...EMPTY };
  }
  return {
    state: state.status === "Unknown" ? "Unknown" : "Online",
    cr_state,
    pool_status: state.status,
    capacity: state.capacity,
    used: state.used,
    available: Math.max(0, state.capacity - state.used),
  };
}

function sameStatus(a: DiskPoolStatus | null, b: DiskPoolStatus): boolean {
  return (
    a !== null &&
    a.state === b.state &&
    a.cr_state === b.cr_state &&
    (a.pool_status ?? null) === (b.pool_status ?? null) &&
    a.capacity === b.capacity &&
    a.used === b.used &&
    a.available === b.available
  );
}

function changed(resource: DiskPool, status: DiskPoolStatus): DiskPoolStatus | null {
  return sameStatus(resource.status, status) ? null : status;
}

const nodeOf = (pool: Pool): string | undefined => pool.spec?.node ?? pool.state?.node;

/** Another node has a pool of this name: creating can never work until one of both is gone. */
function conflict(resource: DiskPool, pool: Pool): Outcome {
  const status: DiskPoolStatus = { state: "Error", cr_state: "Creating", ...EMPTY };
  const note = `Cannot create pool: "${resource.name}" exists on node ${nodeOf(pool)}, not on ${resource.spec.node}; delete this DiskPool and make one with another name`;
  return {
    status: changed(resource, status),
    events: [{ action: "Create or Import Failure", reason: "Failure", type: "Warning", note }],
    afterMs: ERROR_MS,
  };
}

export function isElsewhere(resource: DiskPool, pool: Pool): boolean {
  return nodeOf(pool) !== undefined && nodeOf(pool) !== resource.spec.node;
}

/** After a pool was made or found to exist: what reading it back gave. */
export function afterCreate(
  resource: DiskPool,
  { made, pool, intervalMs }: { made: boolean; pool: Pool | null; intervalMs: number },
): Outcome {
  if (pool !== null && isElsewhere(resource, pool)) return conflict(resource, pool);
  const created: EventDraft = {
    action: "Create or Import",
    reason: "Created",
    type: "Normal",
    note: "Created or imported pool",
  };
  const events = made ? [created] : [];
  if (pool?.state === undefined) return { status: null, events, afterMs: NOT_SEEN_MS };
  const online: EventDraft = {
    action: "Online pool",
    reason: "Online",
    type: "Normal",
    note: "Pool online and ready to roll!",
  };
  return {
    status: changed(resource, statusOf(pool, resource)),
    events: [...events, online],
    afterMs: intervalMs,
  };
}

/** The path of a disk that a node can list as a block device; null for what it can't (files, memory). */
export function devicePath(disk: string): string | null {
  const path = /^(?:[a-z]+:\/\/)?(\/dev\/[^?]*)/.exec(disk)?.[1];
  return path ?? null;
}

/** The disks of the resource that its node does not have. */
export function missingDisks(
  disks: readonly string[],
  devices: readonly BlockDevice[],
): readonly string[] {
  const known = new Set(devices.flatMap(({ devname, devlinks }) => [devname, ...devlinks]));
  return disks.filter((disk) => {
    const path = devicePath(disk);
    return path !== null && !known.has(path);
  });
}

/** The devices of the node, or why they are not known. */
export type Devices =
  | { readonly of: "node"; readonly devices: readonly BlockDevice[] }
  | { readonly of: "unknown-node" }
  | { readonly of: "nobody" };

/** Explains why a pool could not be made. */
export function afterFailedCreate(
  { spec }: DiskPool,
  { error, devices }: { error: SvcError; devices: Devices },
): Outcome {
  const event = (draft: EventDraft): Outcome => ({
    status: null,
    events: [draft],
    afterMs: ERROR_MS,
  });
  const failure = (note: string) =>
    event({ action: "Create or Import Failure", reason: "Failure", type: "Warning", note });
  if (devices.of === "unknown-node") {
    return failure(`Cannot find io-engine node "${spec.node}"`);
  }
  const missing = devices.of === "node" ? missingDisks(spec.disks, devices.devices) : [];
  if (missing.length > 0) {
    return event({
      action: "Create or import",
      reason: "Missing",
      type: "Warning",
      note: `The block device(s): ${missing.join(", ")} can not be found on node ${spec.node}`,
    });
  }
  return failure(`Unable to create or import pool: ${error.message}`);
}

/** A pool that is not where it was is made again: the engine imports it when the disk still has it. */
function again(resource: DiskPool, event: EventDraft, afterMs: number): Outcome {
  const status: DiskPoolStatus = { state: "Created", cr_state: "Creating", ...EMPTY };
  return { status: changed(resource, status), events: [event], afterMs };
}

export function afterLook(
  resource: DiskPool,
  seen: Seen,
  { intervalMs }: { intervalMs: number },
): Outcome {
  switch (seen.is) {
    case "there":
      if (isElsewhere(resource, seen.pool)) return conflict(resource, seen.pool);
      return {
        status: changed(resource, statusOf(seen.pool, resource)),
        events: [...specEvents(resource, seen.pool), ...reasonEvents(seen.pool)],
        afterMs: intervalMs,
      };
    case "gone": {
      const note =
        "The pool has been removed through the API; it will be created or imported again";
      const event = { action: "Notfound", reason: "Check", type: "Warning", note } as const;
      return again(resource, event, intervalMs);
    }
    // Nobody could be asked: that says nothing about the pool. What was seen last stays, and nothing is made anew.
    case "unreachable": {
      const note =
        "Could not reach the REST API for information about this pool; its status is what was seen last";
      const event = { action: "Unreachable", reason: "Check", type: "Warning", note } as const;
      return { status: null, events: [event], afterMs: ERROR_MS };
    }
    case "failed": {
      const note = `The pool information is not available: ${seen.error.message}`;
      const event = { action: "Missing", reason: "Check", type: "Warning", note } as const;
      return { status: null, events: [event], afterMs: ERROR_MS };
    }
  }
}

/** A pool that is not healthy says why; the same note is posted once. */
function reasonEvents({ state, status_reason }: Pool): readonly EventDraft[] {
  const reason = state?.status_reason ?? status_reason;
  if (reason === undefined) return [];
  const note = `${reason.message} Next step: ${reason.next_step}`;
  return [{ action: "Check", reason: "Check", type: "Warning", note }];
}

/** A changed spec has no effect on a pool: say so. */
function specEvents({ spec }: DiskPool, pool: Pool): readonly EventDraft[] {
  const disks = pool.spec?.disks;
  if (disks === undefined || disks.join("\n") === spec.disks.join("\n")) return [];
  const note = `The disks of a pool cannot be changed: it stays on ${disks.join(", ")}`;
  return [{ action: "Check", reason: "Check", type: "Warning", note }];
}

/** A resource that is being deleted: what to do about its pool. */
export type DestroyStep =
  | { readonly do: "destroy"; readonly status: DiskPoolStatus | null }
  | { readonly do: "release"; readonly events: readonly EventDraft[] }
  | { readonly do: "wait"; readonly events: readonly EventDraft[]; readonly afterMs: number };

const DESTROYED: EventDraft = {
  action: "Destroyed pool",
  reason: "Destroy",
  type: "Normal",
  note: "The pool has been destroyed",
};

export function beforeDestroy(resource: DiskPool, seen: Seen): DestroyStep {
  switch (seen.is) {
    case "there":
      if (isElsewhere(resource, seen.pool)) return { do: "release", events: [] }; // another's pool
      return { do: "destroy", status: changed(resource, statusOf(seen.pool, resource)) };
    case "gone":
      return { do: "release", events: [{ ...DESTROYED, note: "The pool was gone already" }] };
    case "unreachable":
    case "failed":
      return { do: "wait", events: [cannotDestroy(seen.error)], afterMs: ERROR_MS };
  }
}

export function afterDestroy(error: SvcError | null): DestroyStep {
  if (error === null || isKind(error, "not-found")) return { do: "release", events: [DESTROYED] };
  return { do: "wait", events: [cannotDestroy(error)], afterMs: ERROR_MS };
}

/** A pool that cannot be destroyed: what the way out costs, and how it is asked for. */
export function offerPurge(error: SvcError, cost: PurgeCost | null): DestroyStep {
  const step = afterDestroy(error);
  if (step.do !== "wait" || cost === null || cost.refused !== undefined) return step;
  const { last_copies, unowned, volumes } = cost;
  const last = last_copies + unowned > 0;
  const costs = `${volumes.length} volumes lose a replica, of ${last_copies + unowned} things it is the last copy that can be seen`;
  const note = `If the disk or the node is lost for good, annotate this DiskPool with ${PURGE_ANNOTATION}=${last ? "last-copies" : "true"}. That costs: ${costs}`;
  const offer = { action: "Destroy pool", reason: "Purge", type: "Warning", note } as const;
  return { ...step, events: [...step.events, offer] };
}

/** After a purge: only reading the pool tells that it is gone (an older API knows no purge and says "not found" too). */
export function afterPurge(error: SvcError | null): DestroyStep {
  if (error === null) {
    const note = "Gave up the pool for good";
    return {
      do: "release",
      events: [{ action: "Purge pool", reason: "Purged", type: "Warning", note }],
    };
  }
  const note = `Cannot purge the pool: ${error.message}`;
  const event = { action: "Purge pool", reason: "Purge", type: "Warning", note } as const;
  return { do: "wait", events: [event], afterMs: ERROR_MS };
}

function cannotDestroy(error: SvcError): EventDraft {
  const note = `Cannot destroy the pool yet: ${error.message}`;
  return { action: "Destroy pool", reason: "Destroy", type: "Warning", note };
}
