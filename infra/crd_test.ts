/** The DiskPool custom resource. */
import assert from "node:assert/strict";
import { test } from "node:test";
import Value from "typebox/value";
import { DiskPoolSpecSchema, DiskPoolStatusSchema } from "#common/types/diskpool.ts";
import { isTree } from "./merge.ts";
import { everything, spec } from "./testing/installs.ts";

test("the DiskPool CRD has the published names, columns and required fields", () => {
  const crd = everything.objects.find(({ kind }) => kind === "CustomResourceDefinition");
  assert.ok(crd);
  assert.equal(crd.metadata.name, "diskpools.openebs.io");
  const { names, scope, versions } = spec(crd) as {
    names: { shortNames: string[]; plural: string; kind: string };
    scope: string;
    versions: {
      name: string;
      additionalPrinterColumns: { name: string; jsonPath: string }[];
      subresources: unknown;
      schema: { openAPIV3Schema: { properties: Record<string, { required: string[] }> } };
    }[];
  };
  assert.deepEqual(
    [names.kind, names.plural, names.shortNames, scope],
    ["DiskPool", "diskpools", ["dsp"], "Namespaced"],
  );
  const [version] = versions;
  assert.deepEqual(
    version?.additionalPrinterColumns.map(({ name, jsonPath }) => `${name} ${jsonPath}`),
    [
      "node .spec.node",
      "state .status.state",
      "pool_status .status.pool_status",
      "capacity .status.capacity",
      "used .status.used",
      "available .status.available",
    ],
  );
  assert.deepEqual(version?.subresources, { status: {} });
  const { properties = {} } = version?.schema.openAPIV3Schema ?? {};
  assert.deepEqual(properties["spec"]?.required, ["node", "disks"]);
  assert.deepEqual(properties["status"]?.required, ["state", "capacity", "used", "available"]);
});

test("the DiskPool CRD's schema is structural: every part has a type", () => {
  const crd = everything.objects.find(({ kind }) => kind === "CustomResourceDefinition");
  assert.ok(crd);
  const visit = (schema: unknown, at: string): void => {
    assert.ok(isTree(schema), at);
    assert.equal(typeof schema["type"], "string", at);
    for (const key of ["anyOf", "oneOf", "const", "$ref", "patternProperties"]) {
      assert.ok(!(key in schema), `${at}: ${key}`);
    }
    if (isTree(schema["properties"])) {
      for (const [name, inner] of Object.entries(schema["properties"]))
        visit(inner, `${at}.${name}`);
      assert.ok(
        !("additionalProperties" in schema),
        "properties and additionalProperties exclude each other",
      );
    }
    for (const key of ["items", "additionalProperties"]) {
      if (key in schema) visit(schema[key], `${at}.${key}`);
    }
  };
  const [version] = spec(crd)["versions"] as { schema: { openAPIV3Schema: unknown } }[];
  visit(version?.schema.openAPIV3Schema, "schema");
});

test("DiskPools of the values are what the operator accepts", () => {
  const pools = everything.objects.filter(({ kind }) => kind === "DiskPool");
  assert.equal(pools.length, 1);
  for (const pool of pools) {
    assert.ok(Value.Check(DiskPoolSpecSchema, spec(pool)));
    assert.equal(pool.apiVersion, "openebs.io/v1alpha1");
  }
  const reset = {
    state: "Created",
    cr_state: "Creating",
    pool_status: null,
    capacity: 0,
    used: 0,
    available: 0,
  };
  assert.ok(Value.Check(DiskPoolStatusSchema, reset));
});
