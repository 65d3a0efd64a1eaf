/**
 * Install values: every documented Helm value by its documented name, and a few of our own.
 *
 * Why one schema: it is the type that charts read, the validation of what users write, the defaults,
 * and the table in README.md.
 * Invariant: a value that would have no effect says so in its description or is refused by check_values.ts.
 */
import { type Static, Type } from "typebox";
import { FILE_SYSTEMS } from "#common/csi/driver.ts";
import { LOCAL_PLACE } from "./images.ts";
import {
  choice,
  count,
  duration,
  flag,
  group,
  initContainers,
  logLevel,
  map,
  nodePort,
  PROBE_IMAGE,
  PULL_POLICIES,
  percent,
  placement,
  quantity,
  RECLAIM_POLICIES,
  resources,
  SERVICE_TYPES,
  Toleration,
  text,
  tolerations,
  VolumeInitContainerSchema,
  waitFor,
} from "./value_types.ts";

const agentCoreProbe = waitFor("agent-core-grpc-probe", "agent-core", 50051);
const etcdProbe = waitFor("etcd-probe", "etcd", 2379);
const NO_EFFECT = "Accepted, no effect: ";
const noJaeger = `${NO_EFFECT}no Jaeger is installed.`;
const noHa = `${NO_EFFECT}the ha agents are not in this release.`;
const noCallhome = `${NO_EFFECT}nothing calls home.`;
const noPsp = `${NO_EFFECT}Kubernetes has no pod security policies any more.`;

/** Which components this release has programs for; a default becomes true together with its program. */
const components = group({
  csi: flag(true, "csi-controller, csi-node, CSIDriver and storage classes."),
  diskpoolOperator: flag(true, "operator-diskpool and the DiskPool CRD."),
  metricsExporter: flag(
    true,
    "The metrics-exporter-pool sidecar (also needs base.metrics.enabled).",
  ),
});

const image = group({
  registry: text(
    LOCAL_PLACE.registry,
    "Registry of our images: where they were pushed; localhost: loaded into the nodes, pulled from nowhere.",
  ),
  repo: text(LOCAL_PLACE.repo, "Repository within the registry."),
  tag: text("", "Tag of our images; empty: the version of this release."),
  repoTags: group({
    controlPlane: text("", "Tag of agent-core, api-rest, csi-*, operator-diskpool, unless empty."),
    dataPlane: text("", "Tag of io-engine, unless empty."),
    extensions: text("", "Tag of metrics-exporter-pool, unless empty."),
  }),
  pullPolicy: choice(PULL_POLICIES, "IfNotPresent", "When our images are pulled."),
});

const base = group({
  default_req_timeout: duration("5s", "Limit of a request between components."),
  cache_poll_period: duration("30s", "How often agent-core and operator-diskpool read everything."),
  logSilenceLevel: Type.Union([Type.String(), Type.Null()], {
    default: null,
    description: `RUST_LOG_SILENCE of the agents. ${NO_EFFECT}their logs have no such targets.`,
  }),
  initContainers: group({
    enabled: flag(true, "api-rest, operator-diskpool and io-engine wait for what they need."),
    containers: initContainers([agentCoreProbe, etcdProbe], "What they wait for."),
  }),
  initHaNodeContainers: group({
    enabled: flag(true, noHa),
    containers: initContainers([waitFor("agent-cluster-grpc-probe", "agent-core", 50052)], noHa),
  }),
  initCoreContainers: group({
    enabled: flag(true, "agent-core waits for etcd."),
    containers: initContainers([etcdProbe], "What it waits for."),
  }),
  initRestContainer: group({
    enabled: flag(true, "csi-controller waits for api-rest."),
    initContainer: initContainers(
      [waitFor("api-rest-probe", "api-rest", 8081)],
      "What it waits for.",
    ),
  }),
  imagePullSecrets: group({
    enabled: flag(false, "Whether pods name the secrets below."),
    secrets: Type.Array(Type.Object({ name: Type.String() }, { additionalProperties: false }), {
      default: [{ name: "login" }],
      description: "Secrets with registry credentials; they are made by the user.",
    }),
  }),
  metrics: group({
    enabled: flag(true, "Pool metrics (needs components.metricsExporter)."),
    pollingInterval: duration("5m", "How often the exporter asks its engine."),
  }),
  jaeger: group({
    enabled: flag(false, "Refused when true: the agents of this release send no traces."),
    initContainer: flag(true, noJaeger),
    agent: group({
      name: text("jaeger-agent", noJaeger),
      port: count(6831, noJaeger),
      initContainer: initContainers([], noJaeger),
    }),
  }),
});

