/** Rights of agent-core. */
import type { Account } from "./account.ts";

export const agentCoreAccount: Account = {
  component: "agent-core",
  clusterRules: [
    {
      why: "its keys in etcd are below the cluster's id, which is the uid of that namespace",
      group: "",
      resources: ["namespaces"],
      names: ["kube-system"],
      verbs: ["get"],
    },
  ],
  namespaceRules: [],
};
