/**
 * The DiskPool CRD, made from the operator's own type (#common/types/diskpool.ts).
 *
 * Why here: the installation publishes it and the operator creates the same one where it is missing.
 * Why converted: the API server wants a structural schema, a narrow form of JSON schema.
 * Invariant: a construct that the API server would refuse or drop is a check() here.
 */
import type { TSchema } from "typebox";
import { check } from "../check.ts";
import {
  DISKPOOL_GROUP,
  DISKPOOL_KIND,
  DISKPOOL_PLURAL,
  DISKPOOL_VERSION,
  DiskPoolSpecSchema,
  DiskPoolStatusSchema,
} from "../types/diskpool.ts";

/** A structural schema as far as it is used here. */
export type JsonSchema = {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly format?: string;
  readonly minimum?: number;
  readonly nullable?: boolean;
  readonly enum?: readonly unknown[];
  readonly items?: JsonSchema;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: JsonSchema;
};

/** The parts of a TypeBox schema that a structural schema knows, as plain JSON schema. */
type Source = {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly format?: string;
  readonly minimum?: number;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Source[];
  readonly items?: Source;
  readonly properties?: Readonly<Record<string, Source>>;
  readonly required?: readonly string[];
  readonly patternProperties?: Readonly<Record<string, Source>>;
};
const KNOWN = [
  ...["type", "description", "default", "format", "minimum", "enum", "anyOf", "items"],
  ...["properties", "required", "patternProperties"],
];

/** Leaves out what is undefined: exactly what the compiler means by an absent property. */
function given<T extends object>(properties: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(properties).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function structural(source: Source): JsonSchema {
  const unknown = Object.keys(source).find((key) => !KNOWN.includes(key));
  check(unknown === undefined, `a structural schema has no "${unknown}"`);
  const { anyOf, patternProperties, properties, required } = source;
  if (anyOf !== undefined) {
    const [inner, nothing, ...more] = anyOf;
    check(inner && nothing?.type === "null" && more.length === 0, "a union is `T or null`");
    return { ...structural(inner), nullable: true, ...given({ description: source.description }) };
  }
  const type = source.type ?? (source.enum === undefined ? undefined : "string");
  check(type !== undefined, "every part of a structural schema has a type");
  const values = patternProperties === undefined ? undefined : Object.values(patternProperties)[0];
  return given({
    type,
    description: source.description,
    default: source.default,
    format: source.format,
    minimum: source.minimum,
    enum: source.enum,
    items: source.items === undefined ? undefined : structural(source.items),
    properties:
      properties === undefined
        ? undefined
        : Object.fromEntries(
            Object.entries(properties).map(([name, inner]) => [name, structural(inner)]),
          ),
    required: required === undefined || required.length === 0 ? undefined : required,
    additionalProperties: values === undefined ? undefined : structural(values),
  });
}

/** TypeBox schemas are JSON schema; a copy drops what is only for the compiler. */
export function structuralSchema(schema: TSchema): JsonSchema {
  return structural(JSON.parse(JSON.stringify(schema)) as Source); // structural() checks its keys
}

const column = (name: string, jsonPath: string, description: string) => ({
  name,
  type: "string",
  jsonPath,
  description,
});
const bytes = (name: string) => ({
  name,
  type: "integer",
  format: "int64",
  jsonPath: `.status.${name}`,
  description: `${name} bytes`,
});

/** The custom resource definition; the operator creates the same one where it is missing. */
export function diskPoolCrd() {
  return {
    name: `${DISKPOOL_PLURAL}.${DISKPOOL_GROUP}`,
    spec: {
      group: DISKPOOL_GROUP,
      names: {
        kind: DISKPOOL_KIND,
        plural: DISKPOOL_PLURAL,
        shortNames: ["dsp"],
        singular: "diskpool",
      },
      scope: "Namespaced",
      versions: [
        {
          name: DISKPOOL_VERSION,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            column("node", ".spec.node", "node the pool is on"),
            column("state", ".status.state", "dsp cr state"),
            column("pool_status", ".status.pool_status", "Control plane pool status"),
            bytes("capacity"),
            bytes("used"),
            bytes("available"),
          ],
          schema: {
            openAPIV3Schema: {
              description: "A pool of storage on one node",
              type: "object",
              properties: {
                spec: structuralSchema(DiskPoolSpecSchema),
                status: { ...structuralSchema(DiskPoolStatusSchema), nullable: true },
              },
              required: ["spec"],
            },
          },
        },
      ],
    },
  };
}
