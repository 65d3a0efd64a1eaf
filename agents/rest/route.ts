/**
 * A REST operation: one record from which the served route, its parsing and its entry in the document come.
 *
 * Why: a route that is served but undocumented, or the other way round, cannot be written down.
 * Invariants: a handler sees only parsed values (ids lower-case, numbers as numbers, nulls for absent optionals
 * dropped); what does not parse is `deserialize` with the field's name; handlers hold no state.
 */
import { type Static, type TProperties, type TSchema, Type } from "typebox";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { CoreClient } from "#common/rpc/core_api.ts";
import { type Parser, parserOf } from "#common/rpc/json_api.ts";

/** What a handler works with besides the request itself. */
export type RouteContext = {
  readonly core: CoreClient;
  /** aborted when the client has gone or the server stops */
  readonly signal: AbortSignal;
};

/** What the HTTP server hands over: everything still text. */
export type RawRequest = {
  readonly params: Readonly<Record<string, string>>;
  /** after the first "?", as it came; null when there was none */
  readonly query: string | null;
  readonly body: string;
};

type Input<P extends TProperties, Q extends TProperties, B extends TSchema> = {
  readonly params: StaticProperties<P>;
  readonly query: StaticProperties<Q>;
  readonly body: Static<B>;
  readonly rawQuery: string | null;
};
type StaticProperties<P extends TProperties> = Static<ReturnType<typeof Type.Object<P>>>;

export type HttpMethod = "GET" | "PUT" | "DELETE";

export type Route = {
  readonly method: HttpMethod;
  /** below /v0, with `{name}` for parameters */
  readonly path: string;
  readonly operationId: string;
  readonly tag: string;
  readonly params: TProperties;
  readonly query: TProperties;
  readonly queryRequired: readonly string[];
  readonly body: TSchema | null;
  /** null: 204, no content */
  readonly response: TSchema | null;
  /** false: served but not part of the published document */
  readonly published: boolean;
  /** Parses and handles a request; resolves to the response's value. */
  run(raw: RawRequest, context: RouteContext): Promise<unknown>;
};

type RouteOptions<
  P extends TProperties,
  Q extends TProperties,
  B extends TSchema,
  R extends TSchema,
> = {
  readonly method: HttpMethod;
  readonly path: string;
  readonly operationId: string;
  readonly tag: string;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  readonly response?: R;
  readonly published?: boolean;
  readonly handle: (input: Input<P, Q, B>, context: RouteContext) => Promise<Static<R>>;
};

/** The parts of a JSON schema that parsing text and writing the document need. */
export type PlainSchema = {
  readonly type?: string;
  readonly format?: string;
  readonly title?: string;
  readonly items?: PlainSchema;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, PlainSchema>>;
  readonly patternProperties?: Readonly<Record<string, PlainSchema>>;
  readonly anyOf?: readonly PlainSchema[];
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly additionalProperties?: boolean;
  readonly minimum?: number;
  readonly maximum?: number;
};

/** A TypeBox schema is the JSON schema object itself; this only names the keywords that ours use. */
export function plain(schema: TSchema): PlainSchema {
  return schema;
}

function fromText(schema: PlainSchema, texts: readonly string[]): unknown {
  const [text = ""] = texts;
  switch (schema.type ?? "string") {
    case "integer":
      return /^[+-]?\d{1,19}$/.test(text) ? Number(text) : text;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : text;
    case "array":
      return texts.filter((item) => item !== "");
    default:
      return schema.format === "uuid" ? text.toLowerCase() : text;
  }
}

function textObject(
  properties: TProperties,
  valuesOf: (name: string) => readonly string[],
): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(properties)) {
    const texts = valuesOf(name);
    if (texts.length > 0) values[name] = fromText(plain(schema), texts);
  }
  return values;
}

/** `name`, and the indexed spellings that some clients use for lists. */
function queryValues(query: URLSearchParams): (name: string) => readonly string[] {
  return (name) => {
    const found: string[] = [];
    for (const [key, value] of query) {
      if (key.replace(/\[\d*\]$/, "") === name) found.push(value);
    }
    return found;
  };
}

/** Drops null where the schema has an optional: absent and null are the same to clients. */
export function dropNulls(schema: PlainSchema, value: unknown): unknown {
  if (Array.isArray(value)) {
    const { items } = schema;
    return items ? value.map((item) => dropNulls(items, item)) : value;
  }
  if (typeof value !== "object" || value === null) return value;
  const required = schema.required ?? [];
  const known = schema.properties;
  if (!known) {
    // a one-of: each variant is an object of one key
    const variant = schema.anyOf?.find(({ properties = {} }) =>
      Object.keys(properties).some((key) => key in value && Reflect.get(value, key) !== null),
    );
    return variant ? dropNulls(variant, withoutNulls(value)) : value;
  }
  const kept: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const property = known[key];
    if (item === null && property && !required.includes(key)) continue;
    kept[key] = property ? dropNulls(property, item) : item;
  }
  return kept;
}

function withoutNulls(value: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null));
}

function parseBody<B extends TSchema>(schema: B, parse: Parser<Static<B>>, text: string) {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SvcError("deserialize", `Cannot read the body: ${errorMessage(error)}`);
  }
  return parse(dropNulls(plain(schema), value));
}

/** Makes a route; the schemas given type what its handler gets and must return. */
export function route<
  P extends TProperties = Record<never, never>,
  Q extends TProperties = Record<never, never>,
  B extends TSchema = ReturnType<typeof Type.Undefined>,
  R extends TSchema = ReturnType<typeof Type.Void>,
>(options: RouteOptions<P, Q, B, R>): Route {
  const { method, path, operationId, tag, body, response, handle, published = true } = options;
  // An absent table stands for an empty one: exactly the type parameter's default.
  const params = options.params ?? ({} as P);
  const query = options.query ?? ({} as Q);
  const parseParams = parserOf(Type.Object(params), "the path", "deserialize");
  const querySchema = Type.Object(query);
  const parseQuery = parserOf(querySchema, "the query", "deserialize");
  const parseJson = body ? parserOf(body, "the body", "deserialize") : null;
  return {
    method,
    path,
    operationId,
    tag,
    params,
    query,
    queryRequired: plain(querySchema).required ?? [],
    body: body ?? null,
    response: response ?? null,
    published,
    async run(raw, context) {
      const search = queryValues(new URLSearchParams(raw.query ?? ""));
      const input = {
        params: parseParams(
          textObject(params, (name) => {
            const text = raw.params[name];
            return text === undefined ? [] : [text];
          }),
        ),
        query: parseQuery(textObject(query, search)),
        // Without a schema the body is undefined, the static type of the default B.
        body: (body && parseJson ? parseBody(body, parseJson, raw.body) : undefined) as Static<B>,
        rawQuery: raw.query,
      };
      return handle(input, context);
    },
  };
}
