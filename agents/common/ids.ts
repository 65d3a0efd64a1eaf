/**
 * Ids: strings that cannot be mixed up, made only by their parser.
 *
 * Invariants: uuids are lower-case and hyphenated; names of nodes and pools are non-empty, without
 * slashes or white space (they are path segments of REST and store keys).
 */
import { SvcError } from "./errors.ts";

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type VolumeId = Branded<"VolumeId">;
export type ReplicaId = Branded<"ReplicaId">;
export type NexusId = Branded<"NexusId">;
export type NodeId = Branded<"NodeId">;
export type PoolId = Branded<"PoolId">;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
// A store key segment and a REST path segment; 253 is the longest Kubernetes name.
const NAME = /^[^\s/]{1,253}$/;

export function isUuid(text: string): boolean {
  return UUID.test(text.toLowerCase());
}

/** @throws {SvcError} `invalid-argument` */
function parseUuid(what: string, text: string): string {
  const lower = text.toLowerCase();
  if (!UUID.test(lower)) {
    throw new SvcError("invalid-argument", `Cannot read ${what}: "${text}" is not a uuid`);
  }
  return lower;
}

/** @throws {SvcError} `invalid-argument` */
function parseName(what: string, text: string): string {
  if (!NAME.test(text)) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read ${what}: "${text}" must be 1 to 253 characters without white space or "/"`,
    );
  }
  return text;
}

// The casts below are the only places where a brand is made: the text has just been validated.
export const parseVolumeId = (text: string) => parseUuid("volume id", text) as VolumeId;
export const parseReplicaId = (text: string) => parseUuid("replica id", text) as ReplicaId;
export const parseNexusId = (text: string) => parseUuid("nexus id", text) as NexusId;
export const parseNodeId = (text: string) => parseName("node id", text) as NodeId;
export const parsePoolId = (text: string) => parseName("pool id", text) as PoolId;
