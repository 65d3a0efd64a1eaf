/**
 * What the pods of the installation have in common: images, resources, security, environment, waiting.
 * Invariant: a container gets the least it runs with; a chart that gives more says why.
 */
import type { Install } from "../config.ts";
import { imageName, isOriginalPlace, LOCAL_PLACE } from "../images.ts";
import { type Component, LOGGING_LABEL, UID, VERSION_LABEL } from "../names.ts";
import { canonicalQuantity } from "../quantity.ts";
import type { InitContainer } from "../value_types.ts";
import type { Values } from "../values.ts";
import type {
  Container,
  EnvVar,
  InstallChart,
  Labels,
  PodSpec,
  Probe,
  ResourceRequirements,
  SecurityContext,
  Toleration,
  Volume,
  VolumeMount,
} from "./kube.ts";

/** Replaces the one template expression that values may hold. */
export function forRelease(text: string, { release }: Install): string {
  return text.replaceAll(/\{\{\s*\.Release\.Name\s*\}\}/g, release);
}

type ImageSource = "controlPlane" | "dataPlane" | "extensions";

/** The reference of one of our own images. */
export function ownImage({ values, version }: Install, program: string, from: ImageSource): string {
  const { image } = values;
  const own = `v${version}`;
  // Tags of another project's images name nothing of this release either.
  if (isOriginalPlace(image)) return `${imageName(LOCAL_PLACE, program)}:${own}`;
  return `${imageName(image, program)}:${image.repoTags[from] || image.tag || own}`;
}

/** The reference of a sidecar of the Kubernetes CSI project. */
export function csiImage({ csi }: Values, name: string, tag: string): string {
  return [csi.image.registry, csi.image.repo, `${name}:${tag}`]
    .filter((part) => part !== "")
    .join("/");
}

/** A program that needs nothing of its node. */
export const UNPRIVILEGED: SecurityContext = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ["ALL"] },
  readOnlyRootFilesystem: true,
  runAsGroup: UID.agent,
  runAsNonRoot: true,
  runAsUser: UID.agent,
};

/** Makes a volume's files belong to its user: root, with that one ability. */
export const CHOWN_ONLY: SecurityContext = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE", "FOWNER"] },
  readOnlyRootFilesystem: true,
  runAsNonRoot: false,
  runAsUser: 0,
};

/** The system calls a container runtime allows by default. */
export const DEFAULT_SECCOMP = { seccompProfile: { type: "RuntimeDefault" } } as const;

type ResourceValues = {
  readonly limits: { readonly cpu: string; readonly memory: string };
  readonly requests: { readonly cpu: string; readonly memory: string };
};

const stated = (amounts: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(amounts)
      .filter(([, amount]) => amount !== "")
      .map(([name, amount]) => [name, canonicalQuantity(amount)]),
  );

/** Leaves out what is empty. */
export function resourcesOf({ limits, requests }: ResourceValues): ResourceRequirements {
  const [most, least] = [stated(limits), stated(requests)];
  return {
    ...(Object.keys(most).length > 0 ? { limits: most } : {}),
    ...(Object.keys(least).length > 0 ? { requests: least } : {}),
  };
}

/** For what waits, prepares and goes away. */
export const SMALL: ResourceRequirements = {
  limits: { cpu: "100m", memory: "32Mi" },
  requests: { cpu: "10m", memory: "8Mi" },
};

/**
 * The same in a pod that is to keep whole cores under a static CPU policy: one container whose requests are below its limits,
 * an init container too, takes them away from the others.
 */
export const SMALL_GUARANTEED: ResourceRequirements = {
  limits: { cpu: "100m", memory: "32Mi" },
  requests: { cpu: "100m", memory: "32Mi" },
};

export function logEnv({ values }: Install, level: string): EnvVar[] {
  const silence = values.base.logSilenceLevel;
  return [
    { name: "RUST_LOG", value: level },
    ...(silence === null ? [] : [{ name: "RUST_LOG_SILENCE", value: silence }]),
  ];
}

const field = (name: string, fieldPath: string): EnvVar => ({
  name,
  valueFrom: { fieldRef: { fieldPath } },
});
export const POD_NAME = field("MY_POD_NAME", "metadata.name");
export const POD_NAMESPACE = field("MY_POD_NAMESPACE", "metadata.namespace");
export const POD_IP = field("MY_POD_IP", "status.podIP");
export const NODE_NAME = field("MY_NODE_NAME", "spec.nodeName");

