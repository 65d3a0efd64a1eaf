/** Accounts, rules and bindings. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { accountsOf } from "./charts/rbac.ts";
import { VERBS } from "./rbac/account.ts";
import { everything, installs, title, workloads } from "./testing/installs.ts";

test("every rule has a reason, names its group and resources, and uses no wildcard", () => {
  for (const account of accountsOf(everything.install.values)) {
    for (const rule of [...account.clusterRules, ...account.namespaceRules]) {
      assert.ok(rule.why.length > 20, account.component);
      assert.ok(rule.resources.length > 0 && rule.verbs.length > 0);
      for (const word of [rule.group, ...rule.resources, ...rule.verbs])
        assert.ok(!word.includes("*"));
      for (const verb of rule.verbs) assert.ok(VERBS.includes(verb));
      assert.ok(!rule.resources.includes("secrets"), "nothing reads secrets");
      if (rule.names) {
        for (const verb of ["list", "watch", "create"] as const) {
          assert.ok(!rule.verbs.includes(verb), `${verb} cannot be limited to names`);
        }
      }
    }
  }
});

test("each component has its own account, and a token only where that account may do something", () => {
  for (const { name, objects } of installs) {
    const bound = new Set(
      objects
        .filter(({ kind }) => kind === "RoleBinding" || kind === "ClusterRoleBinding")
        .flatMap((binding) => binding["subjects"] as { name: string; namespace: string }[])
        .map((subject) => subject.name),
    );
    const used = workloads(objects).map(({ object, pod }) => {
      assert.equal(pod.serviceAccountName, object.metadata.name, name);
      assert.equal(
        pod.automountServiceAccountToken,
        bound.has(object.metadata.name),
        title(object),
      );
      return pod.serviceAccountName;
    });
    const accounts = objects.filter(({ kind }) => kind === "ServiceAccount");
    assert.deepEqual(accounts.map(({ metadata }) => metadata.name).sort(), [...used].sort(), name);
  }
});

test("bindings join an account of this namespace to a role that exists", () => {
  for (const { install, objects } of installs) {
    for (const binding of objects.filter(({ kind }) => kind.endsWith("RoleBinding"))) {
      const role = binding["roleRef"] as { kind: string; name: string };
      assert.ok(objects.some((one) => one.kind === role.kind && one.metadata.name === role.name));
      for (const subject of binding["subjects"] as { namespace: string }[]) {
        assert.equal(subject.namespace, install.namespace);
      }
    }
  }
});
