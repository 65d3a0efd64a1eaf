/** EngineClient over gRPC against engines that answer nonsense. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { NexusRpc } from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { type Handlers, makeService, startServer } from "#common/rpc/grpc.ts";
import { grpcConnector } from "./grpc_client.ts";

const NEXUS = "069feb5e-ec65-4e97-b094-99262dfc9f44";

test("an answer without the nexus is a failure of that engine, not a bug of ours", async () => {
  const empty = async () => ({});
  // Every call of the service is answered with an empty message.
  const handlers = new Proxy({}, { get: () => empty }) as Handlers<typeof NexusRpc.method>;
  const server = await startServer("127.0.0.1:0", [makeService(NexusRpc, handlers)]);
  const timeouts = { connectTimeoutMs: 5000, requestTimeoutMs: 5000, minTimeouts: false };
  const connect = grpcConnector({ timeouts, clock: systemClock });
  const client = connect({ node: "node-7", endpoint: `127.0.0.1:${server.port}` });
  try {
    const failure = {
      kind: "internal",
      message: "Cannot read the answer of node-7: no nexus in it",
    };
    const request = { uuid: NEXUS, name: NEXUS, size: 1, children: [], config: null, infoKey: "k" };
    await assert.rejects(client.createNexus(request), failure);
    await assert.rejects(client.shutdownNexus(NEXUS), failure);
  } finally {
    client.close();
    await server.close();
  }
});
