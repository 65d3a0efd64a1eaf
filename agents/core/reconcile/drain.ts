/**
 * Drain: moves the targets off a node; replicas stay.
 *
 * Invariants: a volume counts as moved only after its republish; the node is Drained when its old targets are
 * gone, or after 120 s of waiting for them (the clock restarts with the agent).
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

  async run(): Promise<Outcome> {
    const { specs, guards } = this.#core;
    const outcomes: Outcome[] = [];
    for (const node of specs.nodes.all()) {
      if (!isDraining(node)) {
        this.#startedMs.delete(node.id);
        continue;
      }
      outcomes.push((await this.#moveTargets(node)) ? "busy" : "failed"); // failed: the rest takes time
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
  async #moveTargets(node: NodeSpec): Promise<boolean> {
    const { specs, guards, log } = this.#core;
    let moved = false;
    for (const { uuid, target } of this.#targetsOn(node.id)) {
      const frontendNode = target?.frontend.host_acl[0]?.node_name ?? "";
      const request = { node: null, protocol: "nvmf", reuseExisting: false, frontendNode } as const;
      try {
        await republishVolume(this.#core, uuid, request, this.#recreate);
        await guards.run(`node/${node.id}`, async () => {
          const spec = specs.nodes.get(node.id);
          const draining_volumes = [...new Set([...spec.draining_volumes, uuid])];
          await specs.nodes.put({ ...spec, draining_volumes });
        });
        moved = true;
      } catch (error) {
        const fields = { "node.id": node.id, "volume.uuid": uuid };
        log.warn("target cannot be moved yet", { ...fields, error: toSvcError(error) });
      }
    }
    return moved;
  }

  async #finish(id: string): Promise<void> {
    const { specs, clock, log } = this.#core;
    const spec = specs.nodes.get(id);
    if (!isDraining(spec) || this.#targetsOn(id).length > 0) return;
    const nowMs = clock.monotonicMs();
    const startedMs = this.#startedMs.get(id) ?? nowMs;
    this.#startedMs.set(id, startedMs);
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
