/**
 * Requests of the CSI controller service, checked and turned into what the control plane understands.
 *
 * Invariant: pure; whatever the specification or the driver forbids ends in `invalid-argument` (or `out-of-range`,
 * `resource-exhausted` where the specification says so) with the field's name, before anything is asked of anyone.
 */
import {
  type FileSystem,
  PARAMETER,
  POOL_LABEL,
  PUBLISH_CONTEXT_KEYS,
  parseFileSystem,
  timeoutParameter,
  uint32Parameter,
  uuidOfVolumeName,
} from "#common/csi/driver.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import type { CreateVolumeBody } from "#common/openapi/model.ts";
import {
  type CapacityRange,
  type CreateVolumeRequest,
  VolumeCapability_AccessMode_Mode as Mode,
  type Topology,
  type ValidateVolumeCapabilitiesRequest,
  type VolumeCapability,
} from "#common/proto/generated/csi/v1/csi_pb.ts";
import { toSafeNumber } from "#common/units.ts";
import { VOLUME_GRANULE_BYTES, volumeSizeFor, volumeSizeMin } from "#common/volume_size.ts";

type StringMap = Readonly<Record<string, string>>;

const REPLICAS_MAX = 255;
/** Of a StatefulSet's claims: the template's and the set's name, then the ordinal of the pod. */
const STATEFUL_SET_CLAIM = /^([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)-\d+$/;

function refuse(what: string, why: string): SvcError {
  return new SvcError("invalid-argument", `Cannot ${what}: ${why}`);
}

/** @throws {SvcError} `invalid-argument` when the field is empty */
export function required(what: string, field: string, value: string): string {
  if (value === "") throw refuse(what, `${field} is missing`);
  return value;
}

/** The volume can be used this way: by one node, as a block device or with a file system of ours. */
export function isSupported(capability: VolumeCapability): boolean {
  const { accessMode, accessType } = capability;
  if (accessMode?.mode !== Mode.SINGLE_NODE_WRITER || accessType.case === undefined) return false;
  if (accessType.case === "block") return true;
  try {
    parseFileSystem(accessType.value.fsType);
    return true;
  } catch {
    return false; // the reason is for checkCapability()
  }
}

/** @throws {SvcError} `invalid-argument` */
export function checkCapability(what: string, capability: VolumeCapability | undefined): void {
  if (capability === undefined) throw refuse(what, "volume capability is missing");
  const { accessMode, accessType } = capability;
  if (accessMode === undefined || accessMode.mode === Mode.UNKNOWN) {
    throw refuse(what, "access mode is missing");
  }
  if (accessMode.mode !== Mode.SINGLE_NODE_WRITER) {
    throw refuse(what, "only access mode SINGLE_NODE_WRITER (ReadWriteOnce) is supported");
  }
  switch (accessType.case) {
    case "block":
      return;
    case "mount":
      parseFileSystem(accessType.value.fsType);
      return;
    default:
      throw refuse(what, "access type is missing: neither block nor mount");
  }
}

/** @throws {SvcError} `invalid-argument` */
export function checkProtocol(what: string, parameters: StringMap): void {
  const protocol = parameters[PARAMETER.protocol] ?? "nvmf";
  if (protocol !== "nvmf") {
    throw refuse(what, `protocol "${protocol}" is not supported, only nvmf`);
  }
}

function booleanParameter(what: string, parameters: StringMap, key: string): boolean {
  const value = parameters[key] ?? "false";
  if (value !== "true" && value !== "false") {
    throw refuse(what, `parameter ${key} is "${value}", neither true nor false`);
  }
  return value === "true";
}

/** Group of the claims that one StatefulSet's template makes; null when the claim is of no such set. */
export function affinityGroup(parameters: StringMap): string | null {
  const namespace = parameters[PARAMETER.pvcNamespace];
  const set = STATEFUL_SET_CLAIM.exec(parameters[PARAMETER.pvcName] ?? "")?.[1];
  return namespace && set ? `${namespace}/${set}` : null;
}

function parseReplicas(what: string, parameters: StringMap): number {
  const replicas = uint32Parameter(parameters, PARAMETER.replicas) ?? 1;
  if (replicas < 1 || replicas > REPLICAS_MAX) {
    throw refuse(what, `parameter ${PARAMETER.replicas} must be 1 to ${REPLICAS_MAX}`);
  }
  return replicas;
}

export type Size = {
  /** What is asked of the control plane: rounded up to what it makes, and to what the file system takes. */
  readonly bytes: number;
  readonly requiredBytes: number;
  readonly limitBytes: number | null;
};

/** The file system that a volume is to hold; null: none, it is used as a block device. Of several the most demanding. */
export function fileSystemsOf(
  capabilities: readonly VolumeCapability[],
  parameters: StringMap,
): (FileSystem | null)[] {
  return capabilities.map(({ accessType }) =>
    accessType.case === "mount"
      ? parseFileSystem(accessType.value.fsType || (parameters[PARAMETER.fsType] ?? ""))
      : null,
  );
}

/**
 * A volume is never smaller than what can be used the way that is asked for: a claim that is bound and can never be
 * mounted helps nobody.
 * @throws {SvcError} `invalid-argument`, `out-of-range`
 */
export function parseSize(
  what: string,
  range: CapacityRange | undefined,
  fileSystems: readonly (FileSystem | null)[] = [],
): Size {
  const { requiredBytes = 0n, limitBytes = 0n } = range ?? {};
  if (requiredBytes < 0n || limitBytes < 0n) throw refuse(what, "capacity range is negative");
  if (requiredBytes === 0n) throw refuse(what, "required_bytes of the capacity range is missing");
  if (limitBytes !== 0n && limitBytes < requiredBytes) {
    throw new SvcError("out-of-range", `Cannot ${what}: limit_bytes is below required_bytes`);
  }
  const required = toSafeNumber(requiredBytes);
  const least = Math.max(...[null, ...fileSystems].map(volumeSizeMin));
  const bytes = volumeSizeFor(Math.max(required, least));
  if (limitBytes !== 0n && BigInt(bytes) > limitBytes) {
    const why =
      required < least
        ? `${least} bytes are the least that it can be used with`
        : `sizes are rounded up to ${VOLUME_GRANULE_BYTES} bytes`;
    throw new SvcError(
      "out-of-range",
      `Cannot ${what}: it would have ${bytes} bytes (${why}), and limit_bytes is ${limitBytes}`,
    );
  }
  return {
    bytes,
    requiredBytes: required,
    limitBytes: limitBytes === 0n ? null : Number(limitBytes), // only compared with
  };
}

/** A wish for a topology that names none of our keys, or names them with our values. */
export function isCompatible(wished: Topology, segments: StringMap): boolean {
  return Object.entries(wished.segments).every(
    ([key, value]) => segments[key] === undefined || segments[key] === value,
  );
}

type Parameters = {
  readonly replicas: number;
  readonly thin: boolean;
  readonly group: string | null;
};

/** StorageClass parameters, of which those for the node are only looked at. @throws {SvcError} `invalid-argument` */
export function checkParameters(what: string, parameters: StringMap): Parameters {
  checkProtocol(what, parameters);
  for (const key of PUBLISH_CONTEXT_KEYS) timeoutParameter(parameters, key);
  uint32Parameter(parameters, PARAMETER.nrIoQueues);
  parseFileSystem(parameters[PARAMETER.fsType] ?? "");
  const grouped = booleanParameter(what, parameters, PARAMETER.stsAffinityGroup);
  return {
    replicas: parseReplicas(what, parameters),
    thin: parameters[PARAMETER.thin] === "true",
    group: grouped ? affinityGroup(parameters) : null,
  };
}

/** Why a volume cannot be confirmed to be usable in all the ways that are asked for; null when it can. */
export function whyUnconfirmed(
  what: string,
  request: Pick<
    ValidateVolumeCapabilitiesRequest,
    "volumeCapabilities" | "volumeContext" | "parameters" | "mutableParameters"
  >,
): string | null {
  if (Object.keys(request.mutableParameters).length > 0) {
    return "Mutable parameters are not supported";
  }
  try {
    for (const capability of request.volumeCapabilities) checkCapability(what, capability);
    checkParameters(what, request.volumeContext); // what CreateVolume was given
    checkParameters(what, request.parameters);
    return null;
  } catch (error) {
    return errorMessage(error);
  }
}

export type VolumeWish = {
  readonly uuid: string;
  readonly body: CreateVolumeBody;
  readonly requiredBytes: number;
  readonly limitBytes: number | null;
};

/** @throws {SvcError} `invalid-argument`, `out-of-range`, `resource-exhausted` (no such topology) */
export function parseCreateVolume(
  request: CreateVolumeRequest,
  nodeSegments: StringMap,
): VolumeWish {
  const { name, parameters } = request;
  required("create volume", "name", name);
  const what = `create volume ${name}`;
  const uuid = uuidOfVolumeName(name);
  if (uuid === null) throw refuse(what, "its name is not of the form pvc-<uuid>");
  if (request.volumeContentSource !== undefined) {
    throw refuse(what, "a content source is not supported");
  }
  if (Object.keys(request.mutableParameters).length > 0) {
    throw refuse(what, "mutable parameters are not supported");
  }
  if (request.volumeCapabilities.length === 0) throw refuse(what, "it has no capabilities");
  for (const capability of request.volumeCapabilities) checkCapability(what, capability);
  const { replicas, thin, group } = checkParameters(what, parameters);
  const fileSystems = fileSystemsOf(request.volumeCapabilities, parameters);
  const { bytes, ...range } = parseSize(what, request.capacityRange, fileSystems);
  const body: CreateVolumeBody = {
    policy: { self_heal: true },
    replicas,
    size: bytes,
    thin,
    topology: {
      pool_topology: {
        labelled: { exclusion: {}, inclusion: { [POOL_LABEL.key]: POOL_LABEL.value } },
      },
    },
    ...(group === null ? {} : { affinity_group: { id: group } }),
  };
  const requisite = request.accessibilityRequirements?.requisite ?? [];
  if (requisite.length > 0 && !requisite.some((one) => isCompatible(one, nodeSegments))) {
    throw new SvcError(
      "resource-exhausted",
      `Cannot ${what}: no requisite topology has nodes that can use it`,
    );
  }
  return { uuid, body, ...range };
}

/** @throws {SvcError} `aborted` when it is not a token that an earlier page returned */
export function parseToken(token: string): number {
  if (token === "") return 0;
  if (!/^\d{1,15}$/.test(token)) {
    throw new SvcError(
      "aborted",
      `Cannot list volumes: starting token "${token}" is not one of ours`,
    );
  }
  return Number(token);
}
