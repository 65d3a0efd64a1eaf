/**
 * What both plugins have in common on their CSI socket: the identity service and the way the socket is made.
 *
 * Invariants: a stale socket file is replaced, anything else at its path is left alone and refused; the socket is
 * open to sidecars of any user (mode 0777), as published.
 */
import { chmod, lstat, mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { errorMessage, SvcError } from "../errors.ts";
import { Identity, PluginCapability_Service_Type } from "../proto/generated/csi/v1/csi_pb.ts";
import { type GrpcServer, type GrpcService, makeService, startSocketServer } from "../rpc/grpc.ts";
import { DRIVER_NAME } from "./driver.ts";

/** `isReady` false: what the plugin depends on cannot be reached. */
export function identityService({
  version,
  isReady,
}: {
  readonly version: string;
  readonly isReady: (signal: AbortSignal) => Promise<boolean>;
}): GrpcService {
  const { CONTROLLER_SERVICE, VOLUME_ACCESSIBILITY_CONSTRAINTS } = PluginCapability_Service_Type;
  return makeService(Identity, {
    getPluginInfo: async () => ({ name: DRIVER_NAME, vendorVersion: version }),
    getPluginCapabilities: async () => ({
      capabilities: [CONTROLLER_SERVICE, VOLUME_ACCESSIBILITY_CONSTRAINTS].map((type) => ({
        type: { case: "service" as const, value: { type } },
      })),
    }),
    probe: async (_request, { signal }) => ({ ready: await isReady(signal) }),
  });
}

async function removeStaleSocket(file: string): Promise<void> {
  try {
    const found = await lstat(file);
    if (!found.isSocket()) {
      throw new SvcError(
        "already-exists",
        `Cannot serve CSI at ${file}: it exists and is not a socket`,
      );
    }
    await rm(file);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
    throw error;
  }
}

/** @throws {SvcError} `already-exists`, `unavailable` when the socket cannot be made */
export async function serveSocket(
  file: string,
  services: readonly GrpcService[],
): Promise<Omit<GrpcServer, "port">> {
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await removeStaleSocket(file);
    const server = await startSocketServer(path.resolve(file), services);
    await chmod(file, 0o777);
    return server;
  } catch (error) {
    if (error instanceof SvcError) throw error;
    throw new SvcError("unavailable", `Cannot serve CSI at ${file}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
