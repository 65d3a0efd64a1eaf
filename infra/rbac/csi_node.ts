/** Rights of csi-node: none, it only talks to the kubelet and the kernel; the registrar reaches the kubelet by socket. */
import type { Account } from "./account.ts";

export const csiNodeAccount: Account = {
  component: "csi-node",
  clusterRules: [],
  namespaceRules: [],
};
