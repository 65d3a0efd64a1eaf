/** The served interface against the published one, word by word: paths, parameters, bodies, fields. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { RestJsonErrorSchema } from "#common/openapi/model.ts";
import { type DocumentSchema, makeDocument } from "./document.ts";
import { plain } from "./route.ts";
import { routes } from "./routes/mod.ts";
import { PUBLISHED_OPERATIONS, PUBLISHED_SCHEMAS } from "./testing/published.ts";

const document = makeDocument(routes, plain(RestJsonErrorSchema));

/** Where ours differs on purpose, without effect on what is sent; undefined: no operation reaches it. */
const DIFFERENT_SCHEMAS: Readonly<Record<string, (published: string) => string | undefined>> = {
  // each variant has its one key and no other
  CordonDrainState: (text) => text.replace(": one of", ": one of, closed"),
  // the same format, by its name
  VolumeSpec: (text) => text.replace("uuid: string(uuid)", "uuid: VolumeId"),
  VolumeState: (text) => withReason(text.replace("uuid: string(uuid)", "uuid: VolumeId")),
  Volumes: (text) => text.replace("next_token?: integer", "next_token?: integer [min 0]"),
  WatchCallback: () => undefined,
  // an addition of ours, optional everywhere
  Child: withReason,
  Nexus: withReason,
  Node: withReason,
  NodeState: withReason,
  Pool: withReason,
  PoolState: withReason,
  Replica: withReason,
  ReplicaTopology: withReason,
  // what later versions publish, and older clients do not read
  VolumeTarget: (text) => `${text}\n  frontend_nodes?: array<NodeAccessInfo>`,
};
function withReason(published: string): string {
  return `${published}\n  status_reason?: StatusReason`;
}
/** Schemas of later versions and our own, which 2.2 has not. */
const LATER_SCHEMAS = `
NodeAccessInfo:
  name: string
  nqn: string
StatusReason:
  code: string
  message: string
  since?: string
  next_step: string`;
const DIFFERENT_OPERATIONS: Readonly<Record<string, (published: string) => string>> = {
  // required with a default, which is to say: optional
  "GET /volumes": (text) => text.replace("max_entries (query)", "max_entries (query, optional)"),
};

/** The parts of a document's schema that the published text has. */
type Schema = {
  readonly $ref?: string;
  readonly type?: string;
  readonly format?: string;
  readonly enum?: readonly string[];
  readonly items?: Schema;
  readonly oneOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: Schema | false;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
};
type Content = { readonly content: { readonly "application/json": { readonly schema: Schema } } };
type Operation = {
  readonly operationId: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required: boolean;
    readonly schema: Schema;
  }[];
  readonly requestBody?: Content;
  readonly responses: Readonly<Record<string, Content>>;
};
const INT32_MAX = 2 ** 31 - 1;

function fieldsOf({ properties = {}, required = [] }: Schema): string[] {
  return Object.entries(properties).map(
    ([name, schema]) => `${name}${required.includes(name) ? "" : "?"}: ${typeText(schema)}`,
  );
}

/** A type as the published text writes it. */
function typeText(schema: Schema): string {
  if (schema.$ref) return schema.$ref.replace("#/components/schemas/", "");
  if (schema.enum) return `string enum(${schema.enum.join(" / ")})`;
  if (schema.items) return `array<${typeText(schema.items)}>`;
  if (schema.additionalProperties) return `map<string,${typeText(schema.additionalProperties)}>`;
  if (schema.properties) return `object{${fieldsOf(schema).join(", ")}}`;
  const { minimum, maximum } = schema;
  const natural = schema.format === "int32" && maximum === INT32_MAX; // the format's own limit
  const limits = [
    ...(minimum === undefined ? [] : [`min ${minimum}`]),
    ...(maximum === undefined || natural ? [] : [`max ${maximum}`]),
  ];
  const suffix = [
    limits.length > 0 ? ` [${limits.join(", ")}]` : "",
    schema.default === undefined ? "" : ` [default ${schema.default}]`,
  ];
  return `${schema.type}${schema.format ? `(${schema.format})` : ""}${suffix.join("")}`;
}

/** A named schema: its head and its fields, in an order of their own. */
function schemaText(name: string, schema: Schema): string {
  const variants = schema.oneOf ?? [schema];
  const fields = variants.flatMap(fieldsOf);
  if (fields.length === 0) return `${name}: ${typeText(schema)}`;
  const closed = variants.every((variant) => variant.additionalProperties === false);
  const kinds = [
    ...(schema.oneOf || (closed && fields.length === 1) ? ["one of"] : []),
    ...(closed ? ["closed"] : []),
  ];
  const head = `${name}: ${kinds.join(", ")}`.trim();
  return [head, ...fields.toSorted()].join("\n  ");
}

function operationText(method: string, path: string, operation: Operation): string {
  const parameters = (operation.parameters ?? []).map(
    ({ name, in: place, required, schema }) =>
      `${name} (${place}${required ? "" : ", optional"}): ${typeText(schema)}`,
  );
  const json = (part: Content | undefined) =>
    part ? typeText(part.content["application/json"].schema) : "-";
  return [
    `${method.toUpperCase()} ${path}`,
    `${operation.operationId} ${operation.tags.join(",")}`,
    parameters.toSorted().join("; ") || "-",
    json(operation.requestBody),
    operation.responses["204"] ? "204" : json(operation.responses["200"]),
  ].join(" | ");
}

const lines = (text: string): string[] => text.trim().split("\n");
/** A document's parts are plain JSON. */
const as = <T>(value: DocumentSchema): T => value as unknown as T;

test("every operation is served as published: method, path, parameters, body and answer", () => {
  const served = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) =>
      operationText(method, path, as<Operation>(operation)),
    ),
  );
  const published = lines(PUBLISHED_OPERATIONS).map((line) => {
    const [place = "", ...cells] = line.split(" | ");
    const ours = DIFFERENT_OPERATIONS[place]?.(cells.join(" | ")).split(" | ") ?? cells;
    const [operation, parameters = "", ...rest] = ours;
    return [place, operation, parameters.split("; ").toSorted().join("; "), ...rest].join(" | ");
  });
  assert.deepEqual(served.toSorted(), published.toSorted());
  assert.deepEqual(document["servers"], [{ url: "/v0" }]);
});

test("every schema has the published fields, types and limits", () => {
  const served = Object.entries(document.components.schemas).map(([name, schema]) =>
    schemaText(name, as<Schema>(schema)),
  );
  const published = (PUBLISHED_SCHEMAS.trim() + LATER_SCHEMAS)
    .split(/\n(?=\w)/)
    .flatMap((block) => {
      const change = DIFFERENT_SCHEMAS[block.slice(0, block.indexOf(":"))];
      const ours = change ? change(block) : block;
      if (ours === undefined) return [];
      assert.ok(!change || ours !== block, `${block} does not differ`);
      const [head = "", ...fields] = ours.split("\n").map((line) => line.trim());
      return [[head, ...fields.toSorted()].join("\n  ")];
    });
  assert.deepEqual(served.toSorted(), published.toSorted());
});
