/** The five tables of specs and how each kind is written. */

import { SvcError, toSvcError } from "#common/errors.ts";
import { encodeJson } from "#common/store/json.ts";
import {
  commitNexus,
  type NexusOperation,
  type NexusSpec,
  NexusSpecSchema,
} from "#common/types/nexus.ts";
import { type NodeSpec, NodeSpecSchema } from "#common/types/node.ts";
import {
  commitPool,
  type PoolOperation,
  type PoolSpec,
  PoolSpecSchema,
} from "#common/types/pool.ts";
import {
  commitReplica,
  type ReplicaOperation,
  type ReplicaSpec,
  ReplicaSpecSchema,
} from "#common/types/replica.ts";
import { checkStorable, decodeStored, phaseOf } from "#common/types/stored.ts";
import {
  commitVolume,
  type VolumeOperation,
  type VolumeSpec,
  VolumeSpecSchema,
} from "#common/types/volume.ts";
import { SpecTable, type SpecWriter } from "./table.ts";

/** Nodes have no operations: a change of one is a single write. */
export class NodeTable {
  readonly #writer: SpecWriter;
  readonly #specs = new Map<string, NodeSpec>();

  constructor(writer: SpecWriter) {
    this.#writer = writer;
  }

  find(id: string): NodeSpec | undefined {
    return this.#specs.get(id);
  }

  /** @throws {SvcError} `not-found` */
  get(id: string): NodeSpec {
    const spec = this.#specs.get(id);
    if (!spec) throw new SvcError("not-found", `node ${id} not found`);
    return spec;
  }

  all(): NodeSpec[] {
    return [...this.#specs.values()];
  }

  load(entries: readonly { readonly key: string; readonly value: string }[]): void {
    for (const { key, value } of entries) {
      const spec = decodeStored(NodeSpecSchema, value, key);
      this.#specs.set(spec.id, spec);
    }
  }

  /** @throws {SvcError} `failed-persist` */
  async remove(id: string): Promise<void> {
    if (!this.#specs.has(id)) return;
    const key = this.#writer.keyOf("NodeSpec", id);
    try {
      await this.#writer.write([{ op: "delete", key }]);
    } catch (error) {
      throw new SvcError("failed-persist", `Cannot forget node ${id}`, {
        cause: toSvcError(error),
      });
    }
    this.#specs.delete(id);
    this.#writer.onChange("NodeSpec", id);
  }

  /** @throws {SvcError} `invalid-argument`, `failed-persist` */
  async put(spec: NodeSpec): Promise<NodeSpec> {
    const key = this.#writer.keyOf("NodeSpec", spec.id);
    const value = encodeJson(spec);
    checkStorable(NodeSpecSchema, value, `node ${spec.id}`);
    try {
      await this.#writer.write([{ op: "put", key, value }]);
    } catch (error) {
      throw new SvcError("failed-persist", `Cannot persist node ${spec.id}`, {
        cause: toSvcError(error),
      });
    }
    this.#specs.set(spec.id, spec);
    this.#writer.onChange("NodeSpec", spec.id);
    return spec;
  }
}

export type Specs = ReturnType<typeof makeSpecs>;

export function makeSpecs(writer: SpecWriter) {
  return {
    nodes: new NodeTable(writer),
    pools: new SpecTable<PoolSpec, PoolOperation>(
      {
        kind: "PoolSpec",
        noun: "pool",
        schema: PoolSpecSchema,
        idOf: (spec) => spec.id,
        ownerOf: () => null,
        phaseOf: (spec) => phaseOf(spec.status),
        withPhase: (spec, status) => ({ ...spec, status }),
        commit: commitPool,
      },
      writer,
    ),
    replicas: new SpecTable<ReplicaSpec, ReplicaOperation>(
      {
        kind: "ReplicaSpec",
        noun: "replica",
        schema: ReplicaSpecSchema,
        idOf: (spec) => spec.uuid,
        ownerOf: ({ owners }) => owners.volume,
        phaseOf: (spec) => phaseOf(spec.status),
        withPhase: (spec, status) => ({ ...spec, status }),
        commit: commitReplica,
      },
      writer,
    ),
    nexuses: new SpecTable<NexusSpec, NexusOperation>(
      {
        kind: "NexusSpec",
        noun: "nexus",
        schema: NexusSpecSchema,
        idOf: (spec) => spec.uuid,
        ownerOf: ({ owner }) => owner,
        phaseOf: (spec) => phaseOf(spec.spec_status),
        withPhase: (spec, status) => ({ ...spec, spec_status: status }),
        commit: commitNexus,
      },
      writer,
    ),
    volumes: new SpecTable<VolumeSpec, VolumeOperation>(
      {
        kind: "VolumeSpec",
        noun: "volume",
        schema: VolumeSpecSchema,
        idOf: (spec) => spec.uuid,
        ownerOf: () => null,
        phaseOf: (spec) => phaseOf(spec.status),
        withPhase: (spec, status) => ({ ...spec, status }),
        commit: commitVolume,
      },
      writer,
    ),
  };
}
