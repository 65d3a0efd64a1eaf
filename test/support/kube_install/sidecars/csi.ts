/** The driver's socket as the controllers' sidecars use it: who it is, whether it is ready, typed calls. */
import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  VolumeCapability_AccessMode_Mode as AccessMode,
  Controller,
  Identity,
  type VolumeCapabilitySchema,
} from "#common/proto/generated/csi/v1/csi_pb.ts";
import { type Calls, callsOn, openChannel } from "#common/rpc/grpc.ts";

const CALL_MS = 60_000;
const PAUSE_MS = 500;

export interface Driver {
  readonly name: string;
  readonly controller: Calls<typeof Controller.method>;
}

/** Waits until the driver answers and is ready. */
export async function openDriver(address: string): Promise<Driver> {
  const channel = openChannel(`unix:${address}`);
  const identity = callsOn(channel, Identity, { deadlineMs: CALL_MS });
  for (;;) {
    try {
      const { ready } = await identity.probe({});
      if (ready ?? true) break;
      console.log("CSI driver is not ready");
    } catch (error) {
      console.log(`CSI driver: ${String(error)}`);
    }
    await sleep(PAUSE_MS);
  }
  const { name } = await identity.getPluginInfo({});
  console.log(`CSI driver name: ${name}`);
  return { name, controller: callsOn(channel, Controller, { deadlineMs: CALL_MS }) };
}

const MODES: Readonly<Record<string, AccessMode>> = {
  ReadWriteOnce: AccessMode.SINGLE_NODE_WRITER,
  ReadOnlyMany: AccessMode.MULTI_NODE_READER_ONLY,
  ReadWriteMany: AccessMode.MULTI_NODE_MULTI_WRITER,
};

/** What a volume is wanted for, as a driver is told. @throws for an access mode that Kubernetes does not have */
export function capability(wish: {
  readonly accessMode: string;
  readonly volumeMode: string | undefined;
  readonly fsType: string;
  readonly mountFlags: readonly string[] | undefined;
}): MessageInitShape<typeof VolumeCapabilitySchema> {
  const mode = MODES[wish.accessMode];
  if (mode === undefined) throw new Error(`unsupported access mode ${wish.accessMode}`);
  const accessMode = { mode };
  if (wish.volumeMode === "Block") return { accessMode, accessType: { case: "block", value: {} } };
  const mount = { fsType: wish.fsType, mountFlags: [...(wish.mountFlags ?? [])] };
  return { accessMode, accessType: { case: "mount", value: mount } };
}
