import assert from "node:assert/strict";
import { test } from "node:test";
import { attributesOf } from "./recorder.ts";

const short = (method: string, url: string) => {
  const found = attributesOf(method, url);
  if (found === null) return null;
  const { verb, group, resource, namespace, name } = found;
  return [verb, group, resource, namespace, name];
};

test("attributesOf() sees a call as the authorizer does", () => {
  assert.deepEqual(short("GET", "/api/v1/namespaces/kube-system"), [
    "get",
    "",
    "namespaces",
    null,
    "kube-system",
  ]);
  assert.deepEqual(short("GET", "/api/v1/persistentvolumes?watch=true&resourceVersion=7"), [
    "watch",
    "",
    "persistentvolumes",
    null,
    null,
  ]);
  const pools = "/apis/openebs.io/v1alpha1/namespaces/mayastor/diskpools";
  assert.deepEqual(short("GET", `${pools}?limit=500`), [
    "list",
    "openebs.io",
    "diskpools",
    "mayastor",
    null,
  ]);
  assert.deepEqual(short("PATCH", `${pools}/a/status?force=true`), [
    "patch",
    "openebs.io",
    "diskpools/status",
    "mayastor",
    "a",
  ]);
  assert.deepEqual(short("POST", "/api/v1/namespaces/default/events"), [
    "create",
    "",
    "events",
    "default",
    null,
  ]);
  assert.deepEqual(short("DELETE", pools)?.[0], "deletecollection");
  assert.equal(short("GET", "/version"), null);
  assert.equal(short("GET", "/apis/apps/v1"), null);
});
