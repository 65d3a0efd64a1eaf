/**
 * The operator's ways out: pools through REST, resources and events through the API server.
 * Why ports: the controller is tested against both real parts and scripted ones.
 */
import type { BlockDevice, Pool, PurgeCost } from "#common/openapi/model.ts";
import type { DiskPoolStatus } from "#common/types/diskpool.ts";
import type { EventDraft } from "./decide.ts";
import type { DiskPool } from "./resource.ts";

export type PoolPlace = { readonly node: string; readonly pool: string };

/** Failures are SvcErrors with the kind that the control plane gave. */
export interface Pools {
  get(pool: string, signal: AbortSignal): Promise<Pool>;
  create(
    place: PoolPlace & {
      readonly disks: readonly string[];
      readonly labels: Readonly<Record<string, string>>;
    },
    signal: AbortSignal,
  ): Promise<void>;
  destroy(place: PoolPlace, signal: AbortSignal): Promise<void>;
  /** What giving it up for good costs. */
  purgeCost(pool: string, signal: AbortSignal): Promise<PurgeCost>;
  purge(pool: string, lastCopies: boolean, signal: AbortSignal): Promise<void>;
  devices(node: string, signal: AbortSignal): Promise<readonly BlockDevice[]>;
}

/** Each write returns the object as it is now, in the API server's form. */
export interface Resources {
  protect(resource: DiskPool, signal: AbortSignal): Promise<unknown>;
  release(resource: DiskPool, signal: AbortSignal): Promise<void>;
  report(resource: DiskPool, status: DiskPoolStatus, signal: AbortSignal): Promise<unknown>;
}

export interface Events {
  /** Never fails: an event is a comment. */
  post(resource: DiskPool, event: EventDraft, signal: AbortSignal): Promise<void>;
  /** What holds for the object now: anything else is posted again when it comes back. */
  settle(uid: string, events: readonly EventDraft[]): void;
  /** The object is gone: its memory may go too. */
  forget(uid: string): void;
}
