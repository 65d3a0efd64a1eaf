/**
 * A DiskPool as the API server gives it.
 *
 * Invariant: the spec is checked, the status is taken only when it is one of ours: whatever else is there (of
 * another version, half written) counts as none and is written anew.
 */
import { type Static, Type } from "typebox";
import Value from "typebox/value";
import { parserOf } from "#common/rpc/json_api.ts";
import {
  DISKPOOL_GROUP,
  DISKPOOL_KIND,
  DISKPOOL_PLURAL,
  DISKPOOL_VERSION,
  type DiskPoolSpec,
  DiskPoolSpecSchema,
  type DiskPoolStatus,
  DiskPoolStatusSchema,
} from "#common/types/diskpool.ts";

/** Keeps the object until its pool is destroyed; as published. */
export const FINALIZER = "openebs.io/diskpool-protection";
export const API_VERSION = `${DISKPOOL_GROUP}/${DISKPOOL_VERSION}`;

const ResourceSchema = Type.Object({
  metadata: Type.Object({
    name: Type.String({ minLength: 1 }),
    namespace: Type.String({ minLength: 1 }),
    uid: Type.String({ minLength: 1 }),
    resourceVersion: Type.String(),
    deletionTimestamp: Type.Optional(Type.String()),
    finalizers: Type.Optional(Type.Array(Type.String())),
  }),
  spec: DiskPoolSpecSchema,
  status: Type.Optional(Type.Unknown()),
});

export type DiskPool = {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly deleting: boolean;
  readonly finalizers: readonly string[];
  readonly spec: DiskPoolSpec;
  readonly status: DiskPoolStatus | null;
};

const parse: (value: unknown) => Static<typeof ResourceSchema> = parserOf(
  ResourceSchema,
  "a DiskPool",
  "invalid-argument",
);

/** @throws {SvcError} `invalid-argument` */
export function parseDiskPool(object: unknown): DiskPool {
  const { metadata, spec, status } = parse(object);
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    deleting: metadata.deletionTimestamp !== undefined,
    finalizers: metadata.finalizers ?? [],
    spec,
    status: Value.Check(DiskPoolStatusSchema, status) ? status : null,
  };
}

export function collectionPath(namespace: string): string {
  return `/apis/${API_VERSION}/namespaces/${namespace}/${DISKPOOL_PLURAL}`;
}

export function resourcePath({ namespace, name }: Pick<DiskPool, "namespace" | "name">): string {
  return `${collectionPath(namespace)}/${name}`;
}

/** What a server-side apply starts with; the uid makes sure that it never creates. */
export function identityOf({ name, namespace, uid }: DiskPool) {
  return { apiVersion: API_VERSION, kind: DISKPOOL_KIND, metadata: { name, namespace, uid } };
}
