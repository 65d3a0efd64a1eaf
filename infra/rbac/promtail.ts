/** Rights of promtail. */
import type { Account } from "./account.ts";

export const promtailAccount: Account = {
  component: "promtail",
  clusterRules: [],
  namespaceRules: [
    {
      why: "it finds the pods labelled for logging, which are all in this namespace",
      group: "",
      resources: ["pods"],
      verbs: ["list", "watch"],
    },
  ],
};
