/**
 * The stored node: where its engine answers, and whether it is cordoned or drained.
 *
 * Invariants: a label is in at most one of the two lists; no empty state is stored (none is simply absent).
 */
import { type Static, Type } from "typebox";
import { SvcError } from "../errors.ts";
import { UuidText } from "./stored.ts";

const Names = Type.Array(Type.String());
const Drain = Type.Object({ cordonlabels: Names, drainlabels: Names });
const CordonDrainSchema = Type.Union([
  Type.Object({ Cordoned: Type.Object({ cordonlabels: Names }) }),
  Type.Object({ Draining: Drain }),
  Type.Object({ Drained: Drain }),
]);
export type CordonDrain = Static<typeof CordonDrainSchema>;

export const NodeSpecSchema = Type.Object({
  id: Type.String(),
  endpoint: Type.String(),
  labels: Type.Record(Type.String(), Type.String(), { default: {} }),
  cordon_drain_state: Type.Optional(CordonDrainSchema),
  node_nqn: Type.Optional(Type.String()),
  draining_volumes: Type.Array(UuidText, { default: [] }),
});
export type NodeSpec = Static<typeof NodeSpecSchema>;

type Lists = { readonly cordonlabels: string[]; readonly drainlabels: string[] };

export function cordonLists(state: CordonDrain | undefined): Lists {
  if (!state) return { cordonlabels: [], drainlabels: [] };
  if ("Cordoned" in state) return { cordonlabels: state.Cordoned.cordonlabels, drainlabels: [] };
  return "Draining" in state ? state.Draining : state.Drained;
}

export function isCordoned(spec: NodeSpec | undefined): boolean {
  return spec?.cordon_drain_state !== undefined;
}

export function isDraining(spec: NodeSpec): boolean {
  return spec.cordon_drain_state !== undefined && "Draining" in spec.cordon_drain_state;
}

function withState(spec: NodeSpec, state: CordonDrain | null): NodeSpec {
  const { cordon_drain_state: _, ...rest } = spec;
  return state ? { ...rest, cordon_drain_state: state } : rest;
}

function checkNewLabel(spec: NodeSpec, label: string): Lists {
  const lists = cordonLists(spec.cordon_drain_state);
  if (lists.cordonlabels.includes(label) || lists.drainlabels.includes(label)) {
    throw new SvcError(
      "failed-precondition",
      `Cannot cordon node ${spec.id}: label ${label} is already there`,
    );
  }
  return lists;
}

/** @throws {SvcError} `failed-precondition` when the label is there already */
export function cordon(spec: NodeSpec, label: string): NodeSpec {
  const { cordonlabels, drainlabels } = checkNewLabel(spec, label);
  const lists = { cordonlabels: [...cordonlabels, label], drainlabels };
  const state = spec.cordon_drain_state;
  if (!state || "Cordoned" in state) {
    return withState(spec, { Cordoned: { cordonlabels: lists.cordonlabels } });
  }
  return withState(spec, "Draining" in state ? { Draining: lists } : { Drained: lists });
}

/** @throws {SvcError} `failed-precondition` when the label is there already */
export function drain(spec: NodeSpec, label: string): NodeSpec {
  const { cordonlabels, drainlabels } = checkNewLabel(spec, label);
  const lists = { cordonlabels, drainlabels: [...drainlabels, label] };
  const state = spec.cordon_drain_state;
  return withState(spec, state && "Drained" in state ? { Drained: lists } : { Draining: lists });
}

/** @throws {SvcError} `failed-precondition` when the label is not there */
export function uncordon(spec: NodeSpec, label: string): NodeSpec {
  const old = cordonLists(spec.cordon_drain_state);
  const without = (labels: readonly string[]) => labels.filter((other) => other !== label);
  const lists = {
    cordonlabels: without(old.cordonlabels),
    drainlabels: without(old.drainlabels),
  };
  const removed =
    old.cordonlabels.length +
    old.drainlabels.length -
    lists.cordonlabels.length -
    lists.drainlabels.length;
  if (removed === 0) {
    throw new SvcError(
      "failed-precondition",
      `Cannot uncordon node ${spec.id}: label ${label} is not there`,
    );
  }
  const state = spec.cordon_drain_state;
  if (lists.drainlabels.length > 0 && state) {
    return withState(spec, "Drained" in state ? { Drained: lists } : { Draining: lists });
  }
  const left = { ...spec, draining_volumes: [] };
  if (lists.cordonlabels.length === 0) return withState(left, null);
  return withState(left, { Cordoned: { cordonlabels: lists.cordonlabels } });
}

export function markDrained(spec: NodeSpec): NodeSpec {
  const lists = cordonLists(spec.cordon_drain_state);
  return withState({ ...spec, draining_volumes: [] }, { Drained: { ...lists } });
}
