/**
 * The shape of an internal API: methods with a schema for what goes in and one for what comes out.
 *
 * Why: our own agents talk JSON over gRPC, so that the REST model needs no second description; json_server.ts and
 * json_client.ts turn such a table into a service and its calls.
 * Invariants: unary calls only; a message is the UTF-8 JSON of one value; both sides check both messages, so what
 * a handler or a caller holds is what its schema says.
 */
import type { MethodDefinition } from "@grpc/grpc-js";
import type { Static, TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { SvcError, type SvcErrorKind } from "../errors.ts";
import type { CallContext } from "./grpc.ts";

export type JsonMethod<Req extends TSchema = TSchema, Res extends TSchema = TSchema> = {
  readonly request: Req;
  readonly response: Res;
  /** The least deadline that a call of it may have; milliseconds. */
  readonly floorMs: number;
};
export type JsonMethods = Readonly<Record<string, JsonMethod>>;
export type JsonApi = { readonly service: string; readonly methods: JsonMethods };

export type JsonHandlers<Methods extends JsonMethods> = {
  readonly [Name in keyof Methods]: (
    request: Static<Methods[Name]["request"]>,
    context: CallContext,
  ) => Promise<Static<Methods[Name]["response"]>>;
};

export type JsonCalls<Methods extends JsonMethods> = {
  readonly [Name in keyof Methods]: (
    request: Static<Methods[Name]["request"]>,
    options: { readonly signal: AbortSignal },
  ) => Promise<Static<Methods[Name]["response"]>>;
};

/** Trailer with the RestJsonError of a failure, as JSON. */
export const REST_ERROR_TRAILER = "mayastor-rest-error-bin";

/** Encodes and decodes anything as JSON; a message that is no JSON is left for the validator to refuse. */
export function jsonDefinition(service: string, name: string): MethodDefinition<unknown, unknown> {
  // A server has encoded its answer already, to know its size.
  const encode = (value: unknown) =>
    Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value), "utf8");
  const decode = (bytes: Buffer): unknown => {
    try {
      return JSON.parse(bytes.toString("utf8"));
    } catch {
      return undefined; // refused by every schema, with the name of the message
    }
  };
  return {
    path: `/${service}/${name}`,
    originalName: name,
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  };
}

export type Parser<T> = (value: unknown) => T;

/**
 * A compiled check of one schema; failing it is an SvcError of `kind` that names the field.
 * `what` reads as "Cannot read <what>: /field must be string".
 */
export function parserOf<Schema extends TSchema>(
  schema: Schema,
  what: string,
  kind: SvcErrorKind,
): Parser<Static<Schema>> {
  const validator = Compile(schema);
  return (value) => {
    if (validator.Check(value)) return value;
    throw new SvcError(kind, `Cannot read ${what}: ${describeMismatch(validator.Errors(value))}`);
  };
}

type Mismatch = { readonly instancePath: string; readonly message: string };

/** The first mismatches as "/path message", few enough to read. */
export function describeMismatch(errors: readonly Mismatch[]): string {
  const texts = errors.map(({ instancePath, message }) => `${instancePath || "/"} ${message}`);
  return [...new Set(texts)].slice(0, 3).join("; ") || "does not match";
}
