/**
 * The kinds of values: each has a default and a description, and knows its form.
 * Invariant: a group is never missing, because its default is the empty object that its members fill.
 */
import { type Static, type TSchema, Type } from "typebox";

type Properties = Readonly<Record<string, TSchema>>;
export const group = <P extends Properties>(properties: P) =>
  Type.Object(properties, { default: {}, additionalProperties: false });
export const text = (preset: string, description: string) =>
  Type.String({ default: preset, description });
export const flag = (preset: boolean, description: string) =>
  Type.Boolean({ default: preset, description });
export const count = (preset: number, description: string, minimum = 0) =>
  Type.Integer({ default: preset, description, minimum });
export const choice = <const V extends readonly string[]>(
  values: V,
  preset: V[number],
  what: string,
) => Type.Enum([...values] as unknown as V, { default: preset, description: what });
export const map = (preset: Readonly<Record<string, string>>, description: string) =>
  Type.Record(Type.String(), Type.String(), { default: preset, description });

const QUANTITY = "^(|[0-9]+(\\.[0-9]+)?(m|[kMGTPE]i?)?)$";
export const quantity = (preset: string, description: string) =>
  Type.String({ default: preset, description, pattern: QUANTITY });
const DURATION = "^(|([0-9]+(ms|s|m|h|d))+)$";
export const duration = (preset: string, description: string) =>
  Type.String({ default: preset, description, pattern: DURATION });
const PERCENT = "^[0-9]+%$";
export const percent = (preset: string, description: string) =>
  Type.String({ default: preset, description, pattern: PERCENT });
const PORT_MAX = 65_535;
export const nodePort = (preset: number | "", description: string) =>
  Type.Union([Type.Integer({ minimum: 1, maximum: PORT_MAX }), Type.Literal("")], {
    default: preset,
    description,
  });

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"] as const;
export const logLevel = () => choice(LOG_LEVELS, "info", "Log level.");
export const PULL_POLICIES = ["Always", "IfNotPresent", "Never"] as const;
export const SERVICE_TYPES = ["ClusterIP", "NodePort", "LoadBalancer"] as const;
export const RECLAIM_POLICIES = ["Delete", "Retain"] as const;

export const Toleration = Type.Object(
  {
    key: Type.Optional(Type.String()),
    operator: Type.Optional(Type.Enum(["Exists", "Equal"])),
    value: Type.Optional(Type.String()),
    effect: Type.Optional(Type.Enum(["NoSchedule", "PreferNoSchedule", "NoExecute"])),
    tolerationSeconds: Type.Optional(Type.Integer()),
  },
  { additionalProperties: false },
);
export const tolerations = (description: string) =>
  Type.Array(Toleration, { default: [], description });
export const placement = () => ({
  tolerations: tolerations("Instead of the global tolerations, unless empty."),
  priorityClassName: text("", "Instead of the global priority class, unless empty."),
});

type Four = readonly [cpuLimit: string, memoryLimit: string, cpuRequest: string, memory: string];
export const resources = ([cpuLimit, memoryLimit, cpu, memory]: Four) =>
  group({
    limits: group({
      cpu: quantity(cpuLimit, "Most CPU."),
      memory: quantity(memoryLimit, "Most memory."),
    }),
    requests: group({
      cpu: quantity(cpu, "Reserved CPU."),
      memory: quantity(memory, "Reserved memory."),
    }),
  });

const exactly = { additionalProperties: false } as const;
const Amounts = Type.Record(Type.String(), Type.String({ pattern: QUANTITY }));
const Words = Type.Array(Type.String());
const INIT_CONTAINER = {
  name: Type.String(),
  image: Type.String(),
  command: Type.Optional(Words),
  args: Type.Optional(Words),
  env: Type.Optional(
    Type.Array(Type.Object({ name: Type.String(), value: Type.Optional(Type.String()) }, exactly)),
  ),
  imagePullPolicy: Type.Optional(Type.Enum(PULL_POLICIES)),
  resources: Type.Optional(
    Type.Object({ limits: Type.Optional(Amounts), requests: Type.Optional(Amounts) }, exactly),
  ),
  securityContext: Type.Optional(
    Type.Object(
      {
        allowPrivilegeEscalation: Type.Optional(Type.Boolean()),
        capabilities: Type.Optional(
          Type.Object({ add: Type.Optional(Words), drop: Type.Optional(Words) }, exactly),
        ),
        privileged: Type.Optional(Type.Boolean()),
        readOnlyRootFilesystem: Type.Optional(Type.Boolean()),
        runAsGroup: Type.Optional(Type.Integer({ minimum: 0 })),
        runAsNonRoot: Type.Optional(Type.Boolean()),
        runAsUser: Type.Optional(Type.Integer({ minimum: 0 })),
      },
      exactly,
    ),
  ),
};
/** What an init container may say; where it is used decides the rest. */
export const InitContainerSchema = Type.Object(INIT_CONTAINER, exactly);
/** The same with the volume that it prepares. */
export const VolumeInitContainerSchema = Type.Object(
  {
    ...INIT_CONTAINER,
    volumeMounts: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Type.String(),
            mountPath: Type.String(),
            readOnly: Type.Optional(Type.Boolean()),
            subPath: Type.Optional(Type.String()),
          },
          exactly,
        ),
      ),
    ),
  },
  exactly,
);
export type InitContainer = Static<typeof InitContainerSchema>;
/** Small, has `nc`, and pinned. */
export const PROBE_IMAGE = "busybox:1.36.1";
export const waitFor = (name: string, service: string, port: number): InitContainer => ({
  name,
  image: PROBE_IMAGE,
  command: [
    "sh",
    "-c",
    `trap "exit 1" TERM; until nc -vzw 5 {{ .Release.Name }}-${service} ${port}; do date; echo "Waiting for ${service}..."; sleep 1; done;`,
  ],
});
export const initContainers = (preset: readonly InitContainer[], description: string) =>
  Type.Array(InitContainerSchema, {
    default: preset,
    description: `${description} \`{{ .Release.Name }}\` stands for the release.`,
  });
