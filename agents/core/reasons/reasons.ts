/**
 * Why an object is not healthy, and what an operator does or waits for. Pure.
 *
 * Why: what agent-core knows must reach whoever looks at the object, not only whoever reads its log.
 * Invariants: a healthy object has no reason, every other has one; a code is one of a bounded set; the first cause
 * wins (a replica on a pool that is gone says what is wrong with the pool).
 */
import type { StatusReason } from "#common/openapi/model.ts";
import type { SpecPhase } from "#common/types/stored.ts";
import { type VolumeSpec, volumeOperationName } from "#common/types/volume.ts";
import type { DrainProgress } from "../context.ts";
import type {
  ChildReason,
  ChildState,
  NexusState,
  PoolState,
  ReplicaState,
} from "../engine/client.ts";
import type { ImportFailure, NodeView } from "../registry/registry.ts";
import type { VolumeStatus } from "../volume/status.ts";

type Reason = StatusReason | null;

function reason(
  code: string,
  message: string,
  next_step: string,
  sinceMs: number | null = null,
): StatusReason {
  const text = { code, message, next_step };
  return sinceMs === null ? text : { ...text, since: new Date(sinceMs).toISOString() };
}

const RESTART_ENGINE =
  "Look at the io-engine pod of the node, and at the network to it; the node is Online again as soon as it registers.";

export function nodeReason(id: string, view: NodeView | undefined): Reason {
  if (view?.status === "Online") return null;
  const since = view?.statusSince ?? null;
  if (view?.down || view?.status === "Offline") {
    const message = `The engine of node ${id} does not answer.`;
    return reason("engine-not-answering", message, RESTART_ENGINE, since);
  }
  if (!view?.seen) {
    const message = `Node ${id} has not registered since the control plane started.`;
    return reason("not-registered", message, RESTART_ENGINE, since);
  }
  const message = `Node ${id} has left, or its engine is just being read again.`;
  return reason("engine-left", message, RESTART_ENGINE, since);
}

/** A node whose name somebody else wants too is well; its reason says who. */
export function contenderReason({ id, endpoint, contender }: NodeView): Reason {
  if (!contender) return null;
  const message = `Another engine, at ${contender.endpoint}, uses the name of node ${id}, whose engine answers at ${endpoint}: its registration is refused.`;
  const next =
    "Give one of the two another node name, or stop it: once the engine that has the name no longer answers the other gets it.";
  return reason("name-used-twice", message, next, contender.sinceMs);
}

/** A node that is being drained is well; its reason says how far that has come. */
export function drainReason(id: string, progress: DrainProgress | undefined): Reason {
  const { moving = 0, waiting = 0, waitMs = null, why } = progress ?? {};
  if (waiting > 0) {
    const message = `Node ${id} is being drained: hosts are still connected to ${waiting} of its old targets.`;
    const seconds = Math.ceil((waitMs ?? 0) / 1000);
    const next = `Wait until they have left for the new targets, ${seconds} s at most.`;
    return reason("draining", message, next);
  }
  const left =
    moving > 0 ? `${moving} targets are still to be moved` : "its targets are being moved";
  const message = `Node ${id} is being drained: ${left}${why === undefined ? "." : `; last failure: ${why}`}`;
  const next =
    why === undefined
      ? "Wait until they have been moved."
      : "It is tried again by itself; give its volumes another node that is online and not cordoned.";
  return reason("draining", message, next);
}

export type PoolFacts = {
  readonly id: string;
  readonly phase?: SpecPhase | undefined;
  readonly state: PoolState | undefined;
  readonly node: NodeView | undefined;
  readonly importFailure: ImportFailure | undefined;
};

const MEND_DISK =
  "See to the disk; volumes are served from their other replicas meanwhile, and are given new ones elsewhere where pools have room.";

export function poolReason({ id, phase, state, node, importFailure }: PoolFacts): Reason {
  if (state) {
    if (state.trouble) {
      const { code, message, nextStep } = state.trouble;
      return reason(code, message, nextStep);
    }
    if (state.status === "Online") return null;
    const message = `The engine reports pool ${id} as ${state.status}.`;
    return reason("reported-by-engine", message, MEND_DISK);
  }
  if (phase === "Creating") {
    const next = "Wait until the creation ends; when it fails ask for it again.";
    return reason("creating", `Pool ${id} is being created.`, next);
  }
  if (phase === "Deleting") {
    const next = "The deletion is tried again by itself once its node answers.";
    return reason("deleting", `Pool ${id} is being deleted.`, next);
  }
  if (node?.status !== "Online") {
    const inner = nodeReason(node?.id ?? "of the pool", node);
    return inner && { ...inner, code: "node-not-online" };
  }
  if (importFailure) {
    const message = `Pool ${id} cannot be imported: ${importFailure.message}`;
    const next =
      "Mend what the message names; the import is tried again by itself. Until then no other pool can be made on the disk.";
    return reason("import-failed", message, next, importFailure.sinceMs);
  }
  const next = "It is imported by itself within a reconcile period.";
  return reason("not-imported", `Pool ${id} is not imported yet on its node.`, next);
}

