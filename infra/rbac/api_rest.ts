/** Rights of api-rest: none, it only talks to agent-core. */
import type { Account } from "./account.ts";

export const apiRestAccount: Account = {
  component: "api-rest",
  clusterRules: [],
  namespaceRules: [],
};
