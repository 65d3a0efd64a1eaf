/**
 * Drain: moves the targets off a node; replicas stay.
 *
 * Invariants: a volume is noted in the node's spec before its target is moved, so that a crash in between leaves no
 * old target that nobody knows of; the node is Drained when its old targets are gone, or 120 s after draining began
 * (the clock restarts with the agent).
 */
import { toSvcError } from "#common/errors.ts";
import { isShutdown } from "#common/types/nexus.ts";
import { isDraining, markDrained, type NodeSpec } from "#common/types/node.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import type { Core } from "../context.ts";
import { destroyShutdownTargets, republishVolume } from "../volume/ops.ts";
import type { Recreate } from "../volume/target.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";

const OLD_TARGETS_MS_MAX = 120_000;

export class DrainReconciler {
  readonly #core: Core;
  readonly #recreate: Recreate;
  readonly #startedMs = new Map<string, number>();

  constructor(core: Core, recreate: Recreate) {
    this.#core = core;
    this.#recreate = recreate;
  }

  async run(signal: AbortSignal): Promise<Outcome> {
    const { specs, guards, clock } = this.#core;
    const outcomes: Outcome[] = [];
    for (const node of specs.nodes.all()) {
      if (signal.aborted) break;
      if (!isDraining(node)) {
        this.#startedMs.delete(node.id);
        continue;
      }
      if (!this.#startedMs.has(node.id)) this.#startedMs.set(node.id, clock.monotonicMs());
      outcomes.push((await this.#moveTargets(node, signal)) ? "busy" : "failed"); // failed: the rest takes time
      await guards.tryRun(`node/${node.id}`, () => this.#finish(node.id));
    }
    return mergeOutcomes(outcomes);
  }

  #targetsOn(node: string): VolumeSpec[] {
    return this.#core.specs.volumes
      .all()
      .filter((volume) => volume.target?.active && volume.target.node === node);
  }

  /** True when at least one was moved. */
  async #moveTargets(node: NodeSpec, signal: AbortSignal): Promise<boolean> {
    const { log } = this.#core;
    let moved = false;
    for (const { uuid, target } of this.#targetsOn(node.id)) {
      if (signal.aborted) break;
      const frontendNode = target?.frontend.host_acl[0]?.node_name ?? "";
      const request = { node: null, protocol: "nvmf", reuseExisting: false, frontendNode } as const;
      try {
        if (!(await this.#note(node.id, uuid))) break; // uncordoned meanwhile
        await republishVolume(this.#core, uuid, request, this.#recreate);
        moved = true;
      } catch (error) {
        const fields = { "node.id": node.id, "volume.uuid": uuid };
        log.warn("target cannot be moved yet", { ...fields, error: toSvcError(error) });
      }
    }
    return moved;
  }

  /** Writes down that the volume's old target on the node is ours to see gone. False when the drain is over. */
  async #note(id: string, volume: string): Promise<boolean> {
    const { specs, guards } = this.#core;
    return await guards.run(`node/${id}`, async () => {
      const spec = specs.nodes.get(id);
      if (!isDraining(spec)) return false;
      if (spec.draining_volumes.includes(volume)) return true;
      await specs.nodes.put({ ...spec, draining_volumes: [...spec.draining_volumes, volume] });
      return true;
    });
  }

  async #finish(id: string): Promise<void> {
    const { specs, clock, log } = this.#core;
    const spec = specs.nodes.get(id);
    if (!isDraining(spec) || this.#targetsOn(id).length > 0) return;
    const nowMs = clock.monotonicMs();
    const startedMs = this.#startedMs.get(id) ?? nowMs;
    const volumes = new Set<string>(spec.draining_volumes);
    const left = specs.nexuses
      .all()
      .filter((nexus) => nexus.node === id && isShutdown(nexus))
      .filter((nexus) => nexus.owner !== null && volumes.has(nexus.owner));
    if (left.length > 0 && nowMs - startedMs < OLD_TARGETS_MS_MAX) return;
    for (const nexus of left) {
      if (nexus.owner === null) continue;
      await destroyShutdownTargets(this.#core, nexus.owner).catch((error: unknown) => {
        log.warn("old target stays", { "nexus.uuid": nexus.uuid, error: toSvcError(error) });
      });
    }
    await specs.nodes.put(markDrained(spec));
    this.#startedMs.delete(id);
    log.info("node is drained", { "node.id": id });
  }
}
