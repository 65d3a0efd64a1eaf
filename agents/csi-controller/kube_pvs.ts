/**
 * PersistentVolumes of the cluster this pod runs in.
 *
 * Invariants: list() is complete or fails; watch() follows until the signal, through lost connections and lost history,
 * after which everything is listed again: what vanished meanwhile is then reported as gone, in the form last seen.
 */
import { type Static, Type } from "typebox";
import type { Clock } from "#common/clock.ts";
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

/** Uses the pod's service account. */
export async function kubePvs(
  env: Environment,
  { clock, random, log }: { readonly clock: Clock; readonly random: Random; readonly log: Log },
): Promise<PvSource> {
  const client = new KubeClient(await findConnection(env, clock), { clock });
  return {
    list: (signal) => listAll(client, signal),
    watch: async (onChange, signal) => {
      const known = new Map<string, Pv>();
      const informer = new Informer<Pv>({
        ...{ client, path: PATH, parse: toPv, clock, random, log },
        onChange: (name) => {
          const pv = informer.get(name);
          const last = pv ?? known.get(name);
          if (pv === undefined) known.delete(name);
          else known.set(name, pv);
          if (last !== undefined) onChange(last, pv === undefined);
        },
      });
      await informer.run(signal);
    },
  };
}
