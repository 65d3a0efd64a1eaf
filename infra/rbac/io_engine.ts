/** Rights of io-engine: none, it only talks to agent-core, etcd and its disks; the metrics exporter in its pod only to it. */
import type { Account } from "./account.ts";

export const ioEngineAccount: Account = {
  component: "io-engine",
  clusterRules: [],
  namespaceRules: [],
};