const agents = group({
  core: group({
    logLevel: logLevel(),
    capacity: group({
      thin: group({
        poolCommitment: percent("250%", "How far thin volumes may overcommit a pool."),
        volumeCommitment: percent(
          "40%",
          "Free space, of the volume size, that a pool needs for a new replica of a volume.",
        ),
        volumeCommitmentInitial: percent("40%", "The same for the replicas of a new volume."),
      }),
    }),
    resources: resources(["1000m", "512Mi", "500m", "160Mi"]),
    partialRebuildWaitPeriod: duration("", "How long a faulted child may come back; empty: 600s."),
    ...placement(),
  }),
  ha: group({
    enabled: flag(false, noHa),
    node: group({
      logLevel: logLevel(),
      resources: resources(["100m", "64Mi", "100m", "64Mi"]),
      ...placement(),
    }),
    cluster: group({
      logLevel: logLevel(),
      resources: resources(["100m", "64Mi", "100m", "16Mi"]),
    }),
  }),
});

const apis = group({
  rest: group({
    logLevel: logLevel(),
    replicaCount: count(1, "Number of api-rest pods.", 1),
    resources: resources(["500m", "256Mi", "50m", "160Mi"]),
    service: group({
      type: choice(SERVICE_TYPES, "ClusterIP", "Type of the Service."),
      nodePorts: group({
        http: nodePort(30011, "Port on the nodes when the type is NodePort."),
        https: nodePort(30010, "Port on the nodes when the type is NodePort."),
      }),
    }),
    ...placement(),
  }),
});

const operators = group({
  pool: group({
    logLevel: logLevel(),
    resources: resources(["500m", "256Mi", "50m", "128Mi"]),
    ...placement(),
  }),
});

const csi = group({
  image: group({
    registry: text("registry.k8s.io", "Registry of the CSI sidecars."),
    repo: text("sig-storage", "Repository of the CSI sidecars."),
    pullPolicy: choice(PULL_POLICIES, "IfNotPresent", "When the CSI sidecars are pulled."),
    provisionerTag: text("v2.2.1", "Tag of csi-provisioner."),
    attacherTag: text("v3.2.1", "Tag of csi-attacher."),
    registrarTag: text("v2.1.0", "Tag of csi-node-driver-registrar."),
  }),
  controller: group({
    logLevel: logLevel(),
    resources: resources(["500m", "384Mi", "16m", "192Mi"]),
    ...placement(),
  }),
  node: group({
    logLevel: logLevel(),
    topology: group({
      segments: map(
        { "openebs.io/csi-node": "mayastor" },
        "Topology that the node plugin reports: where volumes are reachable.",
      ),
      nodeSelector: flag(false, "Run csi-node only on nodes with those labels."),
    }),
    resources: resources(["500m", "256Mi", "100m", "128Mi"]),
    nvme: group({
      io_timeout: text("30", "Seconds, set on the nvme_core module; empty: left alone."),
      ctrl_loss_tmo: text("1980", "Seconds until a lost target fails I/O; empty: kernel default."),
      keep_alive_tmo: text("", "Seconds between keep-alives; empty: kernel default."),
    }),
    kubeletDir: text("/var/lib/kubelet", "Where the kubelet keeps its files."),
    pluginMounthPath: text("/csi", "Where csi-node sees its socket folder (published spelling)."),
    socketPath: text("csi.sock", "Name of the socket."),
    ...placement(),
  }),
});

