/**
 * PersistentVolumes of the cluster this pod runs in.
 *
 * Why loaded late: the Kubernetes client takes most of a second to import, and is not wanted outside a cluster.
 * Invariants: watch() starts again with a fresh list after any loss, with a pause; what was deleted meanwhile is then
 * reported as gone, because the informer compares the lists.
 */
import type { V1PersistentVolume } from "@kubernetes/client-node";
import type { Clock } from "#common/clock.ts";
import type { Log } from "#common/log.ts";
import type { Pv, PvSource } from "./gc.ts";

const WATCH_PAUSE_MS = 5_000;

export const isInKubernetes = (env: Readonly<Record<string, string | undefined>>): boolean =>
  env["KUBERNETES_SERVICE_HOST"] !== undefined && env["KUBERNETES_SERVICE_HOST"] !== "";

export function toPv({ metadata, spec, status }: V1PersistentVolume): Pv {
  return {
    name: metadata?.name ?? "",
    driver: spec?.csi?.driver ?? "",
    volumeHandle: spec?.csi?.volumeHandle ?? "",
    reclaimPolicy: spec?.persistentVolumeReclaimPolicy ?? "",
    phase: status?.phase ?? "",
    isDeleting: metadata?.deletionTimestamp !== undefined,
  };
}

/** Uses the pod's service account. @throws when the pod has none */
export async function kubePvs({
  clock,
  log,
}: {
  readonly clock: Clock;
  readonly log: Log;
}): Promise<PvSource> {
  const { CoreV1Api, KubeConfig, makeInformer } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  config.loadFromCluster();
  const api = config.makeApiClient(CoreV1Api);
  return {
    list: async () => (await api.listPersistentVolume()).items.map(toPv),
    watch: async (onChange, signal) => {
      const informer = makeInformer<V1PersistentVolume>(config, "/api/v1/persistentvolumes", () =>
        api.listPersistentVolume(),
      );
      informer.on("add", (pv) => onChange(toPv(pv), false));
      informer.on("update", (pv) => onChange(toPv(pv), false));
      informer.on("delete", (pv) => onChange(toPv(pv), true));
      while (!signal.aborted) {
        try {
          const lost = new Promise<unknown>((resolve) => {
            informer.on("error", resolve);
            signal.addEventListener("abort", resolve, { once: true });
          });
          await informer.start();
          const error = await lost;
          if (!signal.aborted) log.warn("watch of PersistentVolumes is lost", { error });
        } catch (error) {
          log.warn("PersistentVolumes cannot be watched", { error });
        }
        // Ends at once when stopping, which the loop's condition then sees.
        if (!signal.aborted) await clock.sleep(WATCH_PAUSE_MS, signal).catch(() => {});
      }
      await informer.stop();
    },
  };
}
