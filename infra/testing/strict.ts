/**
 * Strict validation of manifests against the current Kubernetes API, without a cluster.
 *
 * Why: an API server of a supported version drops or refuses what it does not know, and then only at
 * the user's. The generated models of @kubernetes/client-node know every field and its type; which
 * fields are required stands in their type declarations, which are read here.
 * Invariant: an unknown field, a value of another type, a missing required field and a word outside a
 * fixed set are all errors.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

type Attribute = {
  readonly name: string;
  readonly baseName: string;
  readonly type: string;
  readonly format: string;
};
/** Fields with a fixed set of values, which the models call string; by model and field. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  "V1Container.imagePullPolicy": ["Always", "IfNotPresent", "Never"],
  "V1ContainerPort.protocol": ["TCP", "UDP", "SCTP"],
  "V1CSIDriverSpec.fsGroupPolicy": ["None", "File", "ReadWriteOnceWithFSType"],
  "V1DaemonSetUpdateStrategy.type": ["OnDelete", "RollingUpdate"],
  "V1DeploymentStrategy.type": ["Recreate", "RollingUpdate"],
  "V1EmptyDirVolumeSource.medium": ["", "Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi"],
  "V1HostPathVolumeSource.type": [
    ...["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File"],
    ...["Socket", "CharDevice", "BlockDevice"],
  ],
  "V1NetworkPolicyPort.protocol": ["TCP", "UDP", "SCTP"],
  "V1PersistentVolumeSpec.persistentVolumeReclaimPolicy": ["Delete", "Retain", "Recycle"],
  "V1PodSpec.dnsPolicy": ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
  "V1PriorityClass.preemptionPolicy": ["PreemptLowerPriority", "Never"],
  "V1SeccompProfile.type": ["Localhost", "RuntimeDefault", "Unconfined"],
  "V1ServicePort.protocol": ["TCP", "UDP", "SCTP"],
  "V1ServiceSpec.type": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
  "V1StatefulSetSpec.podManagementPolicy": ["OrderedReady", "Parallel"],
  "V1StatefulSetUpdateStrategy.type": ["OnDelete", "RollingUpdate"],
  "V1StorageClass.reclaimPolicy": ["Delete", "Retain"],
  "V1StorageClass.volumeBindingMode": ["Immediate", "WaitForFirstConsumer"],
  "V1Toleration.effect": ["NoExecute", "NoSchedule", "PreferNoSchedule"],
  "V1Toleration.operator": ["Equal", "Exists"],
  "V1VolumeMount.mountPropagation": ["None", "HostToContainer", "Bidirectional"],
};

type Model = { readonly attributes: readonly Attribute[]; readonly required: ReadonlySet<string> };

const packageFile = createRequire(import.meta.url).resolve("@kubernetes/client-node");
const MODELS = path.join(path.dirname(packageFile), "gen", "models");
const loaded = new Map<string, Model>();

async function load(name: string): Promise<Model> {
  const known = loaded.get(name);
  if (known) return known;
  const file = path.join(MODELS, `${name}.js`);
  if (!existsSync(file)) throw new Error(`no model ${name} in @kubernetes/client-node`);
  // The generated module exports its class, which has the attribute table as a static member.
  const module = (await import(pathToFileURL(file).href)) as Record<
    string,
    { attributeTypeMap: readonly Attribute[] }
  >;
  const attributes = module[name]?.attributeTypeMap;
  if (attributes === undefined) throw new Error(`model ${name} has no attribute table`);
  const declaration = readFileSync(file.replace(/\.js$/, ".d.ts"), "utf8");
  const required = new Set(
    [...declaration.matchAll(/^ {4}'(\w+)': /gm)].map((match) => match[1] ?? ""),
  );
  const model = { attributes, required };
  loaded.set(name, model);
  return model;
}

/** "apps/v1 DaemonSet" to "V1DaemonSet". */
function modelName(apiVersion: string, kind: string): string {
  const version = apiVersion.split("/").at(-1) ?? "";
  return `${version.charAt(0).toUpperCase()}${version.slice(1)}${kind}`;
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const GROWN = /^(?:Array<(?<item>.+)>|Set<(?<member>.+)>|\{ \[key: string\]: (?<value>.+); \})$/;
const QUANTITY = /^-?\d+(\.\d+)?(m|k|Ki|[MGTPE]i?|e\d+)?$/;
/** Fields of the API's type Quantity, which the generator calls string. */
const QUANTITY_MAPS = new Set(["limits", "requests", "capacity"]);

async function checkType(
  value: unknown,
  { type, format }: { type: string; format: string },
  at: string,
): Promise<string[]> {
  const { item, member, value: inner } = GROWN.exec(type)?.groups ?? {};
  const element = item ?? member;
  if (element !== undefined) {
    if (!Array.isArray(value)) return [`${at}: a list is expected`];
    const each = value.map((one, index) =>
      checkType(one, { type: element, format }, `${at}[${index}]`),
    );
    return (await Promise.all(each)).flat();
  }
  if (inner !== undefined) {
    if (!isMap(value)) return [`${at}: a map is expected`];
    const each = Object.entries(value).map(([key, one]) =>
      checkType(one, { type: inner, format }, `${at}.${key}`),
    );
    return (await Promise.all(each)).flat();
  }
  switch (type) {
    case "any":
    case "object":
      return [];
    case "string":
    case "Date":
    case "V1MicroTime":
      return typeof value === "string" ? [] : [`${at}: text is expected`];
    case "boolean":
      return typeof value === "boolean" ? [] : [`${at}: true or false is expected`];
    case "number":
      if (typeof value !== "number") return [`${at}: a number is expected`];
      return format.startsWith("int") && !Number.isSafeInteger(value)
        ? [`${at}: a whole number is expected`]
        : [];
    case "IntOrString":
      return typeof value === "string" || Number.isSafeInteger(value)
        ? []
        : [`${at}: a whole number or text is expected`];
    default:
      return checkModel(value, type, at);
  }
}

async function checkModel(value: unknown, name: string, at: string): Promise<string[]> {
  if (!isMap(value)) return [`${at}: ${name} is expected`];
  const { attributes, required } = await load(name);
  const errors: string[] = [];
  for (const { name: property, baseName } of attributes) {
    if (required.has(property) && value[baseName] === undefined) {
      errors.push(`${at}.${baseName}: is required`);
    }
  }
  for (const [key, inner] of Object.entries(value)) {
    const attribute = attributes.find(({ baseName }) => baseName === key);
    if (attribute === undefined) {
      errors.push(`${at}.${key}: ${name} has no such field`);
    } else if (inner === null || inner === undefined) {
      errors.push(`${at}.${key}: is null`);
    } else {
      errors.push(...(await checkType(inner, attribute, `${at}.${key}`)));
      const allowed = ALLOWED[`${name}.${key}`];
      if (allowed && typeof inner === "string" && !allowed.includes(inner)) {
        errors.push(`${at}.${key}: must be one of ${allowed.join(", ")}`);
      }
      if (QUANTITY_MAPS.has(key) && isMap(inner)) {
        for (const [resource, amount] of Object.entries(inner)) {
          if (typeof amount !== "string" || !QUANTITY.test(amount)) {
            errors.push(`${at}.${key}.${resource}: is no quantity`);
          }
        }
      }
    }
  }
  return errors;
}

/** What is wrong with a manifest of a built-in kind; empty when nothing is. */
export async function strictErrors(manifest: {
  readonly apiVersion: string;
  readonly kind: string;
}): Promise<readonly string[]> {
  const { apiVersion, kind } = manifest;
  return checkModel(manifest, modelName(apiVersion, kind), kind);
}
