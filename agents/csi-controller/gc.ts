/**
 * PersistentVolume garbage collector: deletes volumes that no PersistentVolume stands for any more.
 *
 * Two ways a volume loses its PersistentVolume without the driver being told: the object was deleted while the reclaim
 * policy was Retain, or while no controller was there to see it.
 * Invariants:
 * - Nothing is deleted on an incomplete view: a failed list ends the pass, a failed read puts the deletion off.
 * - An order to delete is the end of a PersistentVolume that a claim has used (Bound or Released), or of one without a
 *   claim (Released) that is being deleted. It is void once the PersistentVolume is there again, or CreateVolume asks.
 * - An orphan is deleted only if it still is one after a grace period: the provisioner writes the PersistentVolume a
 *   moment after CreateVolume has returned; what this process was asked to create is never an orphan.
 * - The order of an ended PersistentVolume is carried out after a grace period too: it may be made again.
 * - A published volume has a user. One that was ordered away is deleted once it is published no more, an orphan stays.
 * - A volume is judged and deleted under its guard, which calls of the sidecars take too.
 * - The pass over orphans is repeated until it succeeded once; a deletion that fails is tried again until it is void.
 */
import type { Clock } from "#common/clock.ts";
import { DRIVER_NAME, volumeName } from "#common/csi/driver.ts";
import type { VolumeGuard } from "#common/csi/guard.ts";
import { isUuid } from "#common/ids.ts";
import { WorkQueue } from "#common/kubernetes/work_queue.ts";
import type { Log } from "#common/log.ts";
import type { Volume } from "#common/openapi/model.ts";
import type { Random } from "#common/random.ts";
import { backoffMs } from "#common/retry.ts";
import type { RestApi } from "./rest.ts";
import { deleteVolume, findVolume, targetNode } from "./volumes.ts";

/** Longer than any provisioner takes between the answer and the object. */
const ORPHAN_GRACE_MS = 60_000;
/** Whoever makes an ended PersistentVolume again (a restore, `kubectl replace --force`) wants the data: time to do so. */
const ENDED_GRACE_MS = 60_000;
/** Pauses after a failed pass: api-rest or the API server may start later than this. */
const AGAIN_MS = 5_000;
const AGAIN_MS_MAX = 60_000;
/** How often a volume that is still published is looked at again. */
const PUBLISHED_MS = 10_000;
/** Deletions at a time: there is no hurry, and sidecars use the same REST server. */
const CONCURRENCY = 4;

/** The part of a PersistentVolume that counts here. */
export type Pv = {
  readonly name: string;
  /** Empty when the volume is not a CSI one. */
  readonly driver: string;
  readonly volumeHandle: string;
  readonly reclaimPolicy: string;
  readonly phase: string;
  /** deletionTimestamp is set. */
  readonly isDeleting: boolean;
};

export interface PvSource {
  /** All of them. @throws rather than leaving one out */
  list(signal: AbortSignal): Promise<readonly Pv[]>;
  /** Those that stand for a volume now, by name or by handle. @throws when that cannot be told */
  find(uuid: string, signal: AbortSignal): Promise<readonly Pv[]>;
  /** Reports every change, again after a lost connection; ends with the signal. */
  watch(onChange: (pv: Pv, isGone: boolean) => void, signal: AbortSignal): Promise<void>;
}

export type GcParts = {
  readonly rest: Pick<RestApi, "listVolumes" | "getVolume" | "deleteVolume">;
  readonly source: PvSource;
  /** The one that calls of the sidecars take. */
  readonly guard: VolumeGuard;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
};

/** A volume to be deleted; `isWaiting`: it was found published, which has been said. */
type Order = { readonly why: string; readonly dueMs: number; isWaiting: boolean };

/** The end of this PersistentVolume means that its volume is to go; Bound: the object's own end is what counts. */
function isEnd({ reclaimPolicy, phase, isDeleting }: Pv, isGone: boolean): boolean {
  if (reclaimPolicy !== "Retain") return false; // the provisioner's
  if (phase === "Released") return isGone || isDeleting;
  return phase === "Bound" && isGone;
}

export class PvGarbageCollector {
  readonly #parts: GcParts;
  readonly #queue: WorkQueue;
  readonly #orders = new Map<string, Order>();
  /** Null once there is no pass over orphans to come. */
  #created: Set<string> | null = new Set();

