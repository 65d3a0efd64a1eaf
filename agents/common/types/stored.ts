/**
 * What all stored objects share: their status, the operation in flight, and how they are read.
 *
 * Why: the JSON in the store is an interface (upgrades in both directions read it), so each object has one
 * TypeBox schema that is both its type and its check.
 * Invariants: a missing field with a default reads as the default; unknown fields are kept, so that what a
 * newer release wrote survives our rewriting it; a document that does not match its schema is an error
 * that names the field, never a guess.
 */
import { type Static, type TSchema, Type } from "typebox";
import Value from "typebox/value";
import { errorMessage, SvcError } from "../errors.ts";
import { decodeJson } from "../store/json.ts";

/** Bytes: numbers, because 2^53 - 1 (8 PiB) exceeds any pool; checked wherever one enters. */
export const BytesSchema = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/** Any 64-bit number: a bigint when it does not fit a JavaScript number. */
export const U64Schema = Type.Union([Type.Integer({ minimum: 0 }), Type.BigInt()]);
export const UuidText = Type.String({ pattern: "^[0-9a-f-]{36}$" });
export const Labels = Type.Record(Type.String(), Type.String());

export const nullable = <Schema extends TSchema>(schema: Schema) =>
  Type.Union([schema, Type.Null()]);

/** A field that older documents lack and that reads as null then. */
export const absentAsNull = <Schema extends TSchema>(schema: Schema) =>
  Type.Union([schema, Type.Null()], { default: null });

export const specStatus = <const Names extends readonly string[]>(states: Names) =>
  Type.Union([
    Type.Literal("Creating"),
    Type.Object({ Created: Type.Enum(states) }),
    Type.Literal("Deleting"),
    Type.Literal("Deleted"),
  ]);

export const opRecord = <Op extends TSchema>(operation: Op) =>
  Type.Object({ operation, result: nullable(Type.Boolean()) });

export const ProtocolText = Type.Enum(["none", "nvmf", "iscsi", "nbd"]);
export type Protocol = Static<typeof ProtocolText>;
export const VolumeProtocolText = Type.Enum(["nvmf", "iscsi"]);

export type SpecPhase = "Creating" | "Created" | "Deleting" | "Deleted";

/** The part of a status that matters to most: which phase of life. */
export function phaseOf(status: "Creating" | "Deleting" | "Deleted" | object): SpecPhase {
  return typeof status === "string" ? status : "Created";
}

/** An operation that is written down before it is acted on; `result` says how acting ended. */
export type OpRecord<Op> = { operation: Op; result: boolean | null };

/**
 * Reads one stored document.
 * @throws {SvcError} `deserialize`, naming the key and the field
 */
export function decodeStored<Schema extends TSchema>(
  schema: Schema,
  text: string,
  key: string,
): Static<Schema> {
  const value: unknown = Value.Default(schema, decodeJson(text, key));
  if (Value.Check(schema, value)) return value;
  const errors = Value.Errors(schema, value).slice(0, 3);
  const where = errors.map((error) => `${error.instancePath || "/"} ${error.message}`).join("; ");
  throw new SvcError("deserialize", `Cannot read ${key}: ${where || "does not match"}`);
}

/**
 * Asks before writing whether the document could be read back: a request may say what no schema of ours admits.
 * @throws {SvcError} `invalid-argument`, naming the field
 */
export function checkStorable(schema: TSchema, text: string, what: string): void {
  try {
    decodeStored(schema, text, what);
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot persist ${what}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
