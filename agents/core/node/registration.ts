/** The published Registration service: engines say that they are there, and that they go. */
import { Registration } from "#common/proto/generated/mayastor/v1/registration_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NodeService } from "./service.ts";

export function registrationService(nodes: NodeService): GrpcService {
  return makeService(Registration, {
    register: async ({ id, grpcEndpoint, instanceUuid, hostnqn }) => {
      await nodes.register({
        id,
        endpoint: grpcEndpoint.replace(/^[a-z]+:\/\//, ""),
        instanceUuid: instanceUuid ?? null,
        hostNqn: hostnqn ?? null,
      });
      return {};
    },
    deregister: async ({ id }) => {
      nodes.deregister(id);
      return {};
    },
  });
}