const engineResources = (what: string) =>
  group({
    cpu: quantity("", `${what} CPU; empty: one for each reactor core.`),
    memory: quantity("1Gi", `${what} memory.`),
    hugepages2Mi: quantity(
      "",
      `${what} 2 MiB hugepages, e.g. 2Gi; empty: none, and the node needs none.`,
    ),
  });
const io_engine = group({
  logLevel: logLevel(),
  api: choice(["v0", "v1"], "v1", "Versions of the gRPC API to register; v1 is served."),
  target: group({
    nvmf: group({
      iface: text("", "Interface of the NVMe-oF target, e.g. name:eth0 or subnet:10.0.0.0/8."),
      ptpl: flag(true, "Keep reservations through power loss."),
    }),
  }),
  envcontext: text("", `${NO_EFFECT}there is no DPDK environment.`),
  reactorFreezeDetection: group({ enabled: flag(false, "Report reactors that stand still.") }),
  cpuCount: count(2, "Reactor cores, from core 1 on; not used with a coreList.", 1),
  coreList: Type.Array(Type.Integer({ minimum: 0 }), {
    default: [],
    uniqueItems: true,
    description: "Reactor cores by number.",
  }),
  nodeSelector: map(
    { "openebs.io/engine": "mayastor", "kubernetes.io/arch": "amd64" },
    "Nodes that run an engine.",
  ),
  resources: group({ limits: engineResources("Most"), requests: engineResources("Reserved") }),
  ...placement(),
});

const etcd = group({
  image: text("quay.io/coreos/etcd:v3.5.21", "Image of etcd; any with `etcd` on its PATH."),
  podLabels: map({ app: "etcd", "openebs.io/logging": "true" }, "Labels of the pods."),
  replicaCount: count(3, "Members: 1, 3 or 5.", 1),
  clusterDomain: text("cluster.local", "DNS domain of the cluster."),
  client: group({ secureTransport: flag(false, "Refused when true: no TLS to etcd yet.") }),
  peer: group({ secureTransport: flag(false, "Refused when true: no TLS between members yet.") }),
  persistence: group({
    enabled: flag(
      true,
      "Keep data on volumes; false: it is lost with the pod (refused for more than one member).",
    ),
    storageClass: text(
      "",
      "Class of the volumes; empty: the default; manual: folders of the node (then see nodeSelector).",
    ),
    size: quantity("2Gi", "Size of a volume."),
    reclaimPolicy: choice(RECLAIM_POLICIES, "Delete", "Of the volumes made for class manual."),
  }),
  removeMemberOnContainerTermination: flag(
    false,
    "Refused when true: a member that leaves at each restart costs the quorum.",
  ),
  autoCompactionMode: choice(["revision", "periodic"], "revision", "How history is compacted."),
  autoCompactionRetention: Type.Union([Type.Integer({ minimum: 0 }), Type.String()], {
    default: 100,
    description: "How much history is kept.",
  }),
  extraEnvVars: Type.Array(
    Type.Object({ name: Type.String(), value: Type.String() }, { additionalProperties: false }),
    {
      default: [{ name: "ETCD_QUOTA_BACKEND_BYTES", value: "8589934592" }],
      description: "More environment of etcd.",
    },
  ),
  auth: group({
    rbac: group({
      create: flag(false, "Refused when true: clients have no passwords."),
      enabled: flag(false, "Refused when true: clients have no passwords."),
      allowNoneAuthentication: flag(true, `${NO_EFFECT}see etcd.auth.rbac.create.`),
    }),
  }),
  volumePermissions: group({
    enabled: flag(true, "Give the volumes to etcd's user at start."),
    image: text(PROBE_IMAGE, "Image with a shell and chown for that."),
  }),
  debug: flag(false, "Debug logs of etcd."),
  initialClusterState: choice(
    ["new", "existing"],
    "new",
    "Of a member that has no data yet; existing only while a lost one is replaced, see above.",
  ),
  podAntiAffinityPreset: choice(["hard", "soft", ""], "hard", "Keep members on different nodes."),
  nodeSelector: map(
    {},
    "Nodes that may run a member; with class manual as many nodes as members, or one may move away from its data.",
  ),
  resources: resources(["", "", "", ""]),
  service: group({
    type: choice(SERVICE_TYPES, "ClusterIP", "Type of the client Service."),
    port: count(2379, "Refused unless 2379: the agents are told that port.", 1),
    nodePorts: group({
      clientPort: nodePort(31379, "Port on the nodes when the type is NodePort."),
      peerPort: nodePort("", "Port on the nodes when the type is NodePort."),
    }),
  }),
  ...placement(),
});

