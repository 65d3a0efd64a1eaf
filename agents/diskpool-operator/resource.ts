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
/**
 * On a DiskPool that is being deleted: its pool is given up for good when it cannot be destroyed, because its disk or its node is
 * lost. "true": unless nobody has another copy of what is on it; "last-copies": even then.
 */
export const PURGE_ANNOTATION = "openebs.io/purge";
export const API_VERSION = `${DISKPOOL_GROUP}/${DISKPOOL_VERSION}`;

const ResourceSchema = Type.Object({
  metadata: Type.Object({
    name: Type.String({ minLength: 1 }),
    namespace: Type.String({ minLength: 1 }),
    uid: Type.String({ minLength: 1 }),
    resourceVersion: Type.String(),
    deletionTimestamp: Type.Optional(Type.String()),
    finalizers: Type.Optional(Type.Array(Type.String())),
    annotations: Type.Optional(Type.Record(Type.String(), Type.String())),
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
  readonly purge: "no" | "yes" | "last-copies";
  readonly spec: DiskPoolSpec;
  readonly status: DiskPoolStatus | null;
};

const parse: (value: unknown) => Static<typeof ResourceSchema> = parserOf(
  ResourceSchema,
  "a DiskPool",
  "invalid-argument",
);

/** Only what is surely meant is obeyed. */
function purgeOf(annotation: string | undefined): DiskPool["purge"] {
  if (annotation === "last-copies") return "last-copies";
  return annotation === "true" ? "yes" : "no";
}

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
    purge: purgeOf(metadata.annotations?.[PURGE_ANNOTATION]),
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
