/**
 * PersistentVolume garbage collector: deletes volumes that no PersistentVolume stands for any more.
 *
 * Two ways a volume loses its PersistentVolume without the driver being told: the object was deleted while the reclaim
 * policy was Retain, or while no controller was there to see it.
 * Invariants:
 * - Nothing is deleted on an incomplete view: a failed list ends the pass.
 * - An orphan is deleted only if it still is one after a grace period: the provisioner writes the PersistentVolume a
 *   moment after CreateVolume has returned; what this process was asked to create is never an orphan.
 * - A published volume has a user and is left alone.
 * - The pass over orphans is repeated until it succeeded once; a deletion that fails is logged, and the next start
 *   finds the volume among the orphans.
 */
import type { Clock } from "#common/clock.ts";
import { DRIVER_NAME, volumeName } from "#common/csi/driver.ts";
import { isUuid } from "#common/ids.ts";
import type { Log } from "#common/log.ts";
import type { Volume } from "#common/openapi/model.ts";
import type { Random } from "#common/random.ts";
import { backoffMs } from "#common/retry.ts";
import type { RestApi } from "./rest.ts";
import { deleteVolume } from "./volumes.ts";

/** Longer than any provisioner takes between the answer and the object. */
const ORPHAN_GRACE_MS = 60_000;
/** Pauses after a failed pass: api-rest or the API server may start later than this. */
const AGAIN_MS = 5_000;
const AGAIN_MS_MAX = 60_000;

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
  /** Reports every change, again after a lost connection; ends with the signal. */
  watch(onChange: (pv: Pv, isGone: boolean) => void, signal: AbortSignal): Promise<void>;
}

export type GcParts = {
  readonly rest: Pick<RestApi, "listVolumes" | "getVolume" | "deleteVolume">;
  readonly source: PvSource;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
};

export class PvGarbageCollector {
  readonly #parts: GcParts;
  readonly #created = new Set<string>();
  readonly #deleting = new Map<string, Promise<void>>();

  constructor(parts: GcParts) {
    this.#parts = parts;
  }

  /** This process was asked to make the volume: its PersistentVolume may still be on its way. */
  noteCreated(uuid: string): void {
    this.#created.add(uuid);
  }

  /** Until the signal: the orphans once, Retain-ed volumes all along. */
  async run(signal: AbortSignal): Promise<void> {
    const { source } = this.#parts;
    await Promise.all([
      source.watch((pv, isGone) => this.onChange(pv, isGone), signal),
      this.#collectOnce(signal),
    ]);
    await this.settle();
  }

  /** Until one pass has succeeded. */
  async #collectOnce(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#parts;
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.collectOrphans(signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.warn("orphaned volumes cannot be collected yet", { attempt, error });
      }
      const pause = backoffMs(attempt, { random, delayMs: AGAIN_MS, delayMsMax: AGAIN_MS_MAX });
      await clock.sleep(pause, signal).catch(() => {}); // aborted: the loop ends
    }
  }

  /** Waits for the deletions that onChange() has begun. */
  async settle(): Promise<void> {
    while (this.#deleting.size > 0) await Promise.all(this.#deleting.values());
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
        !names.has(volumeName(uuid)) && !handles.has(uuid) && !this.#created.has(uuid),
    );
  }

  /** One pass over all volumes. @throws when either list fails */
  async collectOrphans(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    const suspects = new Set((await this.#orphans(signal)).map(({ spec }) => spec.uuid));
    if (suspects.size === 0) return;
    await clock.sleep(ORPHAN_GRACE_MS, signal);
    for (const { spec } of await this.#orphans(signal)) {
      const { uuid } = spec;
      if (!suspects.has(uuid) || this.#created.has(uuid)) continue;
      if (spec.target !== undefined) {
        log.warn("volume without PersistentVolume is published: it stays", { "volume.uuid": uuid });
        continue;
      }
      await this.#delete(uuid, "no PersistentVolume stands for it");
    }
  }

  onChange(pv: Pv, isGone: boolean): void {
    if (pv.driver !== DRIVER_NAME || pv.reclaimPolicy !== "Retain") return;
    const uuid = pv.volumeHandle.toLowerCase();
    if (!isUuid(uuid) || pv.name !== volumeName(uuid)) return; // made by hand: not ours to judge
    // Bound: the claim still uses it; the object's end is what counts.
    if (!isGone && !(pv.isDeleting && pv.phase === "Released")) return;
    if (this.#deleting.has(uuid)) return;
    const work = this.#delete(uuid, `PersistentVolume is ${isGone ? "gone" : "being deleted"}`);
    this.#deleting.set(
      uuid,
      work.finally(() => this.#deleting.delete(uuid)),
    );
  }

  async #delete(uuid: string, why: string): Promise<void> {
    const { log, rest } = this.#parts;
    try {
      await deleteVolume(rest, uuid);
      log.info("volume collected", { "volume.uuid": uuid, why });
    } catch (error) {
      log.error("volume cannot be collected", { "volume.uuid": uuid, why, error });
    }
  }
}
