/**
 * Drain: moves the targets off a node; replicas stay.
 *
 * Invariants: a volume is noted in the node's spec before its target is moved, so that a crash in between leaves no
 * old target that nobody knows of; an old target goes as soon as no host is connected to it; the node is Drained when they
 * are gone, or 120 s after draining began (the clock restarts with the agent).
 */
import { toSvcError } from "#common/errors.ts";
import { isShutdown, type NexusSpec } from "#common/types/nexus.ts";
import { isDraining, markDrained, type NodeSpec } from "#common/types/node.ts";
import type { VolumeSpec } from "#common/types/volume.ts";
import type { Core, DrainProgress } from "../context.ts";
import { destroyShutdownTargets, republishVolume } from "../volume/ops.ts";
import type { Recreate } from "../volume/target.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";

const OLD_TARGETS_MS_MAX = 120_000;
/** How often it is looked whether hosts have left. */
const HOSTS_LOOK_MS = 1000;

export class DrainReconciler {
  readonly #core: Core;
  readonly #recreate: Recreate;
  readonly #startedMs = new Map<string, number>();
  readonly #said = new Map<string, string>();

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
        this.#said.delete(node.id);
        this.#core.drains.delete(node.id);
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
      const moving = this.#targetsOn(node.id).length;
      this.#say(node.id, { moving, waiting: 0, waitMs: null });
      const frontendNode = target?.frontend.host_acl[0]?.node_name ?? "";
      const request = { node: null, protocol: "nvmf", reuseExisting: false, frontendNode } as const;
      try {
        if (!(await this.#note(node.id, uuid))) break; // uncordoned meanwhile
        await republishVolume(this.#core, uuid, request, this.#recreate);
        moved = true;
      } catch (error) {
        const fields = { "node.id": node.id, "volume.uuid": uuid };
        const failure = toSvcError(error);
        log.warn("target cannot be moved yet", { ...fields, error: failure });
        const why = `volume ${uuid}: ${failure.message}`;
        this.#say(node.id, { moving, waiting: 0, waitMs: null, why });
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
    const core = this.#core;
    const { specs, clock, log } = core;
    const spec = specs.nodes.get(id);
    if (!isDraining(spec) || this.#targetsOn(id).length > 0) return;
    const nowMs = clock.monotonicMs();
    const startedMs = this.#startedMs.get(id) ?? nowMs;
    const volumes = new Set<string>(spec.draining_volumes);
    const left = specs.nexuses
      .all()
      .filter((nexus) => nexus.node === id && isShutdown(nexus))
      .filter((nexus) => nexus.owner !== null && volumes.has(nexus.owner));
    const isOver = nowMs - startedMs >= OLD_TARGETS_MS_MAX;
    const idle = isOver ? left : await this.#withoutHosts(id, left);
    const waiting = left.length - idle.length;
    if (waiting > 0) {
      const waitMs = startedMs + OLD_TARGETS_MS_MAX - nowMs;
      this.#say(id, { waiting, moving: 0, waitMs });
      core.wakeIn(Math.min(HOSTS_LOOK_MS, waitMs));
    }
    for (const nexus of idle) {
      if (nexus.owner === null) continue;
      await destroyShutdownTargets(this.#core, nexus.owner).catch((error: unknown) => {
        log.warn("old target stays", { "nexus.uuid": nexus.uuid, error: toSvcError(error) });
      });
    }
    if (waiting > 0) return;
    await specs.nodes.put(markDrained(spec));
    this.#startedMs.delete(id);
    this.#said.delete(id);
    core.drains.delete(id);
    log.info("node is drained", { "node.id": id });
  }

  /** Those of the old targets that nobody would miss. An engine that does not tell is taken to have hosts. */
  async #withoutHosts(node: string, left: readonly NexusSpec[]): Promise<NexusSpec[]> {
    if (left.length === 0) return [];
    const { registry, log } = this.#core;
    try {
      const hosts = await registry.engine(node).targetHosts();
      return hosts === null
        ? []
        : left.filter(({ uuid }) => (hosts.get(uuid)?.connected ?? 0) === 0);
    } catch (error) {
      log.info("hosts of old targets are not known", { "node.id": node, error: toSvcError(error) });
      return [];
    }
  }

  /** Where operators look: in the node's state, and in the log whenever it changes. */
  #say(node: string, progress: DrainProgress): void {
    const { drains, log } = this.#core;
    drains.set(node, progress);
    const { moving, waiting } = progress;
    const text = `${moving} ${waiting}`;
    if (this.#said.get(node) === text) return;
    this.#said.set(node, text);
    log.info("node is being drained", {
      ...{ "node.id": node, "targets.to_move": moving, "targets.with_hosts": waiting },
    });
  }
}
