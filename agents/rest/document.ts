/**
 * The OpenAPI 3.0.3 document of REST v0, made from the very routes that are served.
 *
 * Invariants: a schema with a title becomes a named component and is referred to everywhere; the document says
 * nothing that is not served (an unpublished route is served but not in it).
 */
import { type PlainSchema, plain, type Route } from "./route.ts";

export const BASE_PATH = "/v0";
/** Of the API as published at 2.2, not of this project. */
const API_VERSION = "v0";

export type DocumentSchema = { readonly [keyword: string]: unknown };
type Components = Map<string, DocumentSchema>;

const number = new Set(["integer", "number"]);

/** One JSON schema in the document's dialect; named ones go to `components` and leave a reference. */
function encode(schema: PlainSchema, components: Components): DocumentSchema {
  const { title } = schema;
  if (title === undefined) return encodeInline(schema, components);
  if (!components.has(title)) {
    components.set(title, {}); // before its parts, so that a name is never encoded twice
    components.set(title, encodeInline(schema, components));
  }
  return { $ref: `#/components/schemas/${title}` };
}

function encodeInline(schema: PlainSchema, components: Components): DocumentSchema {
  const { anyOf, patternProperties, properties, items, enum: values, format } = schema;
  const extra = {
    ...(schema.additionalProperties === false ? { additionalProperties: false } : {}),
    ...(schema.default === undefined ? {} : { default: schema.default }),
  };
  if (anyOf) return { ...extra, oneOf: anyOf.map((part) => encode(part, components)) };
  if (values) return { ...extra, type: "string", enum: [...values] };
  if (patternProperties) {
    const [value = {}] = Object.values(patternProperties);
    return { ...extra, type: "object", additionalProperties: encode(value, components) };
  }
  if (properties) {
    const required = schema.required ?? [];
    return {
      ...extra,
      type: "object",
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, part]) => [name, encode(part, components)]),
      ),
      ...(required.length > 0 ? { required: [...required] } : {}),
    };
  }
  if (items) return { ...extra, type: "array", items: encode(items, components) };
  const limits = number.has(schema.type ?? "") ? limitsOf(schema) : {};
  const shown = format === "url-segment" ? "url" : format; // the decoded segment is checked by its handler
  return {
    ...extra,
    type: schema.type ?? "object",
    ...(shown === undefined ? {} : { format: shown }),
    ...limits,
  };
}

function limitsOf({ minimum, maximum }: PlainSchema): DocumentSchema {
  return {
    ...(minimum === undefined ? {} : { minimum }),
    // What JavaScript can hold is our own limit, far above any disk: not part of the interface.
    ...(maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? {} : { maximum }),
  };
}

function parametersOf(route: Route, components: Components): DocumentSchema[] {
  const inPath = Object.entries(route.params).map(([name, schema]) => ({
    name,
    in: "path",
    required: true,
    schema: encode(plain(schema), components),
  }));
  const required = new Set(route.queryRequired);
  const inQuery = Object.entries(route.query).map(([name, schema]) => ({
    name,
    in: "query",
    required: required.has(name),
    schema: encode(plain(schema), components),
  }));
  return [...inPath, ...inQuery];
}

function operationOf(route: Route, components: Components): DocumentSchema {
  const parameters = parametersOf(route, components);
  const success = route.response
    ? {
        "200": {
          description: "OK",
          content: { "application/json": { schema: encode(plain(route.response), components) } },
        },
      }
    : { "204": { description: "OK" } };
  return {
    tags: [route.tag],
    operationId: route.operationId,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.body
      ? {
          requestBody: {
            required: true,
            content: { "application/json": { schema: encode(plain(route.body), components) } },
          },
        }
      : {}),
    responses: {
      ...success,
      "4XX": { $ref: "#/components/responses/ClientError" },
      "5XX": { $ref: "#/components/responses/ServerError" },
    },
    security: [{ JWT: [] }],
  };
}

export type OpenApiDocument = {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, DocumentSchema>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, DocumentSchema>>;
    readonly [section: string]: DocumentSchema;
  };
} & DocumentSchema;

/** Builds the document; `errorSchema` is the body of every 4XX and 5XX answer. */
export function makeDocument(routes: readonly Route[], errorSchema: PlainSchema): OpenApiDocument {
  const components: Components = new Map();
  const error = encode(errorSchema, components);
  const paths: Record<string, Record<string, DocumentSchema>> = {};
  for (const route of routes) {
    if (!route.published) continue;
    const operations = paths[route.path] ?? {};
    operations[route.method.toLowerCase()] = operationOf(route, components);
    paths[route.path] = operations;
  }
  const answer = (description: string) => ({
    description,
    content: { "application/json": { schema: error } },
  });
  return {
    openapi: "3.0.3",
    info: { title: "Mayastor RESTful API", version: API_VERSION },
    servers: [{ url: BASE_PATH }],
    tags: [...new Set(routes.filter((r) => r.published).map((r) => r.tag))].map((name) => ({
      name,
    })),
    paths,
    components: {
      schemas: Object.fromEntries([...components].sort(([a], [b]) => (a < b ? -1 : 1))),
      responses: {
        ClientError: answer("Client Error"),
        ServerError: answer("Server Error"),
      },
      securitySchemes: { JWT: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
    },
  };
}
