/**
 * JSON as it is stored: compact, with 64-bit integers kept exactly.
 *
 * Why: a reservation key is any 64-bit number, and a JavaScript number holds 53 bits of it.
 * Invariants: an integer literal outside the safe range reads as bigint; a bigint writes as a bare
 * integer literal; everything else is plain JSON. Unknown fields are the schemas' business.
 */
import { errorMessage, SvcError } from "../errors.ts";

type ReviverContext = { readonly source?: string };
type RawJson = { readonly rawJSON: string };

// Both exist in the pinned Node (checked by json_test.ts); the lib version of tsconfig predates them.
const parseWithSource = JSON.parse as (
  text: string,
  reviver: (key: string, value: unknown, context: ReviverContext) => unknown,
) => unknown;
const rawJson = (JSON as unknown as { rawJSON(text: string): RawJson }).rawJSON;

const INTEGER = /^-?\d+$/;

/** @throws {SvcError} `deserialize` */
export function decodeJson(text: string, what: string): unknown {
  try {
    return parseWithSource(text, (_key, value, context) => {
      if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
      const source = context.source ?? "";
      return INTEGER.test(source) ? BigInt(source) : value;
    });
  } catch (error) {
    throw new SvcError("deserialize", `Cannot read ${what}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

export function encodeJson(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) =>
    typeof field === "bigint" ? rawJson(field.toString()) : field,
  );
}
