/** agent-core: Deployment and Service. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import {
  DEFAULT_SECCOMP,
  identity,
  logEnv,
  ownImage,
  POD_NAME,
  POD_NAMESPACE,
  placementOf,
  podLabels,
  pullSecrets,
  QUICKLY_READY,
  resourcesOf,
  TMP_MOUNT,
  TMP_VOLUME,
  tcpProbe,
  UNPRIVILEGED,
  waitContainers,
} from "../constructs/pod.ts";
import { PORTS } from "../names.ts";

export class AgentCoreChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const name = this.named("agent-core");
    this.add(
      "Service",
      { name, component: "agent-core" },
      {
        spec: {
          type: "ClusterIP",
          selector: this.selector("agent-core"),
          ports: [{ name: "grpc", port: PORTS.agentCore, protocol: "TCP" }],
        },
      },
    );
    this.add(
      "Deployment",
      { name, component: "agent-core" },
      {
        spec: {
          replicas: 1,
          // The new one cannot lead, so never gets ready, while the old one holds the lease.
          strategy: { type: "Recreate" },
          selector: { matchLabels: this.selector("agent-core") },
          template: {
            metadata: { labels: podLabels(this, "agent-core") },
            spec: {
              ...identity(name, { token: true }),
              ...placementOf(install, install.values.agents.core, { critical: true }),
              ...pullSecrets(install),
              securityContext: DEFAULT_SECCOMP,
              initContainers: waitContainers(install, install.values.base.initCoreContainers),
              containers: [this.container()],
              volumes: [TMP_VOLUME],
            },
          },
        },
      },
    );
  }

  private container() {
    const { agents, base, image } = this.install.values;
    const { thin } = agents.core.capacity;
    const wait = agents.core.partialRebuildWaitPeriod;
    return {
      name: "agent-core",
      image: ownImage(this.install, "agent-core", "controlPlane"),
      imagePullPolicy: image.pullPolicy,
      args: [
        `-s${this.named("etcd")}:${PORTS.etcdClient}`,
        `--request-timeout=${base.default_req_timeout}`,
        `--cache-period=${base.cache_poll_period}`,
        `--grpc-server-addr=0.0.0.0:${PORTS.agentCore}`,
        `--pool-commitment=${thin.poolCommitment}`,
        `--volume-commitment-initial=${thin.volumeCommitmentInitial}`,
        `--volume-commitment=${thin.volumeCommitment}`,
        ...(wait === "" ? [] : [`--faulted-child-wait-period=${wait}`]),
      ],
      env: [...logEnv(this.install, agents.core.logLevel), POD_NAME, POD_NAMESPACE],
      ports: [{ name: "grpc", containerPort: PORTS.agentCore, protocol: "TCP" }],
      resources: resourcesOf(agents.core.resources),
      securityContext: UNPRIVILEGED,
      // It listens once it has the lease and has read the store, which a lost etcd may delay.
      startupProbe: tcpProbe(PORTS.agentCore, { periodSeconds: 2, failureThreshold: 150 }),
      readinessProbe: tcpProbe(PORTS.agentCore, QUICKLY_READY),
      livenessProbe: tcpProbe(PORTS.agentCore, { periodSeconds: 20, failureThreshold: 6 }),
      volumeMounts: [TMP_MOUNT],
    };
  }
}
