/** Path and query parameters that several routes share, named as published. */
import { Type } from "typebox";
import { NodeIdSchema, PoolIdSchema, UuidSchema, VolumeIdSchema } from "#common/openapi/model.ts";

export const node_id = NodeIdSchema;
export const pool_id = PoolIdSchema;
export const volume_id = VolumeIdSchema;
export const nexus_id = UuidSchema;
export const replica_id = UuidSchema;
/** Percent-encoded URI of a child. */
export const child_id = Type.String({ format: "url-segment", minLength: 1 });
export const name = Type.String({ minLength: 1 });
export const frontend_host = Type.Optional(Type.String());
/** As the document says: where a changed resource is told. */
export const callback = Type.String({ format: "uri" });
