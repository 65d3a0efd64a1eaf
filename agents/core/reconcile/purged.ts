/**
 * What was given up for good: purges that a crash left half done, and what came back all the same.
 *
 * Invariants: a returned pool is closed as soon as no target has a child on it, and its disk is left as it is; a returned
 * target is destroyed, which cuts off its hosts; a child over a purged replica goes once another one is whole.
 */
import { isKind } from "#common/errors.ts";
import type { Core } from "../context.ts";
import { carryOnNode } from "../purge/node.ts";
import { carryOnPool, detachPurged } from "../purge/pool.ts";
import { replicaOfUri } from "../scheduling/snapshot.ts";
import type { Recreate } from "../volume/target.ts";
import { forEach } from "./each.ts";
import { mergeOutcomes, type Outcome } from "./loop.ts";

/** A disk that hangs takes a call's whole deadline: it is not asked again for so long. */
const CLOSE_PAUSE_MS = 60_000;

export type PurgedOptions = {
  readonly recreate: Recreate;
  /** Monotonic; by node and pool: those that could not be closed are tried again then. */
  readonly closeAfterMs: Map<string, number>;
};

export async function reconcilePurged(
  core: Core,
  { recreate, closeAfterMs }: PurgedOptions,
  signal: AbortSignal,
): Promise<Outcome> {
  const { tombstones, registry, specs } = core;
  const name = "purged";
  const outcomes = [
    await forEach(
      core,
      tombstones.pools().filter(({ state }) => state === "Purging"),
      {
        ...{ name, signal, guardOf: ({ pool }) => `pool/${pool}` as const },
        step: async ({ pool }) => {
          await carryOnPool(core, pool);
          return "busy";
        },
      },
    ),
    await forEach(
      core,
      tombstones.nodes().filter(({ state }) => state === "Purging"),
      {
        ...{ name, signal, guardOf: ({ node }) => `name/${node}` as const },
        step: async ({ node }) => {
          await carryOnNode(core, node, recreate);
          return "busy";
        },
      },
    ),
  ];
  const targets = registry
    .nexuses()
    .filter(({ uuid }) => tombstones.isNexus(uuid) && !specs.nexuses.find(uuid));
  outcomes.push(
    await forEach(core, targets, {
      ...{ name, signal, guardOf: ({ uuid }) => `nexus/${uuid}` as const },
      step: async ({ uuid, node }) => {
        await registry.engine(node).destroyNexus(uuid).catch(unlessGone);
        registry.dropNexus(node, uuid);
        core.log.warn("target of a purged node was destroyed", {
          "nexus.uuid": uuid,
          "node.id": node,
        });
        return "busy";
      },
    }),
  );
  outcomes.push(await detachAll(core, signal));
  outcomes.push(await closeReturned(core, closeAfterMs, signal));
  return mergeOutcomes(outcomes);
}

async function detachAll(core: Core, signal: AbortSignal): Promise<Outcome> {
  const { registry, specs, tombstones } = core;
  const children = registry.nexuses().flatMap(({ uuid, children }) =>
    children.flatMap((child) => {
      const replica = replicaOfUri(child.uri);
      const volume = specs.nexuses.find(uuid)?.owner ?? null;
      const isOld = replica !== null && tombstones.isReplica(replica);
      return isOld && volume !== null ? [{ replica, volume }] : [];
    }),
  );
  return await forEach(core, children, {
    ...{ name: "purged children", signal },
    guardOf: ({ volume }) => `volume/${volume}`,
    step: async ({ volume, replica }) =>
      (await detachPurged(core, volume, replica)) ? "busy" : "idle",
  });
}

async function closeReturned(
  core: Core,
  closeAfterMs: Map<string, number>,
  signal: AbortSignal,
): Promise<Outcome> {
  const { registry, tombstones } = core;
  const used = new Set(
    registry
      .nexuses()
      .flatMap(({ children }) => children.map(({ uri }) => replicaOfUri(uri)))
      .filter((replica) => replica !== null),
  );
  const isUsed = (uuid: string, id: string) =>
    tombstones
      .pools()
      .filter((old) => (old.pool_uuid === null ? old.pool === id : old.pool_uuid === uuid))
      .some(({ replicas }) => replicas.some((replica) => used.has(replica)));
  const returned = registry
    .nodes()
    .filter(({ status }) => status === "Online")
    .flatMap(({ id }) => registry.returned(id))
    .filter(({ id, uuid }) => !isUsed(uuid, id))
    .filter(({ node, uuid }) => {
      const dueMs = (closeAfterMs.get(`${node}/${uuid}`) ?? 0) - core.clock.monotonicMs();
      if (dueMs > 0) core.wakeIn(dueMs);
      return dueMs <= 0;
    });
  return await forEach(core, returned, {
    ...{ name: "returned pools", signal },
    guardOf: ({ id }) => `pool/${id}`,
    step: async ({ id, node, uuid }) => {
      const engine = registry.engine(node);
      closeAfterMs.set(`${node}/${uuid}`, core.clock.monotonicMs() + CLOSE_PAUSE_MS);
      // Asked once more: by now the name may be that of the pool which took its place.
      const now = (await engine.load()).pools.find((pool) => pool.id === id);
      if (now && registry.isPurgedPool(now)) {
        await engine.exportPool(id).catch(unlessGone);
        core.log.warn("purged pool came back and was closed", {
          "pool.id": id,
          "pool.uuid": uuid,
          "node.id": node,
        });
      }
      closeAfterMs.delete(`${node}/${uuid}`);
      const mark = registry.mark(node);
      registry.apply(node, mark, await engine.load());
      return "busy";
    },
  });
}

function unlessGone(error: unknown): void {
  if (!isKind(error, "not-found")) throw error;
}
