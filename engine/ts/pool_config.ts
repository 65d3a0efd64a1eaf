/**
 * The `-P` file: pools to load when the engine starts, before it serves calls.
 *
 * Shape: `pools: [{ name, disks: [uri], uuid? }]` in YAML.
 * Invariant: a pool that cannot be loaded is logged and skipped: one bad disk must not keep the
 * others' replicas away.
 */
import { readFile } from "node:fs/promises";
import { type Static, Type } from "typebox";
import Value from "typebox/value";
import { parse } from "yaml";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import type { NativeEngine } from "./native.ts";

const PoolConfigSchema = Type.Object({
  pools: Type.Array(
    Type.Object({
      name: Type.String({ minLength: 1 }),
      disks: Type.Array(Type.String({ minLength: 1 }), { minItems: 1, maxItems: 1 }),
      uuid: Type.Optional(Type.String()),
    }),
  ),
});
export type PoolConfig = Static<typeof PoolConfigSchema>;

/** @throws {SvcError} `invalid-argument` */
export function parsePoolConfig(text: string, path: string): PoolConfig {
  try {
    const document: unknown = parse(text) ?? { pools: [] };
    const [problem] = Value.Errors(PoolConfigSchema, document);
    if (problem) throw new Error(`${problem.instancePath || "the document"} ${problem.message}`);
    return Value.Parse(PoolConfigSchema, document);
  } catch (error) {
    const message = `Cannot read pool configuration ${path}: ${errorMessage(error)}`;
    throw new SvcError("invalid-argument", message, { cause: error });
  }
}

export async function loadPools(
  path: string,
  { engine, log }: { engine: Pick<NativeEngine, "poolImport">; log: Log },
): Promise<void> {
  const { pools } = parsePoolConfig(await readFile(path, "utf8"), path);
  for (const { name, disks, uuid } of pools) {
    try {
      await engine.poolImport({ name, disks, uuid: uuid ?? null, clusterSize: null });
    } catch (error) {
      log.error("configured pool not loaded", { "pool.id": name, error });
    }
  }
}
