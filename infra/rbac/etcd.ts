/** Rights of etcd: none, it only talks to its members. */
import type { Account } from "./account.ts";

export const etcdAccount: Account = {
  component: "etcd",
  clusterRules: [],
  namespaceRules: [],
};
