/**
 * The DiskPool CRD: made where it is missing, brought up to date where it is older.
 *
 * Invariants: versions that others have added stay (objects may be stored in them), ours becomes the stored one;
 * a CRD that says what ours says is left alone; returns only when the API server serves the resource.
 */
import { type Static, Type } from "typebox";
import type { Clock } from "#common/clock.ts";
import { diskPoolCrd } from "#common/crd/diskpool.ts";
import { isKind, SvcError } from "#common/errors.ts";
import type { KubeClient } from "#common/kubernetes/client.ts";
import type { Log } from "#common/log.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import { DISKPOOL_VERSION } from "#common/types/diskpool.ts";

const PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/** Establishing takes some milliseconds, updating conflicts with the API server's own status writes. */
const ATTEMPTS = 40;
const ATTEMPT_MS = 500;

const VersionSchema = Type.Object({ name: Type.String(), storage: Type.Boolean() });
const CrdSchema = Type.Object({
  metadata: Type.Object({ resourceVersion: Type.String() }),
  spec: Type.Object({
    versions: Type.Array(VersionSchema),
    conversion: Type.Optional(Type.Unknown()),
  }),
  status: Type.Optional(
    Type.Object({
      conditions: Type.Optional(
        Type.Union([
          Type.Null(),
          Type.Array(Type.Object({ type: Type.String(), status: Type.String() })),
        ]),
      ),
    }),
  ),
});
const parseCrd: (value: unknown) => Static<typeof CrdSchema> = parserOf(
  CrdSchema,
  "the DiskPool CRD of the API server",
  "internal",
);

/** Does `found` say everything that `wanted` says? The API server adds its defaults to what it was given. */
export function covers(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((item, index) => covers(found[index], item))
    );
  }
  if (wanted !== null && typeof wanted === "object") {
    return Object.entries(wanted).every(([key, value]) => {
      const inner =
        found !== null && typeof found === "object"
          ? Object.entries(found).find(([name]) => name === key)?.[1]
          : undefined;
      // Empty lists are not kept by the API server.
      return (
        covers(inner, value) || (inner === undefined && Array.isArray(value) && value.length === 0)
      );
    });
  }
  return found === wanted;
}

/** The CRD that should replace `found`, or null when it may stay. */
export function updatedCrd(found: unknown): unknown {
  const { metadata, spec } = parseCrd(found);
  const wanted = diskPoolCrd();
  const own = spec.versions.find(({ name }) => name === DISKPOOL_VERSION);
  if (own !== undefined && covers(own, { ...wanted.spec.versions[0], storage: own.storage })) {
    return null;
  }
  const others = spec.versions
    .filter(({ name }) => name !== DISKPOOL_VERSION)
    .map((version) => ({ ...version, storage: false }));
  return {
    // What is in the metadata (labels of the installation) stays.
    ...(found as object), // parsed above
    metadata: { ...(found as { metadata: object }).metadata, ...metadata },
    // Versions of others are read through their conversion, which is theirs, too.
    spec: {
      ...wanted.spec,
      ...(others.length > 0 && spec.conversion !== undefined
        ? { conversion: spec.conversion }
        : {}),
      versions: [...wanted.spec.versions, ...others],
    },
  };
}

function isEstablished(found: unknown): boolean {
  const { status } = parseCrd(found);
  return (status?.conditions ?? []).some(
    (condition) => condition.type === "Established" && condition.status === "True",
  );
}

/** @throws {SvcError} what the API server said last */
export async function ensureCrd(
  { client, clock, log }: { client: KubeClient; clock: Clock; log: Log },
  signal: AbortSignal,
): Promise<void> {
  const { name, spec } = diskPoolCrd();
  const path = `${PATH}/${name}`;
  let last: unknown = new SvcError("unavailable", `Cannot use CRD ${name}: it is not established`);
  let updated = false;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      const found = await client.get(path, { signal });
      // Once: an API server that keeps less than it is given must not be told for ever.
      const update = updated ? null : updatedCrd(found);
      if (update !== null) {
        await client.replace(path, update, { signal });
        updated = true;
        log.info("CRD updated", { crd: name });
      } else if (isEstablished(found)) {
        return;
      }
    } catch (error) {
      signal.throwIfAborted();
      last = error;
      if (isKind(error, "not-found")) {
        const body = {
          apiVersion: "apiextensions.k8s.io/v1",
          kind: "CustomResourceDefinition",
          metadata: { name },
          spec,
        };
        try {
          await client.create(PATH, body, { signal });
          log.info("CRD created", { crd: name });
        } catch (inner) {
          if (!isKind(inner, "already-exists", "unavailable")) throw inner;
        }
      } else if (!isKind(error, "conflict", "unavailable")) {
        throw error;
      }
    }
    await clock.sleep(ATTEMPT_MS, signal);
  }
  throw last;
}
