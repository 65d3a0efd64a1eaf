import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { Type } from "typebox";
import { systemClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import { RestJsonErrorSchema, VolumeSchema } from "#common/openapi/model.ts";
import { CORE_API } from "#common/rpc/core_api.ts";
import { openChannel } from "#common/rpc/grpc.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import { makeJsonCalls } from "#common/rpc/json_client.ts";
import { openVerifier } from "./auth.ts";
import { routes } from "./routes/mod.ts";
import { makeRestServer } from "./server.ts";
import {
  CHILD_URI,
  HOST_NQN,
  NEXUS,
  nexus,
  REPLICA,
  startFakeCore,
  UNKNOWN,
  VOLUME,
  volume,
} from "./testing/fake_core.ts";

const fake = await startFakeCore();
const channel = openChannel(`127.0.0.1:${fake.port}`);
const core = makeJsonCalls(channel, CORE_API, { timeoutMs: 10_000 });
const server = makeRestServer({
  core,
  verifier: openVerifier,
  log: silentLog,
  clock: systemClock,
  tls: null,
});
after(async () => {
  await server.close();
  channel.close();
  await fake.close();
});
beforeEach(() => {
  fake.calls.length = 0;
  for (const name of Object.keys(fake.instead)) Reflect.deleteProperty(fake.instead, name);
});

type Method = "GET" | "PUT" | "DELETE";
async function call(method: Method, path: string, body?: unknown) {
  const answer = await server.app.inject({
    method,
    url: `/v0${path}`,
    ...(body === undefined
      ? {}
      : { payload: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const value: unknown = answer.payload === "" ? null : JSON.parse(answer.payload);
  return { status: answer.statusCode, value };
}
const parseError = parserOf(RestJsonErrorSchema, "an error", "internal");
async function refused(method: Method, path: string, body?: unknown) {
  const { status, value } = await call(method, path, body);
  return { status, ...parseError(value) };
}
const lastRequest = () => fake.calls.at(-1);

const createVolume = { policy: { self_heal: true }, replicas: 3, size: 1 << 30, thin: false };

/** One good request for each operation, with the values that its path and query need. */
const sampleParams: Readonly<Record<string, string>> = {
  id: "worker-0",
  node: "worker-0",
  node_id: "worker-0",
  label: "maintenance",
  pool_id: "pool-0",
  replica_id: REPLICA,
  nexus_id: NEXUS,
  volume_id: VOLUME,
  child_id: encodeURIComponent(CHILD_URI),
  protocol: "nvmf",
  replica_count: "2",
  method: "bdev_get_bdevs",
};
const sampleBodies: Readonly<Record<string, unknown>> = {
  put_node_pool: { disks: ["/dev/vdb"], labels: { a: "b" } },
  put_node_pool_replica: { size: 4096, thin: true, share: "nvmf", "allowed-hosts": [HOST_NQN] },
  put_pool_replica: { size: 4096, thin: true },
  put_node_nexus: { children: [CHILD_URI], size: 4096 },
  put_volume: createVolume,
  put_volume_target: { publish_context: {}, protocol: "nvmf" },
  put_node_jsongrpc: {},
};

for (const route of routes) {
  test(`${route.operationId} answers as the document says`, async () => {
    const id = route.operationId === "get_replica" ? REPLICA : sampleParams["id"];
    const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
      name === "id" ? (id ?? "") : (sampleParams[name] ?? ""),
    );
    const query = route.queryRequired.includes("callback") ? "?callback=http://10.1.0.9/x" : "";
    const { status, value } = await call(
      route.method,
      path + query,
      sampleBodies[route.operationId],
    );
    if (route.operationId === "put_node_jsongrpc") {
      assert.equal(status, 503);
      assert.equal(parseError(value).kind, "Unavailable");
      return;
    }
    assert.equal(status, route.response ? 200 : 204, JSON.stringify(value));
    if (route.response) parserOf(route.response, "the answer", "internal")(value);
    else assert.equal(value, null);
    assert.equal(fake.calls.length, 1);
  });
}

test("a volume comes through unchanged", async () => {
  const { value } = await call("GET", `/volumes/${VOLUME}`);
  assert.deepEqual(value, volume);
  parserOf(VolumeSchema, "a volume", "internal")(value);
});

test("an id in upper case is the same id", async () => {
  assert.equal((await call("GET", `/volumes/${VOLUME.toUpperCase()}`)).status, 200);
  assert.deepEqual(lastRequest()?.request, { volume: VOLUME });
});

test("a missing resource is 404 NotFound with details", async () => {
  assert.deepEqual(await refused("GET", `/volumes/${UNKNOWN}`), {
    status: 404,
    kind: "NotFound",
    details: `Cannot find volume "${UNKNOWN}": it does not exist`,
    message: `Cannot find volume "${UNKNOWN}": it does not exist`,
  });
});

test("each kind of failure keeps its published status", async () => {
  const cases = [
    ["in-use", 409, "InUse"],
    ["not-published", 412, "NotPublished"],
    ["resource-exhausted", 507, "ResourceExhausted"],
    ["failed-persist", 507, "FailedPersist"],
    ["timeout", 408, "Timeout"],
    ["aborted", 503, "Aborted"],
    ["conflict", 409, "Conflict"],
    ["already-exists", 422, "AlreadyExists"],
  ] as const;
  for (const [kind, status, shown] of cases) {
    fake.instead.DestroyVolume = async () => {
      throw new SvcError(kind, "Cannot destroy volume", { cause: new Error("inner") });
    };
    assert.deepEqual(await refused("DELETE", `/volumes/${VOLUME}`), {
      status,
      kind: shown,
      details: "Cannot destroy volume: inner",
      message: "inner",
    });
  }
});

test("what does not parse is 400 Deserialize with an empty message", async () => {
  const cases: [Method, string, unknown, RegExp][] = [
    ["GET", "/volumes/not-a-uuid", undefined, /the path.*\/volume_id/],
    ["PUT", `/volumes/${VOLUME}`, { ...createVolume, size: "1" }, /the body.*\/size/],
    ["PUT", `/volumes/${VOLUME}`, { ...createVolume, size: 2 ** 53 }, /the body.*\/size/],
    ["PUT", `/volumes/${VOLUME}`, { ...createVolume, replicas: 256 }, /the body.*\/replicas/],
    ["PUT", `/volumes/${VOLUME}`, { ...createVolume, policy: null }, /the body.*\/policy/],
    ["PUT", `/volumes/${VOLUME}/replica_count/0`, undefined, /the path.*\/replica_count/],
    ["PUT", `/volumes/${VOLUME}/replica_count/two`, undefined, /the path.*\/replica_count/],
    ["DELETE", `/volumes/${VOLUME}/target?force=maybe`, undefined, /the query.*\/force/],
    ["PUT", `/volumes/${VOLUME}/share/smb`, undefined, /the path.*\/protocol/],
    ["PUT", `/watches/volumes/${VOLUME}`, undefined, /the query.*callback/],
    ["GET", "/nodes/%zz", undefined, /./],
  ];
  for (const [method, path, body, details] of cases) {
    const answer = await refused(method, path, body);
    assert.equal(answer.status, 400, path);
    assert.equal(answer.kind, "Deserialize", path);
    assert.equal(answer.message, "", path);
    assert.match(answer.details, details);
  }
  assert.equal(fake.calls.length, 0, "nothing of it reached agent-core");
});

test("a body that is no JSON, or missing, is 400 Deserialize", async () => {
  for (const payload of ["{", ""]) {
    const answer = await server.app.inject({
      method: "PUT",
      url: `/v0/volumes/${VOLUME}`,
      payload,
      headers: { "content-type": "application/json" },
    });
    assert.equal(answer.statusCode, 400);
    assert.equal(parseError(JSON.parse(answer.payload)).kind, "Deserialize");
  }
});

test("a body that is too large is 400 Deserialize", async () => {
  const labels = { big: "x".repeat(2 << 20) };
  const answer = await refused("PUT", `/volumes/${VOLUME}`, { ...createVolume, labels });
  assert.equal(answer.status, 400);
  assert.equal(answer.kind, "Deserialize");
});

test("null stands for an absent optional, in one-of variants too", async () => {
  const body = {
    ...createVolume,
    labels: null,
    affinity_group: null,
    topology: {
      node_topology: { explicit: { allowed_nodes: [], preferred_nodes: [] }, labelled: null },
      pool_topology: null,
    },
  };
  assert.equal((await call("PUT", `/volumes/${VOLUME}`, body)).status, 200);
  assert.deepEqual(lastRequest()?.request, {
    volume: VOLUME,
    body: {
      ...createVolume,
      topology: { node_topology: { explicit: { allowed_nodes: [], preferred_nodes: [] } } },
    },
  });
});

test("a topology of two kinds is refused", async () => {
  const labelled = { inclusion: {}, exclusion: {} };
  const explicit = { allowed_nodes: [], preferred_nodes: [] };
  const topology = { node_topology: { explicit, labelled } };
  const answer = await refused("PUT", `/volumes/${VOLUME}`, { ...createVolume, topology });
  assert.equal(answer.kind, "Deserialize");
});

test("an unknown path is 404 with a RestJsonError", async () => {
  const answer = await refused("GET", "/nothing/here?x=1");
  assert.equal(answer.status, 404);
  assert.equal(answer.kind, "NotFound");
  assert.equal(answer.details, "GET /v0/nothing/here?x=1: no such operation");
});

test("child_id is a percent-encoded URI, or one with a raw query, or a device", async () => {
  const base = `/nexuses/${NEXUS}/children`;
  const [bare = "", query = ""] = CHILD_URI.split("?");
  const spellings: [string, string][] = [
    [encodeURIComponent(CHILD_URI), CHILD_URI],
    [`${encodeURIComponent(bare)}?${query}`, CHILD_URI],
    [CHILD_URI, CHILD_URI],
    [encodeURIComponent("/dev/vdb"), "aio:///dev/vdb"],
    [encodeURIComponent("aio:///dev/vdb?blk_size=512"), "aio:///dev/vdb?blk_size=512"],
  ];
  for (const [segment, uri] of spellings) {
    const { status } = await call("PUT", `${base}/${segment}`);
    assert.equal(status, 200, segment);
    assert.deepEqual(lastRequest(), { method: "AddNexusChild", request: { nexus: NEXUS, uri } });
  }
});

test("get_nexus_child finds its child, and says so when it is not there", async () => {
  const base = `/nodes/worker-0/nexuses/${NEXUS}/children`;
  const found = await call("GET", `${base}/${encodeURIComponent(CHILD_URI)}`);
  assert.deepEqual(found.value, nexus.children[0]);
  const answer = await refused("GET", `${base}/${encodeURIComponent("malloc:///other")}`);
  assert.equal(answer.status, 404);
});

test("allowed-hosts must be NQNs", async () => {
  const base = `/pools/pool-0/replicas/${REPLICA}/share/nvmf`;
  const other = "nqn.2014-08.org.nvmexpress:uuid:18e30e83-b106-4e0d-9fb6-2b04e761e18a";
  await call("PUT", `${base}?allowed-hosts=${HOST_NQN}&allowed-hosts=${other}`);
  assert.deepEqual(lastRequest()?.request, {
    pool: "pool-0",
    replica: REPLICA,
    allowedHosts: [HOST_NQN, other],
  });
  const answer = await refused("PUT", `${base}?allowed-hosts=worker-1`);
  assert.equal(answer.status, 400);
  assert.equal(answer.kind, "InvalidArgument");
});

test("a share URI is a JSON string", async () => {
  const { value } = await call("PUT", `/volumes/${VOLUME}/share/nvmf`);
  assert.equal(value, nexus.deviceUri);
});

test("get_volumes: paging and filter", async () => {
  await call("GET", "/volumes?max_entries=200&starting_token=400");
  assert.deepEqual(lastRequest()?.request, { maxEntries: 200, startingToken: 400 });
  await call("GET", "/volumes?max_entries=-1");
  assert.deepEqual(lastRequest()?.request, { maxEntries: 0, startingToken: 0 });
  const { value } = await call("GET", `/volumes?volume_id=${UNKNOWN}&max_entries=0`);
  assert.deepEqual(value, { entries: [] });
});

test("get_node_block_devices: all unless asked otherwise", async () => {
  await call("GET", "/nodes/worker-0/block_devices");
  assert.deepEqual(lastRequest()?.request, { node: "worker-0", all: true });
  await call("GET", "/nodes/worker-0/block_devices?all=false");
  assert.deepEqual(lastRequest()?.request, { node: "worker-0", all: false });
});

test("put_volume_target: publish and republish with their defaults", async () => {
  const path = `/volumes/${VOLUME}/target`;
  const publish_context = { fsType: "ext4" };
  const protocol = "nvmf";
  await call("PUT", path, { publish_context, protocol, node: "worker-0", frontend_node: "app" });
  assert.deepEqual(lastRequest(), {
    method: "PublishVolume",
    request: {
      volume: VOLUME,
      protocol,
      node: "worker-0",
      publishContext: publish_context,
      frontendNodes: ["app"],
    },
  });
  await call("PUT", path, { publish_context: {}, protocol, republish: true });
  assert.deepEqual(lastRequest(), {
    method: "RepublishVolume",
    request: { volume: VOLUME, protocol, reuseExisting: true, frontendNode: "" },
  });
});

test("an agent-core that is down is 503 Unavailable", async () => {
  const nobody = openChannel("127.0.0.1:1");
  const lost = makeRestServer({
    core: makeJsonCalls(nobody, CORE_API, { timeoutMs: 10_000 }),
    verifier: openVerifier,
    log: silentLog,
    clock: systemClock,
    tls: null,
  });
  try {
    const answer = await lost.app.inject({ method: "GET", url: "/v0/nodes" });
    assert.equal(answer.statusCode, 503);
    assert.equal(parseError(JSON.parse(answer.payload)).kind, "Unavailable");
  } finally {
    await lost.close();
    nobody.close();
  }
});

test("states and specs list what the agent knows", async () => {
  const { value } = await call("GET", "/states");
  const shape = Type.Object({ nexuses: Type.Array(Type.Object({ nexus: Type.Unknown() })) });
  parserOf(shape, "states", "internal")(value);
});
