/**
 * What the operations of the node plugin share: the node's system, its names, its connection settings; and the
 * publish context, read once.
 */
import type { Clock } from "#common/clock.ts";
import { connectionParameter, PARAMETER, URI_KEY } from "#common/csi/driver.ts";
import { SvcError } from "#common/errors.ts";
import type { Log } from "#common/log.ts";
import { nodeHostNqn, subsystemNqn } from "#common/nqn.ts";
import { generationOf } from "#common/types/publication.ts";
import type { ConnectOptions } from "./nvme.ts";
import type { NodeSystem } from "./system.ts";
import { parseNvmfUri } from "./uri.ts";
import type { ReadVolume } from "./whereabouts.ts";

const HOST_NQN_PREFIX = "nqn.2019-05.io.openebs.engine";
/** Up to this I/O timeout a lost connection is tried each second, then each ten. */
const QUICK_RECONNECT_SECONDS_MAX = 10;

export type NodeContext = {
  readonly system: NodeSystem;
  readonly clock: Clock;
  readonly log: Log;
  readonly nodeName: string;
  /** The machine's uuid, lower case. */
  readonly machineId: string;
  /** Folder in this program's own file system for mounts on their way to their place. */
  readonly detourFolder: string;
  /** Asks the control plane; null: this plugin has no way to. */
  readonly readVolume: ReadVolume | null;
  /** For connections whose publish context does not say. Seconds; null: the kernel's default. */
  readonly defaults: {
    readonly nrIoQueues: number | null;
    readonly ctrlLossTmo: number | null;
    readonly keepAliveTmo: number | null;
  };
};

/** A volume as the kernel knows it: by the name of one of its publications. */
export type VolumeName = { readonly uuid: string; readonly nqn: string };

/** By its documented name. */
export function volumeNameOf(uuid: string): VolumeName {
  return { uuid, nqn: subsystemNqn(uuid) };
}

/**
 * The volume by the name of the publication that a publish context is about.
 * @throws {SvcError} `invalid-argument` when the URI leads to something else
 */
export function publishedName(what: string, uuid: string, uri: string): VolumeName {
  const { nqn } = parseNvmfUri(uri);
  const prefix = subsystemNqn("");
  if (nqn.startsWith(prefix) && generationOf(uuid, nqn.slice(prefix.length)) !== null) {
    return { uuid, nqn };
  }
  throw new SvcError("invalid-argument", `Cannot ${what} ${uuid}: ${nqn} is not its NQN`);
}

export type Attachment = {
  readonly connect: ConnectOptions;
  /** Seconds that one I/O may take; null: the driver's default. */
  readonly ioTimeout: number | null;
};

/**
 * How to attach a volume, from its publish context.
 * @throws {SvcError} `invalid-argument`
 */
export function parseAttachment(
  { uuid }: Pick<VolumeName, "uuid">,
  publishContext: Readonly<Record<string, string>>,
  { nodeName, machineId, defaults }: Pick<NodeContext, "nodeName" | "machineId" | "defaults">,
): Attachment {
  const text = publishContext[URI_KEY];
  if (!text) throw new SvcError("invalid-argument", `Cannot stage volume ${uuid}: uri is missing`);
  const uri = parseNvmfUri(text);
  const { nqn } = publishedName("stage volume", uuid, text);
  const ioTimeout = connectionParameter(publishContext, PARAMETER.ioTimeout);
  const ctrlLossTmo = connectionParameter(publishContext, PARAMETER.ctrlLossTmo);
  const keepAliveTmo = connectionParameter(publishContext, PARAMETER.keepAliveTmo);
  const ownNqn = nodeHostNqn(nodeName);
  const hostNqn = uri.hostNqns.includes(ownNqn) ? ownNqn : uri.hostNqns[0];
  const quick = ioTimeout !== null && ioTimeout <= QUICK_RECONNECT_SECONDS_MAX;
  return {
    ioTimeout,
    connect: {
      nqn,
      address: uri.address,
      port: uri.port,
      hostNqn: hostNqn ?? `${HOST_NQN_PREFIX}:${machineId}`,
      keepAliveTmo: keepAliveTmo ?? defaults.keepAliveTmo,
      reconnectDelay: ioTimeout === null ? null : quick ? 1 : 10,
      // Documented: ioTimeout sets the loss timeout too, so that an outage ends in an error after that time.
      ctrlLossTmo: ctrlLossTmo ?? ioTimeout ?? defaults.ctrlLossTmo,
      nrIoQueues: connectionParameter(publishContext, PARAMETER.nrIoQueues) ?? defaults.nrIoQueues,
    },
  };
}
