/**
 * Names of the CSI driver that both its plugins and the manifests share, exactly as published: driver, topology
 * keys, StorageClass parameters, keys of the publish context, names of volumes.
 */
import { SvcError } from "../errors.ts";
import { isUuid } from "../ids.ts";

export const DRIVER_NAME = "io.openebs.csi-mayastor";
/** A Kubernetes node with a node plugin carries these labels and reports them as its topology. */
export const NODE_NAME_TOPOLOGY_KEY = "openebs.io/nodename";
export const NODE_SELECTOR_DEFAULT = "openebs.io/csi-node=mayastor";
/** Pools that the operator made: volumes of the driver live on no others. */
export const POOL_LABEL = { key: "openebs.io/created-by", value: "operator-diskpool" } as const;

/** The first one is the default. */
export const FILE_SYSTEMS = ["ext4", "xfs", "btrfs"] as const;
export type FileSystem = (typeof FILE_SYSTEMS)[number];

/** @throws {SvcError} `invalid-argument` */
export function parseFileSystem(text: string): FileSystem {
  if (text === "") return FILE_SYSTEMS[0];
  const known = FILE_SYSTEMS.find((name) => name === text);
  if (known === undefined) {
    throw new SvcError(
      "invalid-argument",
      `Cannot use file system "${text}": supported are ${FILE_SYSTEMS.join(", ")}`,
    );
  }
  return known;
}

export const PARAMETER = {
  replicas: "repl",
  protocol: "protocol",
  ioTimeout: "ioTimeout",
  ctrlLossTmo: "nvmeCtrlLossTmo",
  keepAliveTmo: "nvmeKeepAliveTmo",
  nrIoQueues: "nvmeNrIoQueues",
  fsType: "fsType",
  thin: "thin",
  stsAffinityGroup: "stsAffinityGroup",
  pvcName: "csi.storage.k8s.io/pvc/name",
  pvcNamespace: "csi.storage.k8s.io/pvc/namespace",
} as const;

/** Key of the device URI in the publish context; the others are named like their parameters. */
export const URI_KEY = "uri";
/** What the controller copies from the volume's parameters into the publish context. */
export const PUBLISH_CONTEXT_KEYS = [
  PARAMETER.ioTimeout,
  PARAMETER.ctrlLossTmo,
  PARAMETER.keepAliveTmo,
  PARAMETER.nrIoQueues,
] as const;

/**
 * A whole number of 32 bits; null when absent or empty.
 * @throws {SvcError} `invalid-argument`
 */
export function uint32Parameter(map: Readonly<Record<string, string>>, key: string): number | null {
  const text = map[key];
  if (text === undefined || text === "") return null;
  if (!/^\d{1,10}$/.test(text) || Number(text) > 0xffff_ffff) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read parameter ${key}: "${text}" is not a whole number of 32 bits`,
    );
  }
  return Number(text);
}

/** What the kernel takes: it keeps an I/O timeout as 32 bits of milliseconds, options of fabrics are signed. */
const CONNECTION_LIMITS: Readonly<Record<(typeof PUBLISH_CONTEXT_KEYS)[number], [number, number]>> =
  {
    [PARAMETER.ioTimeout]: [1, 4_294_967],
    [PARAMETER.ctrlLossTmo]: [0, 0x7fff_ffff],
    [PARAMETER.keepAliveTmo]: [0, 0x7fff_ffff],
    [PARAMETER.nrIoQueues]: [1, 0x7fff_ffff], // it makes as many as the node has CPUs, at most
  };

/**
 * One setting of a connection, in seconds (the number of queues: as it is); null when absent or empty.
 * @throws {SvcError} `invalid-argument` also when the kernel would refuse it
 */
export function connectionParameter(
  map: Readonly<Record<string, string>>,
  key: (typeof PUBLISH_CONTEXT_KEYS)[number],
): number | null {
  const value = uint32Parameter(map, key);
  const [min, max] = CONNECTION_LIMITS[key];
  if (value === null || (value >= min && value <= max)) return value;
  const unit = key === PARAMETER.nrIoQueues ? "" : " s";
  throw new SvcError(
    "invalid-argument",
    `Cannot read parameter ${key}: ${value}${unit} is not between ${min} and ${max}`,
  );
}

const VOLUME_NAME = /^pvc-(.+)$/;

/** Name that the provisioner gives to a volume and to its PersistentVolume. */
export const volumeName = (uuid: string): string => `pvc-${uuid}`;

/** The uuid in `pvc-<uuid>`, lower case; null when the name has another form. */
export function uuidOfVolumeName(name: string): string | null {
  const uuid = VOLUME_NAME.exec(name)?.[1]?.toLowerCase();
  return uuid !== undefined && isUuid(uuid) ? uuid : null;
}

/**
 * `key=value` pairs separated by commas; a key once only.
 * @throws {SvcError} `invalid-argument`
 */
export function parseNodeSelector(text: string): Readonly<Record<string, string>> {
  const segments: Record<string, string> = {};
  for (const pair of text.split(",")) {
    const [key, value, ...rest] = pair.split("=").map((part) => part.trim());
    if (!key || !value || rest.length > 0) {
      throw new SvcError("invalid-argument", `"${pair}" is not of the form key=value`);
    }
    if (key in segments) throw new SvcError("invalid-argument", `"${key}" is given twice`);
    segments[key] = value;
  }
  return segments;
}
