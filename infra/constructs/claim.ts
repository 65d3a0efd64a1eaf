/**
 * The claim template of a StatefulSet, with everything that the API server would fill in.
 * Why: kubectl compares a list of templates as a whole, and a field that the server added makes each later `apply` say
 * "configured" and send a change that changes nothing.
 */
import { canonicalQuantity } from "../quantity.ts";

/** `storageClass` empty: the cluster's default. */
export function claimTemplate(name: string, size: string, storageClass: string) {
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: canonicalQuantity(size) } },
      ...(storageClass === "" ? {} : { storageClassName: storageClass }),
      volumeMode: "Filesystem",
    },
    status: { phase: "Pending" },
  };
}