  constructor(parts: GcParts) {
    this.#parts = parts;
    const { clock, random, log } = parts;
    this.#queue = new WorkQueue({
      ...{ clock, random, concurrency: CONCURRENCY, delayMs: AGAIN_MS, delayMsMax: AGAIN_MS_MAX },
      onError: (uuid, error) =>
        log.warn("volume cannot be collected yet", { "volume.uuid": uuid, error }),
    });
  }

  /** This process was asked to make the volume: its PersistentVolume may still be on its way. */
  noteCreated(uuid: string): void {
    this.#created?.add(uuid);
    this.#orders.delete(uuid);
  }

  /** Until the signal: the orphans once, Retain-ed volumes all along. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([
      this.#parts.source.watch((pv, isGone) => this.#onChange(pv, isGone), signal),
      this.#collectOrphansOnce(signal),
      this.#queue.run((uuid) => this.#collect(uuid, signal), signal),
    ]);
  }

  /** Until one pass has succeeded. */
  async #collectOrphansOnce(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#parts;
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.#collectOrphans(signal);
        this.#created = null;
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.warn("orphaned volumes cannot be collected yet", { attempt, error });
      }
      const pause = backoffMs(attempt, { random, delayMs: AGAIN_MS, delayMsMax: AGAIN_MS_MAX });
      await clock.sleep(pause, signal).catch(() => {}); // aborted: the loop ends
    }
  }

  async #orphans(signal: AbortSignal): Promise<Volume[]> {
    const { rest, source } = this.#parts;
    // Volumes first: one that appears in between has its PersistentVolume in the later list, or is not looked at.
    const { entries } = await rest.listVolumes({ maxEntries: 0, startingToken: 0 });
    const pvs = await source.list(signal);
    const names = new Set(pvs.map((pv) => pv.name));
    const handles = new Set(
      pvs.filter((pv) => pv.driver === DRIVER_NAME).map((pv) => pv.volumeHandle.toLowerCase()),
    );
    return entries.filter(
      ({ spec: { uuid } }) =>
        !names.has(volumeName(uuid)) && !handles.has(uuid) && !this.#created?.has(uuid),
    );
  }

  /** One pass over all volumes. @throws when either list fails */
  async #collectOrphans(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    const suspects = new Set((await this.#orphans(signal)).map(({ spec }) => spec.uuid));
    if (suspects.size === 0) return;
    await clock.sleep(ORPHAN_GRACE_MS, signal);
    for (const volume of await this.#orphans(signal)) {
      const { uuid } = volume.spec;
      if (!suspects.has(uuid)) continue;
      if (targetNode(volume) !== null) {
        log.warn("volume without PersistentVolume is published: it stays", { "volume.uuid": uuid });
        continue;
      }
      this.#order(uuid, "no PersistentVolume stands for it");
    }
  }

  #onChange(pv: Pv, isGone: boolean): void {
    if (pv.driver !== DRIVER_NAME) return;
    const uuid = pv.volumeHandle.toLowerCase();
    if (!isUuid(uuid) || pv.name !== volumeName(uuid)) return; // made by hand: not ours to judge
    if (isEnd(pv, isGone)) {
      const why = `PersistentVolume is ${isGone ? "gone" : "being deleted"}`;
      this.#order(uuid, why, ENDED_GRACE_MS);
    } else if (!isGone) {
      this.#orders.delete(uuid);
    }
  }

  #order(uuid: string, why: string, graceMs = 0): void {
    const dueMs = this.#parts.clock.monotonicMs() + graceMs;
    if (!this.#orders.has(uuid)) this.#orders.set(uuid, { why, dueMs, isWaiting: false });
    this.#queue.add(uuid);
  }

  /** One step for one volume: null when it is done with, else when to look again. @throws to be tried again */
  async #collect(uuid: string, signal: AbortSignal): Promise<number | null> {
    const { guard, log, rest, source } = this.#parts;
    const order = this.#orders.get(uuid);
    if (order === undefined) return null;
    return await guard.run(uuid, "collection of its garbage", async () => {
      const pvs = await source.find(uuid, signal);
      const volume = await findVolume(rest, uuid);
      const node = volume === null ? null : targetNode(volume);
      if (this.#orders.get(uuid) !== order) return null; // void meanwhile
      if (!pvs.every((pv) => isEnd(pv, false))) {
        log.info("volume stays: a PersistentVolume stands for it", { "volume.uuid": uuid });
      } else if (node !== null) {
        if (!order.isWaiting) {
          log.warn("volume to be collected is published: deleted once it is not", {
            ...{ "volume.uuid": uuid, "target.node": node, why: order.why },
          });
        }
        order.isWaiting = true;
        return PUBLISHED_MS;
      } else if (volume !== null) {
        const leftMs = order.dueMs - this.#parts.clock.monotonicMs();
        if (leftMs > 0) return leftMs;
        await deleteVolume(rest, uuid);
        log.info("volume collected", { "volume.uuid": uuid, why: order.why });
      }
      this.#orders.delete(uuid);
      return null;
    });
  }
}
