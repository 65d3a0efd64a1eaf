/** Rights of operator-diskpool. */
import {
  DISKPOOL_GROUP,
  DISKPOOL_OPERATOR_LEASE,
  DISKPOOL_PLURAL,
} from "#common/types/diskpool.ts";
import type { Account } from "./account.ts";

const CRD = `${DISKPOOL_PLURAL}.${DISKPOOL_GROUP}`;

export const operatorDiskpoolAccount: Account = {
  component: "operator-diskpool",
  clusterRules: [
    {
      why: "it makes the DiskPool CRD where it is missing; creation cannot be limited to a name",
      group: "apiextensions.k8s.io",
      resources: ["customresourcedefinitions"],
      verbs: ["create"],
    },
    {
      why: "it brings an older DiskPool CRD up to date at start and waits until it is established",
      group: "apiextensions.k8s.io",
      resources: ["customresourcedefinitions"],
      names: [CRD],
      verbs: ["get", "update"],
    },
  ],
  namespaceRules: [
    {
      // Not create: an apply of one that is gone is then refused, whatever the API server makes of its uid.
      why: "it follows DiskPools, applies and clears their finalizer",
      group: DISKPOOL_GROUP,
      resources: [DISKPOOL_PLURAL],
      verbs: ["list", "watch", "patch"],
    },
    {
      why: "it reports what became of a pool",
      group: DISKPOOL_GROUP,
      resources: [`${DISKPOOL_PLURAL}/status`],
      verbs: ["patch"],
    },
    {
      why: "it posts events on DiskPools",
      group: "",
      resources: ["events"],
      verbs: ["create"],
    },
    {
      why: "leader election makes its lease; creation cannot be limited to a name",
      group: "coordination.k8s.io",
      resources: ["leases"],
      verbs: ["create"],
    },
    {
      why: "leader election reads, renews and hands over its lease",
      group: "coordination.k8s.io",
      resources: ["leases"],
      names: [DISKPOOL_OPERATOR_LEASE],
      verbs: ["get", "update"],
    },
  ],
};