const lokiStack = group({
  enabled: flag(true, "Collect logs: loki and promtail."),
  loki: group({
    image: text("docker.io/grafana/loki:2.6.1", "Image of loki."),
    rbac: group({
      create: flag(true, `${NO_EFFECT}loki calls no API of Kubernetes.`),
      pspEnabled: flag(false, noPsp),
    }),
    enabled: flag(true, "Install loki."),
    persistence: group({
      enabled: flag(true, "Keep logs on a volume."),
      storageClassName: text(
        "",
        "Class of the volume; empty: the default; manual: a node's folder.",
      ),
      reclaimPolicy: choice(RECLAIM_POLICIES, "Delete", "Of the volume made for class manual."),
      size: quantity("10Gi", "Size of the volume."),
    }),
    securityContext: group({
      fsGroup: count(1001, "Group of the volume."),
      runAsGroup: count(1001, "Group of loki."),
      runAsNonRoot: flag(
        false,
        "Also asserted by the kubelet; needs an empty initContainers list.",
      ),
      runAsUser: count(1001, "User of loki."),
    }),
    initContainers: Type.Array(VolumeInitContainerSchema, {
      default: [
        {
          name: "volume-permissions",
          image: PROBE_IMAGE,
          command: ["sh", "-c", "chown -R 1001:1001 /data"],
        },
      ],
      description:
        "Run before loki, as root and with the volume `storage` at /data unless they say otherwise.",
    }),
    config: group({
      compactor: group({
        compaction_interval: duration("20m", "How often loki compacts its index."),
        retention_enabled: flag(true, "Delete old logs."),
        retention_delete_delay: duration("1h", "How long deleted logs stay on disk."),
        retention_delete_worker_count: count(50, "Concurrent deletions.", 1),
      }),
      limits_config: group({
        retention_period: duration("168h", "Age at which logs are deleted."),
      }),
    }),
    service: group({
      type: choice(SERVICE_TYPES, "ClusterIP", "Type of the Service."),
      port: count(3100, "Port of the Service.", 1),
      nodePort: nodePort(31001, "Port on the nodes when the type is NodePort."),
    }),
    ...placement(),
  }),
  promtail: group({
    image: text("docker.io/grafana/promtail:2.6.1", "Image of promtail."),
    rbac: group({
      create: flag(true, "Refused when false: promtail must find the pods."),
      pspEnabled: flag(false, noPsp),
    }),
    enabled: flag(true, "Install promtail."),
    config: group({
      lokiAddress: text(
        "http://{{ .Release.Name }}-loki:3100/loki/api/v1/push",
        "Where logs go; `{{ .Release.Name }}` stands for the release.",
      ),
      snippets: group({
        scrapeConfigs: text(
          "",
          "YAML list instead of our one job for the pods labelled for logging.",
        ),
      }),
    }),
    ...placement(),
  }),
});

const jaegerOperator = group({
  name: text("{{ .Release.Name }}", noJaeger),
  crd: group({ install: flag(false, noJaeger) }),
  jaeger: group({ create: flag(false, noJaeger) }),
  rbac: group({ clusterRole: flag(true, noJaeger) }),
  tolerations: tolerations(noJaeger),
  priorityClassName: text("", noJaeger),
});

const obs = group({
  callhome: group({
    enabled: flag(false, noCallhome),
    logLevel: logLevel(),
    resources: resources(["100m", "32Mi", "50m", "16Mi"]),
    tolerations: tolerations(noCallhome),
    priorityClassName: text("", noCallhome),
  }),
});

const NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const StorageClassValues = Type.Object(
  {
    name: Type.String({ pattern: NAME, maxLength: 253 }),
    repl: Type.Optional(Type.Integer({ minimum: 1, maximum: 255 })),
    ioTimeout: Type.Optional(Type.Integer({ minimum: 1 })),
    nvmeCtrlLossTmo: Type.Optional(Type.Integer({ minimum: 0 })),
    nvmeKeepAliveTmo: Type.Optional(Type.Integer({ minimum: 0 })),
    nvmeNrIoQueues: Type.Optional(Type.Integer({ minimum: 1 })),
    fsType: Type.Optional(Type.Enum(FILE_SYSTEMS)),
    thin: Type.Optional(Type.Boolean()),
    stsAffinityGroup: Type.Optional(Type.Boolean()),
    default: Type.Optional(Type.Boolean()),
    reclaimPolicy: Type.Optional(Type.Enum(RECLAIM_POLICIES)),
    volumeBindingMode: Type.Optional(Type.Enum(["Immediate", "WaitForFirstConsumer"])),
  },
  { additionalProperties: false },
);
export type StorageClassValues = Static<typeof StorageClassValues>;

const DiskPoolValues = Type.Object(
  {
    name: Type.String({ pattern: NAME, maxLength: 253 }),
    node: Type.String({ minLength: 1 }),
    disks: Type.Array(Type.String({ minLength: 1 }), { minItems: 1, maxItems: 1 }),
    labels: Type.Optional(Type.Record(Type.String(), Type.String())),
  },
  { additionalProperties: false },
);

/** All values; `{}` gives every default. */
export const ValuesSchema = group({
  components,
  image,
  nodeSelector: map({ "kubernetes.io/arch": "amd64" }, "Nodes for everything but io-engine."),
  priorityClassName: text("", "Priority class of every pod, unless empty."),
  earlyEvictionTolerations: Type.Array(Toleration, {
    default: ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"].map((key) => ({
      effect: "NoExecute",
      key,
      operator: "Exists",
      tolerationSeconds: 5,
    })),
    description: "Added to agent-core and api-rest, so that they leave a dead node soon.",
  }),
  tolerations: tolerations("Of every pod."),
  base,
  agents,
  apis,
  operators,
  csi,
  io_engine,
  etcd,
  "loki-stack": lokiStack,
  "jaeger-operator": jaegerOperator,
  obs,
  storageClass: group({
    enabled: flag(true, "Make the class below (needs components.csi)."),
    nameSuffix: text("single-replica", "Its name after the release name."),
    default: flag(false, "Make it the cluster's default class."),
    parameters: map(
      { ioTimeout: "60", protocol: "nvmf", repl: "1" },
      "Its parameters, see the CSI documentation.",
    ),
  }),
  storageClasses: Type.Array(StorageClassValues, {
    default: [],
    description: "More storage classes: name and parameters.",
  }),
  diskPools: Type.Array(DiskPoolValues, {
    default: [],
    description: "DiskPools to make: name, node, disks, and labels for volume placement.",
  }),
  networkPolicies: group({
    enabled: flag(true, "Limit who may connect to our pods."),
    nodeCidrs: Type.Array(Type.String({ pattern: "^[0-9a-fA-F.:]+/[0-9]{1,3}$" }), {
      default: [],
      description: "Addresses of the nodes and of outside clients of REST; empty: any address.",
    }),
    lokiClients: map(
      { "app.kubernetes.io/name": "grafana" },
      "Labels of the pods, in any namespace, that may read logs from loki besides those of this one.",
    ),
  }),
  podDisruptionBudgets: group({
    enabled: flag(true, "Keep drains from stopping a quorum or the last api-rest."),
  }),
  monitoring: group({
    serviceMonitor: flag(false, "A ServiceMonitor (needs the Prometheus operator's CRDs)."),
    prometheusRule: flag(false, "Alerts (needs the Prometheus operator's CRDs)."),
    dashboards: flag(false, "ConfigMaps that Grafana's sidecar loads as dashboards."),
    labels: map({}, "More labels of these, e.g. what a Prometheus selects by."),
  }),
});

export type Values = Static<typeof ValuesSchema>;
