/** gRPC v1 HostRpc: who this engine is, the node's disks, resource usage, initiator controllers. */
import { SvcError } from "#common/errors.ts";
import { HostRpc } from "#common/proto/generated/mayastor/v1/host_pb.ts";
import { type GrpcService, makeService } from "#common/rpc/grpc.ts";
import type { BlockDevice } from "../block_devices.ts";
import type { NativeEngine } from "../native.ts";
import { type Identity, registerRequest } from "../registration.ts";
import { VERSION } from "../version.ts";

export type HostServiceOptions = {
  readonly engine: NativeEngine;
  readonly identity: Identity;
  readonly listBlockDevices: (options: { all: boolean }) => Promise<readonly BlockDevice[]>;
};

export function hostService({
  engine,
  identity,
  listBlockDevices,
}: HostServiceOptions): GrpcService {
  return makeService(HostRpc, {
    getMayastorInfo: async () => ({
      version: VERSION,
      supportedFeatures: { asymmetricNamespaceAccess: identity.anaEnabled },
      registrationInfo: registerRequest(identity),
    }),
    listBlockDevices: async ({ all }) => ({
      devices: (await listBlockDevices({ all })).map(({ partition, filesystem, ...device }) => ({
        ...device,
        ...(partition === null ? {} : { partition }),
        ...(filesystem === null ? {} : { filesystem }),
      })),
    }),
    getMayastorResourceUsage: async () => {
      const usage = process.resourceUsage();
      return {
        usage: {
          softFaults: BigInt(usage.minorPageFault),
          hardFaults: BigInt(usage.majorPageFault),
          swaps: BigInt(usage.swappedOut),
          inBlockOps: BigInt(usage.fsRead),
          outBlockOps: BigInt(usage.fsWrite),
          ipcMsgSend: BigInt(usage.ipcSent),
          ipcMsgRcv: BigInt(usage.ipcReceived),
          signals: BigInt(usage.signalsCount),
          volCsw: BigInt(usage.voluntaryContextSwitches),
          involCsw: BigInt(usage.involuntaryContextSwitches),
        },
      };
    },
    listNvmeControllers: async () => ({
      controllers: (await engine.controllerList()).map((controller) => ({
        name: controller.name,
        state: controller.state,
        size: controller.blockCount * BigInt(controller.blockSize),
        blkSize: controller.blockSize,
      })),
    }),
    statNvmeController: async ({ name }) => {
      const found = (await engine.controllerList()).find((controller) => controller.name === name);
      if (!found) {
        throw new SvcError("not-found", `Cannot read NVMe controller ${name}: there is none`);
      }
      const { stats } = found;
      return {
        stats: {
          numReadOps: stats.readOps,
          numWriteOps: stats.writeOps,
          bytesRead: stats.readBytes,
          bytesWritten: stats.writeBytes,
          numUnmapOps: stats.unmapOps,
          bytesUnmapped: stats.unmapBytes,
        },
      };
    },
  });
}
