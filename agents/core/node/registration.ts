/** The published Registration service: engines say that they are there, and that they go. */
import { Registration } from "#common/proto/generated/mayastor/v1/registration_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { bareEndpoint, INSTANCE_HEADER, NODE_CHANGED_HEADER } from "#common/rpc/registration.ts";
import type { NodeService } from "./service.ts";

export function registrationService(nodes: NodeService): GrpcService {
  return makeService(Registration, {
    register: async ({ id, grpcEndpoint, instanceUuid, hostnqn }, { metadata }) => {
      await nodes.register({
        id,
        endpoint: bareEndpoint(grpcEndpoint),
        instanceUuid: instanceUuid || null,
        hostNqn: hostnqn ?? null,
        changed: metadata.get(NODE_CHANGED_HEADER).length > 0,
      });
      return {};
    },
    deregister: async ({ id }, { metadata }) => {
      const [instance] = metadata.get(INSTANCE_HEADER);
      await nodes.deregister(id, instance === undefined ? null : String(instance));
      return {};
    },
  });
}
