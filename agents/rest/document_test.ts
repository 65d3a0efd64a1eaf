import assert from "node:assert/strict";
import { test } from "node:test";
import { RestJsonErrorSchema } from "#common/openapi/model.ts";
import { makeDocument } from "./document.ts";
import { plain } from "./route.ts";
import { routes } from "./routes/mod.ts";
import { pageHtml } from "./ui.ts";

const document = makeDocument(routes, plain(RestJsonErrorSchema));
const text = JSON.stringify(document);

/** The published operations at 2.2: what a generated client relies on. */
const PUBLISHED = `
get_nexuses get_nexus del_nexus get_nexus_children get_nexus_child put_nexus_child del_nexus_child
get_nodes get_node put_node_cordon delete_node_cordon put_node_drain get_node_nexuses get_node_pools
get_node_replicas get_node_nexus put_node_nexus del_node_nexus get_node_nexus_children
get_node_nexus_child put_node_nexus_child del_node_nexus_child del_node_nexus_share
put_node_nexus_share get_node_pool put_node_pool del_node_pool get_node_pool_replicas
get_node_pool_replica put_node_pool_replica del_node_pool_replica del_node_pool_replica_share
put_node_pool_replica_share get_node_block_devices put_node_jsongrpc get_pools get_pool del_pool
put_pool_replica del_pool_replica del_pool_replica_share put_pool_replica_share get_replicas
get_replica get_specs get_volumes get_volume put_volume del_volume put_volume_replica_count
put_volume_target del_volume_target del_volume_shutdown_targets put_volume_share del_share
get_watch_volume put_watch_volume del_watch_volume`
  .trim()
  .split(/\s+/);

/** The published component schemas at 2.2 that an operation reaches, NodeAccessInfo of later versions, and our own StatusReason. */
const COMPONENTS = `
AffinityGroup BlockDevice Child ChildState ChildStateReason CordonDrainState CordonLabels CordonedState
CreateNexusBody CreatePoolBody CreateReplicaBody CreateVolumeBody DrainLabels DrainState
ExplicitNodeTopology HostNqn JsonGeneric LabelledTopology Nexus NexusShareProtocol NexusSpec NexusState
Node NodeAccessInfo NodeId NodeSpec NodeState NodeStatus NodeTopology Pool PoolId PoolSpec PoolState PoolStatus
PoolTopology PoolUuid Protocol PublishVolumeBody Replica ReplicaShareProtocol ReplicaSpaceUsage
ReplicaSpec ReplicaState ReplicaTopology ReplicaUsage RestJsonError RestWatch SpecStatus Specs StatusReason Topology
Volume VolumeId VolumePolicy VolumeShareProtocol VolumeSpec VolumeState VolumeStatus VolumeTarget
VolumeUsage Volumes`
  .trim()
  .split(/\s+/);

test("makeDocument() has exactly the published operations", () => {
  const operations = Object.values(document.paths).flatMap((path) =>
    Object.values(path).map((operation) => String(operation["operationId"])),
  );
  assert.deepEqual(operations.toSorted(), PUBLISHED.toSorted());
});

test("makeDocument() has every named schema, and every reference leads somewhere", () => {
  assert.deepEqual(Object.keys(document.components.schemas).toSorted(), COMPONENTS.toSorted());
  for (const [, section = "", name = ""] of text.matchAll(/"#\/components\/(\w+)\/(\w+)"/g)) {
    assert.ok(document.components[section]?.[name], `${section}/${name}`);
  }
});

test("makeDocument() names the path parameters that its paths have, and the quirky path", () => {
  for (const [path, operations] of Object.entries(document.paths)) {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).toSorted();
    for (const { parameters = [] } of Object.values(operations)) {
      assert.ok(Array.isArray(parameters));
      const named = parameters.filter((p) => p.in === "path").map((p) => p.name);
      assert.deepEqual(named.toSorted(), inPath, path);
    }
  }
  assert.ok(document.paths["/volumes{volume_id}/share"]?.["delete"]);
});

test("makeDocument() keeps field names, formats and limits", () => {
  const { schemas } = document.components;
  assert.deepEqual(schemas["ReplicaUsage"], {
    type: "object",
    properties: {
      capacity: { type: "integer", format: "int64", minimum: 0 },
      allocated: { type: "integer", format: "int64", minimum: 0 },
    },
    required: ["capacity", "allocated"],
  });
  assert.deepEqual(schemas["NodeStatus"], {
    type: "string",
    enum: ["Unknown", "Online", "Offline"],
  });
  assert.deepEqual(schemas["VolumeId"], { type: "string", format: "uuid" });
  assert.match(text, /"child-status":\{"\$ref":"#\/components\/schemas\/ChildState"\}/);
  assert.match(text, /"replica_topology":\{"type":"object","additionalProperties":\{"\$ref"/);
});

test("makeDocument() uses no keyword that OpenAPI 3.0 does not know", () => {
  assert.doesNotMatch(text, /"(patternProperties|const|anyOf|\$id|title)":(?!"Mayastor)/);
});

test("pageHtml() shows every operation and fetches nothing", () => {
  const page = pageHtml(document, "/v0/api/spec");
  for (const id of PUBLISHED) assert.ok(page.includes(id), id);
  assert.doesNotMatch(page, /<script|src=|https?:\/\//);
});
