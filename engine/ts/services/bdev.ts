/** gRPC v1 BdevRpc: parse, call the engine, encode. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SvcError } from "#common/errors.ts";
import { BdevRpc, type BdevSchema } from "#common/proto/generated/mayastor/v1/bdev_pb.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import { Locks } from "../locks.ts";
import type { BdevInfo, NativeEngine } from "../native.ts";
import { allowedHosts } from "./shared.ts";

function bdevToWire(bdev: BdevInfo): MessageInitShape<typeof BdevSchema> {
  return {
    name: bdev.name,
    uuid: bdev.uuid,
    numBlocks: bdev.blockCount,
    blkSize: bdev.blockSize,
    claimed: bdev.claimedBy !== "",
    claimedBy: bdev.claimedBy,
    aliases: bdev.uuid,
    uri: bdev.uri,
    productName: bdev.productName,
    shareUri: bdev.shareUri,
  };
}

export function bdevService(engine: NativeEngine): GrpcService {
  const locks = new Locks();
  const serial = <T>(signal: AbortSignal, work: () => Promise<T>) =>
    locks.run("the bdev service", signal, work);
  return makeService(BdevRpc, {
    create: ({ uri }, { signal }) =>
      serial(signal, async () => ({ bdev: bdevToWire(await engine.bdevCreate(uri)) })),
    destroy: ({ uri }, { signal }) =>
      serial(signal, async () => {
        await engine.bdevDestroy(uri);
        return {};
      }),
    list: async ({ name }) => {
      const bdevs = (await engine.bdevList()).filter(
        (bdev) => name === undefined || bdev.name === name,
      );
      if (name !== undefined && bdevs.length === 0) {
        throw new SvcError("not-found", `Cannot list bdev ${name}: there is none`);
      }
      return { bdevs: bdevs.map(bdevToWire) };
    },
    share: ({ name, protocol, allowedHosts: hosts }, { signal }) =>
      serial(signal, async () => {
        if (protocol !== ShareProtocol.NVMF) {
          throw new SvcError(
            "invalid-argument",
            `Cannot share bdev ${name}: share protocol ${protocol} is not NVMF (1)`,
          );
        }
        return { bdev: bdevToWire(await engine.bdevShare(name, allowedHosts(hosts))) };
      }),
    unshare: ({ name }, { signal }) =>
      serial(signal, async () => {
        await engine.bdevUnshare(name);
        return {};
      }),
  });
}
