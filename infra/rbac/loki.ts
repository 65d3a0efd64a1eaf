/** Rights of loki: none, it only answers. */
import type { Account } from "./account.ts";

export const lokiAccount: Account = {
  component: "loki",
  clusterRules: [],
  namespaceRules: [],
};
