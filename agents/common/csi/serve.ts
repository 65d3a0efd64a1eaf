/**
 * What both plugins have in common on their CSI socket: the identity service and the way the socket is made.
 *
 * Invariants: the socket of a dead instance is replaced; a living one's, and anything else at its path, is left alone and
 * refused; the socket is open to sidecars of any user (mode 0777), as published.
 */
import { chmod, link, lstat, mkdir, rename, rm } from "node:fs/promises";
import { connect } from "node:net";
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

const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : "";

/** Somebody listens on the socket: `null` when there is none. Only a refused connection means that nobody does. */
async function isServed(file: string): Promise<boolean | null> {
  return await new Promise((resolve, reject) => {
    const socket = connect(file);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => {
      const errno = errnoOf(error);
      if (errno === "ECONNREFUSED") resolve(false);
      else if (errno === "ENOENT") resolve(null);
      else if (errno === "EAGAIN")
        resolve(true); // its queue is full
      else reject(error);
    });
  });
}

/**
 * Takes a dead instance's socket away, never a living one's. It is first put aside and asked again there: of two
 * instances that start at once, the slower one would otherwise remove what the quicker one has just made.
 */
async function removeStaleSocket(file: string): Promise<void> {
  const inUse = () =>
    new SvcError(
      "failed-precondition",
      `Cannot serve CSI at ${file}: another instance serves there; end that one first, or name another socket`,
    );
  const aside = `${file}.stale-${process.pid}`;
  try {
    const found = await lstat(file);
    if (!found.isSocket()) {
      throw new SvcError(
        "already-exists",
        `Cannot serve CSI at ${file}: it exists and is not a socket`,
      );
    }
    if ((await isServed(file)) === true) throw inUse();
    await rename(file, aside);
    if (await isServed(aside)) {
      await link(aside, file).catch(() => {}); // a third one has taken the place: it keeps it
      throw inUse();
    }
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

/** @throws {SvcError} `already-exists`, `failed-precondition` (served by another), `unavailable` when the socket cannot be made */
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
