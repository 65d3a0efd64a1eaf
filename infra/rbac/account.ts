/**
 * Service accounts and what each may do.
 *
 * Why one account per component: a stolen token opens that component's doors and no more.
 * Invariants: every rule says which call needs it; no wildcards; an account without rules gets no role,
 * and its pods no token.
 */
import type { InstallChart } from "../constructs/kube.ts";
import type { Component } from "../names.ts";

export const VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"] as const;

export type Rule = {
  readonly why: string;
  readonly group: string;
  readonly resources: readonly string[];
  /** Only these objects, where the verb allows to say so (not list, watch, create). */
  readonly names?: readonly string[];
  readonly verbs: readonly (typeof VERBS)[number][];
};

export type Account = {
  readonly component: Component;
  /** In the whole cluster. */
  readonly clusterRules: readonly Rule[];
  /** In the namespace of the installation. */
  readonly namespaceRules: readonly Rule[];
};

const plain = (rules: readonly Rule[]) =>
  rules.map(({ group, resources, names, verbs }) => ({
    apiGroups: [group],
    resources,
    ...(names === undefined ? {} : { resourceNames: names }),
    verbs,
  }));

export function hasRules({ clusterRules, namespaceRules }: Account): boolean {
  return clusterRules.length + namespaceRules.length > 0;
}

/** Adds the account, its roles and their bindings. */
export function addAccount(chart: InstallChart, account: Account): void {
  const name = chart.named(account.component);
  const apiGroup = "rbac.authorization.k8s.io";
  const subjects = [{ kind: "ServiceAccount", name, namespace: chart.install.namespace }];
  // The pod says whether the token is mounted; nobody else gets it by accident.
  chart.add("ServiceAccount", { name }, { automountServiceAccountToken: false });
  if (account.clusterRules.length > 0) {
    chart.add("ClusterRole", { name }, { rules: plain(account.clusterRules) });
    const roleRef = { apiGroup, kind: "ClusterRole", name };
    chart.add("ClusterRoleBinding", { name }, { roleRef, subjects });
  }
  if (account.namespaceRules.length > 0) {
    chart.add("Role", { name }, { rules: plain(account.namespaceRules) });
    const roleRef = { apiGroup, kind: "Role", name };
    chart.add("RoleBinding", { name }, { roleRef, subjects });
  }
}
