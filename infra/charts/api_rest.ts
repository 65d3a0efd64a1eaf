/** api-rest: Deployment and Service. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import {
  DEFAULT_SECCOMP,
  httpProbe,
  identity,
  logEnv,
  ownImage,
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

/** Answered from memory, without agent-core. */
const SPEC_PATH = "/v0/api/spec";

export class ApiRestChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const name = this.named("api-rest");
    const { rest } = install.values.apis;
    const { type, nodePorts } = rest.service;
    const port = (portName: "http" | "https", port: number) => {
      const nodePort = nodePorts[portName];
      const fixed = type === "NodePort" && nodePort !== "" ? { nodePort } : {};
      return { name: portName, port, targetPort: port, protocol: "TCP", ...fixed };
    };
    this.add(
      "Service",
      { name, component: "api-rest" },
      {
        spec: {
          type,
          selector: this.selector("api-rest"),
          ports: [port("https", PORTS.restHttps), port("http", PORTS.restHttp)],
        },
      },
    );
    this.add(
      "Deployment",
      { name, component: "api-rest" },
      {
        spec: {
          replicas: rest.replicaCount,
          selector: { matchLabels: this.selector("api-rest") },
          template: {
            metadata: { labels: podLabels(this, "api-rest") },
            spec: {
              ...identity(name, { token: false }),
              ...placementOf(install, rest, { critical: true }),
              ...pullSecrets(install),
              securityContext: DEFAULT_SECCOMP,
              initContainers: waitContainers(install, install.values.base.initContainers),
              containers: [this.container()],
              volumes: [TMP_VOLUME],
            },
          },
        },
      },
    );
  }

  private container() {
    const { apis, base, image } = this.install.values;
    return {
      name: "api-rest",
      image: ownImage(this.install, "api-rest", "controlPlane"),
      imagePullPolicy: image.pullPolicy,
      args: [
        "--dummy-certificates",
        "--no-auth",
        `--http=0.0.0.0:${PORTS.restHttp}`,
        `--request-timeout=${base.default_req_timeout}`,
        `--core-grpc=https://${this.named("agent-core")}:${PORTS.agentCore}`,
      ],
      env: logEnv(this.install, apis.rest.logLevel),
      ports: [
        { name: "https", containerPort: PORTS.restHttps, protocol: "TCP" },
        { name: "http", containerPort: PORTS.restHttp, protocol: "TCP" },
      ],
      resources: resourcesOf(apis.rest.resources),
      securityContext: UNPRIVILEGED,
      startupProbe: tcpProbe(PORTS.restHttp, { periodSeconds: 2, failureThreshold: 60 }),
      readinessProbe: httpProbe({ port: PORTS.restHttp, path: SPEC_PATH }, QUICKLY_READY),
      livenessProbe: tcpProbe(PORTS.restHttp, { periodSeconds: 20, failureThreshold: 6 }),
      volumeMounts: [TMP_MOUNT],
    };
  }
}
