/**
 * Requests of the CSI controller service, checked and turned into what the control plane understands.
 *
 * Invariant: pure; whatever the specification or the driver forbids ends in `invalid-argument` (or `out-of-range`,
 * `resource-exhausted` where the specification says so) with the field's name, before anything is asked of anyone.
 */
import {
  connectionParameter,
  type FileSystem,
  NODE_NAME_TOPOLOGY_KEY,
  PARAMETER,
  POOL_LABEL,
  PUBLISH_CONTEXT_KEYS,
  parseFileSystem,
  uint32Parameter,
  uuidOfVolumeName,
} from "#common/csi/driver.ts";
import { checkParameterNames, normalParameters } from "#common/csi/parameters.ts";
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
    const near = ["true", "false"].find((one) => one === value.trim().toLowerCase());
    const hint = near === undefined ? "" : `; write "${near}"`;
    throw refuse(what, `parameter ${key} is "${value}", neither "true" nor "false"${hint}`);
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

/** A topology that nodes of ours can have: they know their name and the driver's own segments, and nothing else. */
export function isCompatible({ segments: wished }: Topology, segments: StringMap): boolean {
  return Object.entries(wished).every(
    ([key, value]) => key === NODE_NAME_TOPOLOGY_KEY || segments[key] === value,
  );
}

/**
 * From where the volume may be used: where the driver's nodes are, or only on the nodes that a StorageClass names in
 * `allowedTopologies`. Without those the provisioner lists the nodes that there are now, each with all of its keys; such
 * a list is no restriction, because nodes that join later can use the volume just as well.
 * @throws {SvcError} `resource-exhausted` when no node can be in any of the topologies
 */
export function accessibleFrom(
  what: string,
  requisite: readonly Topology[],
  segments: StringMap,
): StringMap[] {
  if (requisite.length === 0) return [segments];
  const fitting = requisite.filter((one) => isCompatible(one, segments));
  if (fitting.length === 0) {
    const known = [
      ...Object.entries(segments).map((pair) => pair.join("=")),
      `${NODE_NAME_TOPOLOGY_KEY}=<node>`,
    ];
    throw new SvcError(
      "resource-exhausted",
      `Cannot ${what}: no requisite topology (allowedTopologies) has nodes that can use it; known are ${known.join(", ")}`,
    );
  }
  const isRestriction = fitting.every(
    ({ segments: wished }) =>
      NODE_NAME_TOPOLOGY_KEY in wished && Object.keys(segments).some((key) => !(key in wished)),
  );
  return isRestriction
    ? fitting.map(({ segments: wished }) => ({ ...segments, ...wished }))
    : [segments];
}

type Parameters = {
  readonly replicas: number;
  readonly thin: boolean;
  readonly group: string | null;
};

/** StorageClass parameters, of which those for the node are only looked at. @throws {SvcError} `invalid-argument` */
export function checkParameters(what: string, given: StringMap): Parameters {
  checkParameterNames(what, given);
  const parameters = normalParameters(given);
  checkProtocol(what, parameters);
  for (const key of PUBLISH_CONTEXT_KEYS) connectionParameter(parameters, key);
  parseFileSystem(parameters[PARAMETER.fsType] ?? "");
  const grouped = booleanParameter(what, parameters, PARAMETER.stsAffinityGroup);
  return {
    replicas: parseReplicas(what, parameters),
    thin: booleanParameter(what, parameters, PARAMETER.thin),
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
  /** Segments of the nodes that may use the volume. */
  readonly topologies: readonly StringMap[];
  readonly requiredBytes: number;
  readonly limitBytes: number | null;
};

/** @throws {SvcError} `invalid-argument`, `out-of-range`, `resource-exhausted` (no such topology) */
export function parseCreateVolume(
  request: CreateVolumeRequest,
  nodeSegments: StringMap,
): VolumeWish {
  const { name } = request;
  const parameters = normalParameters(request.parameters);
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
  const { replicas, thin, group } = checkParameters(what, request.parameters);
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
  const topologies = accessibleFrom(what, requisite, nodeSegments);
  return { uuid, body, topologies, ...range };
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