/** Scratch space: programs run from a read-only image, and the TypeScript loader caches there. */
export const TMP_VOLUME: Volume = { name: "tmp", emptyDir: { sizeLimit: "256Mi" } };
export const TMP_MOUNT: VolumeMount = { name: "tmp", mountPath: "/tmp" };

/** Without a type the folder may be missing. */
export function hostPath(name: string, path: string, type?: string): Volume {
  return { name, hostPath: { path, ...(type === undefined ? {} : { type }) } };
}

type InitDefaults = {
  readonly resources: ResourceRequirements;
  readonly securityContext: SecurityContext;
};

/** An init container of the values; what it leaves out comes from `defaults`. */
export function initContainer(
  install: Install,
  container: InitContainer,
  defaults: InitDefaults,
): Container {
  const { name, image, command, args, env, imagePullPolicy = "IfNotPresent" } = container;
  const words = (text: readonly string[]) => text.map((word) => forRelease(word, install));
  return {
    name,
    image,
    imagePullPolicy,
    ...(command === undefined ? {} : { command: words(command) }),
    ...(args === undefined ? {} : { args: words(args) }),
    ...(env === undefined ? {} : { env }),
    resources: container.resources ?? defaults.resources,
    securityContext: { ...defaults.securityContext, ...container.securityContext },
  };
}

/** Containers that wait until what the pod needs answers. */
export function waitContainers(
  install: Install,
  { enabled, containers }: { enabled: boolean; containers: readonly InitContainer[] },
  resources: ResourceRequirements = SMALL,
): Container[] {
  if (!enabled) return [];
  return containers.map((container) =>
    initContainer(install, container, { resources, securityContext: UNPRIVILEGED }),
  );
}

/**
 * For a readiness probe of our own programs: each waits for another's Service in turn, so a long period is waited out
 * at every link of that chain when the installation starts or a pod is replaced.
 */
export const QUICKLY_READY = { periodSeconds: 2, failureThreshold: 5 } as const;

export function tcpProbe(port: number, timing: Omit<Probe, "tcpSocket"> = {}): Probe {
  return { tcpSocket: { port }, periodSeconds: 10, timeoutSeconds: 5, ...timing };
}

export function httpProbe(
  { port, path }: { port: number; path: string },
  timing: Omit<Probe, "httpGet"> = {},
): Probe {
  return { httpGet: { port, path }, periodSeconds: 10, timeoutSeconds: 5, ...timing };
}

/** Labels of a pod: what selectors use, what log collection looks for, and the version. */
export function podLabels(chart: InstallChart, component: Component): Labels {
  return {
    ...chart.selector(component),
    [LOGGING_LABEL]: "true",
    [VERSION_LABEL]: chart.install.version,
  };
}

type Placement = {
  readonly tolerations: readonly Toleration[];
  readonly priorityClassName: string;
};
type PlacementOptions = {
  /** Goes away from a dead node soon, and is not evicted for lesser pods. */
  readonly critical?: boolean;
  readonly nodeSelector?: Labels;
};

/** Where a pod may run and how important it is: its own values, else the global ones. */
export function placementOf(
  { values, release }: Install,
  own: Placement,
  { critical = false, nodeSelector = values.nodeSelector }: PlacementOptions = {},
): Partial<PodSpec> {
  const tolerations = [
    ...(own.tolerations.length > 0 ? own.tolerations : values.tolerations),
    ...(critical ? values.earlyEvictionTolerations : []),
  ];
  const fallback = critical ? `${release}-cluster-critical` : "";
  const priorityClassName = own.priorityClassName || values.priorityClassName || fallback;
  return {
    ...(Object.keys(nodeSelector).length > 0 ? { nodeSelector } : {}),
    ...(tolerations.length > 0 ? { tolerations } : {}),
    ...(priorityClassName === "" ? {} : { priorityClassName }),
  };
}

export function pullSecrets({ values }: Install): Partial<PodSpec> {
  const { enabled, secrets } = values.base.imagePullSecrets;
  return enabled && secrets.length > 0 ? { imagePullSecrets: secrets } : {};
}

/** A pod whose service account has rights mounts its token; all others have none to lose. */
export function identity(serviceAccountName: string, { token }: { token: boolean }) {
  return { serviceAccountName, automountServiceAccountToken: token };
}

/** Pods on the host's network still find Services by name. */
export const HOST_NETWORK = { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" } as const;
