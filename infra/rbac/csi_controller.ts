/**
 * Rights of csi-controller: one pod, so one account for our program and its two sidecars.
 * Source: what csi-provisioner and csi-attacher document for the features that are switched on.
 */
import type { Account } from "./account.ts";

const READ = ["get", "list", "watch"] as const;

export const csiControllerAccount: Account = {
  component: "csi-controller",
  clusterRules: [
    {
      why: "provisioner makes and deletes them, attacher sets a finalizer, csi-controller collects garbage",
      group: "",
      resources: ["persistentvolumes"],
      verbs: [...READ, "create", "delete", "patch"],
    },
    {
      why: "provisioner follows claims and notes on them which node was selected",
      group: "",
      resources: ["persistentvolumeclaims"],
      verbs: [...READ, "update"],
    },
    {
      why: "provisioner reads the parameters of a claim's class",
      group: "storage.k8s.io",
      resources: ["storageclasses"],
      verbs: READ,
    },
    {
      why: "provisioner reads topology labels of nodes",
      group: "",
      resources: ["nodes"],
      verbs: READ,
    },
    {
      why: "provisioner and attacher read which nodes run the driver, and under which id",
      group: "storage.k8s.io",
      resources: ["csinodes"],
      verbs: READ,
    },
    {
      why: "attacher acts on them; provisioner deletes no volume that is attached",
      group: "storage.k8s.io",
      resources: ["volumeattachments"],
      verbs: [...READ, "patch"],
    },
    {
      why: "attacher reports whether a volume is attached",
      group: "storage.k8s.io",
      resources: ["volumeattachments/status"],
      verbs: ["patch"],
    },
    {
      why: "provisioner posts events on claims, which are in users' namespaces",
      group: "",
      resources: ["events"],
      verbs: ["create", "patch"],
    },
  ],
  namespaceRules: [],
};
