/**
 * Which StorageClass parameters there are, and what is said to others.
 *
 * Why: a misspelt parameter that is left out gives a volume that nobody asked for (one replica, not three), and it shows
 * only when a disk is lost.
 * Invariants: pure; a parameter is known, belongs to Kubernetes' sidecars, or is refused with what was probably meant.
 */
import { SvcError } from "../errors.ts";
import { PARAMETER } from "./driver.ts";

type StringMap = Readonly<Record<string, string>>;

/** Added or obeyed by Kubernetes itself: the provisioner's metadata, secrets, its identity in a volume's attributes. */
const SIDECAR_PREFIXES = ["csi.storage.k8s.io/", "storage.kubernetes.io/"] as const;

const NAMES = Object.values(PARAMETER).filter((name) => !name.includes("/"));

/** Other words for the same, in the form that `simplified()` gives. */
const MEANT: Readonly<Record<string, string>> = {
  replica: PARAMETER.replicas,
  replicas: PARAMETER.replicas,
  replication: PARAMETER.replicas,
  replicationfactor: PARAMETER.replicas,
  replicacount: PARAMETER.replicas,
  replicascount: PARAMETER.replicas,
  replcount: PARAMETER.replicas,
  numreplicas: PARAMETER.replicas,
  numberofreplicas: PARAMETER.replicas,
  filesystem: PARAMETER.fsType,
  filesystemtype: PARAMETER.fsType,
  thinprovision: PARAMETER.thin,
  thinprovisioned: PARAMETER.thin,
  thinprovisioning: PARAMETER.thin,
  timeout: PARAMETER.ioTimeout,
  iotimeoutseconds: PARAMETER.ioTimeout,
  affinitygroup: PARAMETER.stsAffinityGroup,
};

/** Names that other releases and drivers have for what this one cannot do, in the form that `simplified()` gives. */
const NOT_OFFERED: Readonly<Record<string, string>> = {
  encrypted: "encryption",
  encryption: "encryption",
  nodeaffinitytopologylabel: "placement by labels",
  nodehastopologykey: "placement by labels",
  nodespreadtopologykey: "placement by labels",
  poolaffinitytopologylabel: "placement by labels",
  poolhastopologykey: "placement by labels",
  poolclustersize: "a cluster size by volume",
  maxsnapshots: "snapshots through Kubernetes",
  quiescefs: "snapshots through Kubernetes",
  clonefsidasvolumeid: "clones through Kubernetes",
};

const simplified = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, "");

/** Insertions, deletions and replacements of one character that lead from one word to the other. */
function editDistance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    above = row;
  }
  return above[b.length] ?? 0;
}

/** Longer than every name here: what is longer is like none of them. */
const NAME_LENGTH_MAX = 64;

/** The known name that was probably meant; null when none is like it. */
export function nearestParameter(name: string): string | null {
  const given = simplified(name.slice(0, NAME_LENGTH_MAX));
  const meant = MEANT[given];
  if (meant !== undefined) return meant;
  const [best] = NAMES.map((known) => ({
    known,
    far: editDistance(given, simplified(known)),
  })).sort((a, b) => a.far - b.far);
  // A third of the letters may be wrong: beyond that any two words are alike.
  return best && best.far <= Math.max(1, Math.floor(best.known.length / 3)) ? best.known : null;
}

/** The provisioner takes `fsType` in any spelling, and passes it on as it was written. */
const isFsType = (name: string): boolean =>
  name.toLowerCase() === PARAMETER.fsType.toLowerCase() && name !== PARAMETER.fsType;

/** As the rest of the program reads them: `fsType` is spelt as it is here. */
export function normalParameters(parameters: StringMap): StringMap {
  const other = Object.keys(parameters).find(isFsType);
  if (other === undefined || PARAMETER.fsType in parameters) return parameters;
  const { [other]: value = "", ...rest } = parameters;
  return { ...rest, [PARAMETER.fsType]: value };
}

/** Names that mean nothing to this driver and nothing to Kubernetes. */
export function unknownParameters(parameters: StringMap): string[] {
  return Object.keys(parameters).filter(
    (name) =>
      !NAMES.some((known) => known === name) &&
      !isFsType(name) &&
      !SIDECAR_PREFIXES.some((prefix) => name.startsWith(prefix)),
  );
}

/** @throws {SvcError} `invalid-argument` with the name that was probably meant */
export function checkParameterNames(what: string, parameters: StringMap): void {
  const [name] = unknownParameters(parameters);
  if (name !== undefined) {
    const quoted = JSON.stringify(name.slice(0, NAME_LENGTH_MAX));
    const lacking = NOT_OFFERED[simplified(name)];
    const nearest = nearestParameter(name);
    const hint =
      lacking !== undefined
        ? `${lacking} is not offered by this driver; remove the parameter`
        : nearest === null
          ? `known are ${NAMES.join(", ")}`
          : `did you mean "${nearest}"?`;
    throw new SvcError(
      "invalid-argument",
      `Cannot ${what}: parameter ${quoted} is not known: ${hint}`,
    );
  }
  const given = Object.keys(parameters).filter((key) => key === PARAMETER.fsType || isFsType(key));
  if (given.length > 1) {
    throw new SvcError(
      "invalid-argument",
      `Cannot ${what}: parameter ${PARAMETER.fsType} is given ${given.length} times: ${given.join(", ")}`,
    );
  }
  for (const key of NAMES) {
    if (parameters[key] !== "" || key === PARAMETER.fsType) continue;
    throw new SvcError("invalid-argument", `Cannot ${what}: parameter ${key} is empty`);
  }
}
