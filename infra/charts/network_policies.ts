/**
 * Who may connect to pods on the pod network; nothing limits what they connect to.
 *
 * Pods on the host's network (io-engine, csi-controller, csi-node) are outside NetworkPolicies, both
 * as sources and as destinations: their connections come from node addresses. So a port they use is open to
 * the given addresses, or to any when none are given.
 */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { type IngressRule, InstallChart, type Labels } from "../constructs/kube.ts";
import { type Component, PORTS } from "../names.ts";

export class NetworkPoliciesChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { components } = install.values;
    const logs = install.values["loki-stack"];
    this.limit("etcd", [this.fromNodes(PORTS.etcdClient), this.fromPods("etcd", PORTS.etcdPeer)]);
    this.limit("agent-core", [this.fromNodes(PORTS.agentCore)]);
    this.limit("api-rest", [this.fromNodes(PORTS.restHttps, PORTS.restHttp)]);
    if (components.diskpoolOperator) this.limit("operator-diskpool", []);
    if (logs.enabled && logs.loki.enabled) this.limit("loki", [this.fromNamespace(PORTS.loki)]);
    if (logs.enabled && logs.promtail.enabled) this.limit("promtail", []);
  }

  private limit(component: Component, ingress: readonly IngressRule[]): void {
    this.add(
      "NetworkPolicy",
      { name: this.named(component), component },
      {
        spec: {
          podSelector: { matchLabels: this.selector(component) },
          policyTypes: ["Ingress"],
          // None at all: nobody may connect. An empty list would not be kept, and be applied again for ever.
          ...(ingress.length > 0 ? { ingress } : {}),
        },
      },
    );
  }

  private ports(ports: readonly number[]) {
    return ports.map((port) => ({ port, protocol: "TCP" }));
  }

  private fromNodes(...ports: readonly number[]): IngressRule {
    const { nodeCidrs } = this.install.values.networkPolicies;
    const known = [...nodeCidrs.map((cidr) => ({ ipBlock: { cidr } })), { podSelector: {} }];
    return { ports: this.ports(ports), ...(nodeCidrs.length > 0 ? { from: known } : {}) };
  }

  private fromPods(component: Component, port: number): IngressRule {
    const matchLabels: Labels = this.selector(component);
    return { ports: this.ports([port]), from: [{ podSelector: { matchLabels } }] };
  }

  private fromNamespace(port: number): IngressRule {
    return { ports: this.ports([port]), from: [{ podSelector: {} }] };
  }
}
