/**
 * PersistentVolumes of the cluster this pod runs in.
 *
 * Invariants: list() is complete or fails; watch() follows until the signal, through lost connections and lost history,
 * after which everything is listed again: what vanished meanwhile is then reported as gone, in the form last seen. One
 * that cannot be read is neither present nor gone: nothing is reported of it until it can be read again.
 */
import { type Static, Type } from "typebox";
import type { Clock } from "#common/clock.ts";
import { DRIVER_NAME, volumeName } from "#common/csi/driver.ts";
import { errorMessage, isKind } from "#common/errors.ts";
import { KubeClient } from "#common/kubernetes/client.ts";
import { type Environment, findConnection } from "#common/kubernetes/connection.ts";
import { Informer } from "#common/kubernetes/informer.ts";
import type { Log } from "#common/log.ts";
import type { Random } from "#common/random.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import type { Pv, PvSource } from "./gc.ts";

const PATH = "/api/v1/persistentvolumes";
const PAGE_OBJECTS = 500;

const PvSchema = Type.Object({
  metadata: Type.Object({
    name: Type.String({ minLength: 1 }),
    deletionTimestamp: Type.Optional(Type.String()),
  }),
  spec: Type.Object({
    csi: Type.Optional(Type.Object({ driver: Type.String(), volumeHandle: Type.String() })),
    persistentVolumeReclaimPolicy: Type.Optional(Type.String()),
  }),
  status: Type.Optional(Type.Object({ phase: Type.Optional(Type.String()) })),
});
const PageSchema = Type.Object({
  metadata: Type.Object({ continue: Type.Optional(Type.String()) }),
  items: Type.Union([Type.Array(Type.Unknown()), Type.Null()]),
});
const parse: (value: unknown) => Static<typeof PvSchema> = parserOf(
  PvSchema,
  "a PersistentVolume of the API server",
  "internal",
);
const parsePage: (value: unknown) => Static<typeof PageSchema> = parserOf(
  PageSchema,
  "a list of the API server",
  "internal",
);

export const isInKubernetes = (env: Environment): boolean =>
  env["KUBERNETES_SERVICE_HOST"] !== undefined && env["KUBERNETES_SERVICE_HOST"] !== "";

/** @throws {SvcError} `internal` when it is no PersistentVolume */
export function toPv(object: unknown): Pv {
  const { metadata, spec, status } = parse(object);
  return {
    name: metadata.name,
    driver: spec.csi?.driver ?? "",
    volumeHandle: spec.csi?.volumeHandle ?? "",
    reclaimPolicy: spec.persistentVolumeReclaimPolicy ?? "",
    phase: status?.phase ?? "",
    isDeleting: metadata.deletionTimestamp !== undefined,
  };
}

/** One that cannot be read fails the list: an incomplete view deletes nothing. */
async function listAll(client: KubeClient, signal: AbortSignal): Promise<readonly Pv[]> {
  const found: Pv[] = [];
  let from: string | undefined;
  do {
    const query = { limit: PAGE_OBJECTS, continue: from };
    const { items, metadata } = parsePage(await client.get(PATH, { signal, query }));
    found.push(...(items ?? []).map(toPv));
    from = metadata.continue === "" ? undefined : metadata.continue;
  } while (from !== undefined);
  return found;
}

/** The one of this name, or null. @throws when it cannot be read */
async function findOne(client: KubeClient, name: string, signal: AbortSignal): Promise<Pv | null> {
  try {
    return toPv(await client.get(`${PATH}/${name}`, { signal }));
  } catch (error) {
    if (isKind(error, "not-found")) return null;
    throw error;
  }
}

type Parts = { readonly clock: Clock; readonly random: Random; readonly log: Log };

export function pvSource(client: KubeClient, { clock, random, log }: Parts): PvSource {
  /** What the watch knows to be there. */
  const known = new Map<string, Pv>();
  return {
    list: (signal) => listAll(client, signal),
    find: async (uuid, signal) => {
      const named = await findOne(client, volumeName(uuid), signal);
      const others = [...known.values()].filter(
        ({ name, driver, volumeHandle }) =>
          driver === DRIVER_NAME &&
          volumeHandle.toLowerCase() === uuid &&
          name !== volumeName(uuid),
      );
      return named === null ? others : [named, ...others];
    },
    watch: async (onChange, signal) => {
      const informer = new Informer<Pv | null>({
        ...{ client, path: PATH, clock, random, log },
        parse: (object) => {
          try {
            return toPv(object);
          } catch (error) {
            log.warn("PersistentVolume cannot be read", { error: errorMessage(error) });
            return null; // the informer would leave it out, which looks like gone
          }
        },
        onChange: (name) => {
          const pv = informer.get(name);
          const last = pv ?? known.get(name);
          if (pv) known.set(name, pv);
          else known.delete(name); // also an unreadable one: its last form does not count any more
          if (pv !== null && last !== undefined) onChange(last, pv === undefined);
        },
      });
      await informer.run(signal);
    },
  };
}

/** Uses the pod's service account. */
export async function kubePvs(env: Environment, parts: Parts): Promise<PvSource> {
  const { clock } = parts;
  return pvSource(new KubeClient(await findConnection(env, clock), { clock }), parts);
}
