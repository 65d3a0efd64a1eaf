/** gRPC v1 JsonRpc: there is no JSON-RPC server inside this engine, and it says so. */
import { SvcError } from "#common/errors.ts";
import { JsonRpc } from "#common/proto/generated/mayastor/v1/json_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";

export function jsonService(): GrpcService {
  return makeService(JsonRpc, {
    jsonRpcCall: async ({ method }) => {
      throw new SvcError(
        "unimplemented",
        `Cannot call "${method}": this engine has no JSON-RPC methods; use the gRPC services`,
      );
    },
  });
}
