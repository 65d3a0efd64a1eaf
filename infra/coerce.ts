/**
 * Values as people write them, in the types of the schema: Helm's templates do not tell "2" from 2 or "true" from true, and
 * published values files have either.
 *
 * Invariants: only what means the same is changed; whatever does not fit stays as it is, and the check that follows
 * names it.
 */
import Value from "typebox/value";
import { isTree } from "./merge.ts";

/** A schema as JSON: what TypeBox made, without its types. */
type Schema = Readonly<Record<string, unknown>>;
const schemas = (value: unknown): readonly Schema[] =>
  Array.isArray(value) ? value.filter(isTree) : [];

const INTEGER = /^-?[0-9]+$/;

function scalar(schema: Schema, value: unknown): unknown {
  const type = schema["type"];
  if (type === "integer" && typeof value === "string" && INTEGER.test(value.trim())) {
    return Number(value);
  }
  if (type === "boolean" && (value === "true" || value === "false")) return value === "true";
  const wantsText = type === "string" || schemas(schema["anyOf"]).length === 0;
  const isText = wantsText && (type === "string" || Array.isArray(schema["enum"]));
  if (isText && (typeof value === "number" || typeof value === "boolean")) return String(value);
  return value;
}

/** The first alternative that the value fits, as it is or converted. */
function alternative(schema: Schema, value: unknown): unknown {
  const options = schemas(schema["anyOf"]);
  const fits = (option: Schema, candidate: unknown) => Value.Check(option, candidate);
  if (options.some((option) => fits(option, value))) return value;
  for (const option of options) {
    const converted = coerced(option, value);
    if (fits(option, converted)) return converted;
  }
  return value;
}

/** The value with its parts in the types that the schema wants, where they mean the same. */
export function coerced(wanted: unknown, value: unknown): unknown {
  const schema: Schema = isTree(wanted) ? wanted : {};
  if (Array.isArray(schema["anyOf"])) return alternative(schema, value);
  if (Array.isArray(value)) {
    const { items } = schema;
    return isTree(items) ? value.map((item) => coerced(items, item)) : value;
  }
  if (!isTree(value)) return scalar(schema, value);
  const { properties, patternProperties } = schema;
  const any = isTree(patternProperties) ? Object.values(patternProperties).find(isTree) : undefined;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      const own = isTree(properties) ? properties[key] : any;
      return [key, isTree(own) ? coerced(own, inner) : inner];
    }),
  );
}