const CHILD_WORDS: Readonly<Record<ChildReason, readonly [code: string, words: string]>> = {
  None: ["unhealthy", "is not healthy"],
  Init: ["opening", "is being opened"],
  Closed: ["closed", "is closed"],
  CannotOpen: ["cannot-open", "cannot be opened"],
  ConfigInvalid: ["config-invalid", "does not fit the target (size or block size)"],
  RebuildFailed: ["rebuild-failed", "could not be rebuilt"],
  IoFailure: ["io-failure", "failed an I/O"],
  ByClient: ["by-client", "was taken offline by request"],
  OutOfSync: ["out-of-sync", "has not all the data yet"],
  NoSpace: ["out-of-space", "ran out of space on its pool"],
  TimedOut: ["timed-out", "did not answer in time"],
  AdminFailed: ["admin-failed", "refused or did not answer a command of the target"],
};

export function childReason(child: ChildState): Reason {
  if (child.status === "Online") return null;
  if (child.rebuildProgress !== null) {
    const message = `The child is being rebuilt: ${child.rebuildProgress} % done.`;
    return reason("rebuilding", message, "Wait until the rebuild ends.", child.faultedAtMs);
  }
  const [code, words] = CHILD_WORDS[child.reason];
  const next =
    child.reason === "NoSpace"
      ? "Give its pool room, or let the replica be moved to another pool."
      : "It is brought back or replaced by itself; when that does not come about look at its pool and its node.";
  return reason(code, `The child ${words}.`, next, child.faultedAtMs);
}

export function nexusReason(state: NexusState): Reason {
  switch (state.status) {
    case "Online":
      return null;
    case "ShuttingDown":
    case "Shutdown": {
      const message = `The target on node ${state.node} is shut down: it serves no I/O.`;
      const next =
        "It was moved, or went down rather than serve unsafe data; it is made again or cleaned up by itself.";
      return reason("shut-down", message, next);
    }
    default: {
      const bad = state.children.filter((child) => child.status !== "Online");
      const first = bad.map(childReason).find((known) => known !== null);
      const message = `${bad.length} of ${state.children.length} children of the target are not healthy${first ? `; the first: ${first.message}` : "."}`;
      const next = first?.next_step ?? "Look at the children.";
      return reason(
        state.status === "Degraded" ? "children-degraded" : "children-lost",
        message,
        next,
      );
    }
  }
}

export function replicaReason({
  uuid,
  pool,
  state,
  child = null,
  poolReason: ofPool = null,
}: {
  readonly uuid: string;
  readonly pool: string;
  readonly state: ReplicaState | undefined;
  readonly child?: ChildState | null;
  readonly poolReason?: Reason;
}): Reason {
  if (!state) {
    if (ofPool) return ofPool;
    const message = `Pool ${pool} is there, but replica ${uuid} is not on it.`;
    const next =
      "It is being created, or was lost; a lost one is replaced by itself where the volume may heal.";
    return reason("replica-missing", message, next);
  }
  if (child && child.status !== "Online") return childReason(child);
  if (state.status === "Online") return null;
  if (ofPool) return ofPool;
  const message = `The engine reports replica ${uuid} as ${state.status}.`;
  return reason("reported-by-engine", message, MEND_DISK);
}

export type VolumeFacts = {
  readonly spec: VolumeSpec;
  readonly status: VolumeStatus;
  readonly nexus: NexusState | undefined;
  /** Of its target. */
  readonly node: NodeView | undefined;
  readonly replicas: readonly (readonly [uuid: string, reason: StatusReason | undefined])[];
};

export function volumeReason({ spec, status, nexus, node, replicas }: VolumeFacts): Reason {
  const { uuid, target, operation } = spec;
  if (spec.status === "Creating" || spec.status === "Deleting") {
    const doing = spec.status === "Creating" ? "created" : "deleted";
    const next = "Wait; what is left of it is done by itself once the nodes it needs answer.";
    return reason(spec.status.toLowerCase(), `Volume ${uuid} is being ${doing}.`, next);
  }
  if (status === "Online") return null;
  if (target?.active && !nexus) {
    const inner = node?.status === "Online" ? null : nodeReason(target.node, node);
    const why = inner?.message ?? `Node ${target.node} is there, but the target is not on it.`;
    const next = inner
      ? `The target is moved when its application asks for it, or served again when node ${target.node} is back.`
      : "It is made again by itself within a reconcile period.";
    return reason(
      inner ? "target-not-visible" : "target-missing",
      `The target of the volume cannot be seen. ${why}`,
      next,
      node?.statusSince ?? null,
    );
  }
  if (nexus && nexus.status !== "Online") return nexusReason(nexus);
  const troubled = replicas.find(([, known]) => known !== undefined);
  if (troubled?.[1]) {
    const [replica, known] = troubled;
    return { ...known, message: `Replica ${replica}: ${known.message}` };
  }
  const present = nexus ? nexus.children.length : replicas.length;
  const pending = operation ? ` (${volumeOperationName(operation.operation)} is under way)` : "";
  const message = `The volume has ${present} of ${spec.num_replicas} replicas${pending}.`;
  const next = spec.policy.self_heal
    ? "A further one is made by itself as soon as a pool fits: add one where none does."
    : "Its policy forbids healing: scale it, or allow self-healing.";
  return reason("replicas-missing", message, next);
}
