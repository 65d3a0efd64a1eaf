/**
 * gRPC extension v1 PublicationRpc: the end of a publication, and how each host had left it.
 * Invariant: what is told of the hosts is told after the nexus was taken away from them, so that nobody can join later.
 */
import { PublicationRpc } from "#common/proto/generated/mayastor/extension/v1/publication_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { NativeEngine } from "../native.ts";

export function publicationService(engine: Pick<NativeEngine, "nexusUnpublish">): GrpcService {
  return makeService(PublicationRpc, {
    endPublication: async ({ nexusUuid }) => {
      const { hosts, hostsComplete } = await engine.nexusUnpublish(nexusUuid);
      return {
        hosts: hosts.map(({ nqn, live, lost }) => ({ nqn, leftOpen: live + lost })),
        complete: hostsComplete,
      };
    },
  });
}
