/** operator-diskpool: Deployment. It serves nothing, so there is nothing to probe: it exits when it cannot go on. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import {
  DEFAULT_SECCOMP,
  identity,
  logEnv,
  ownImage,
  POD_NAME,
  placementOf,
  podLabels,
  pullSecrets,
  resourcesOf,
  TMP_MOUNT,
  TMP_VOLUME,
  UNPRIVILEGED,
  waitContainers,
} from "../constructs/pod.ts";
import { PORTS } from "../names.ts";

export class OperatorDiskpoolChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const name = this.named("operator-diskpool");
    const { base, image, operators } = install.values;
    this.add(
      "Deployment",
      { name, component: "operator-diskpool" },
      {
        spec: {
          replicas: 1,
          selector: { matchLabels: this.selector("operator-diskpool") },
          template: {
            metadata: { labels: podLabels(this, "operator-diskpool") },
            spec: {
              ...identity(name, { token: true }),
              ...placementOf(install, operators.pool),
              ...pullSecrets(install),
              securityContext: DEFAULT_SECCOMP,
              initContainers: waitContainers(install, base.initContainers),
              containers: [
                {
                  name: "operator-diskpool",
                  image: ownImage(install, "operator-diskpool", "controlPlane"),
                  imagePullPolicy: image.pullPolicy,
                  args: [
                    "-e",
                    `http://${this.named("api-rest")}:${PORTS.restHttp}`,
                    `-n${install.namespace}`,
                    `--request-timeout=${base.default_req_timeout}`,
                    `--interval=${base.cache_poll_period}`,
                  ],
                  env: [...logEnv(install, operators.pool.logLevel), POD_NAME],
                  resources: resourcesOf(operators.pool.resources),
                  securityContext: UNPRIVILEGED,
                  volumeMounts: [TMP_MOUNT],
                },
              ],
              volumes: [TMP_VOLUME],
            },
          },
        },
      },
    );
  }
}
