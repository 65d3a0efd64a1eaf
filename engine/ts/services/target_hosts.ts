/** gRPC extension v1 TargetHostsRpc: how many hosts are connected to each nexus, and what it was made for. */
import { TargetHostsRpc } from "#common/proto/generated/mayastor/extension/v1/target_hosts_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NativeEngine } from "../native.ts";

export function targetHostsService(engine: Pick<NativeEngine, "nexusList">): GrpcService {
  return makeService(TargetHostsRpc, {
    listTargetHosts: async () => ({
      targets: (await engine.nexusList()).map(({ uuid, connectedHosts, infoKey }) => ({
        nexusUuid: uuid,
        connected: connectedHosts,
        infoKey,
      })),
    }),
  });
}
