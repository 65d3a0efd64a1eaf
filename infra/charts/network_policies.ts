/**
 * Who may connect to pods on the pod network; nothing limits what they connect to.
 *
 * Each port names its clients. Pods on the host's network (io-engine, csi-controller, csi-node) are outside NetworkPolicies,
 * both as sources and as destinations: their connections come from node addresses. So a port that they use is open to the
 * addresses of `networkPolicies.nodeCidrs`, or to any when none are given; notices.ts says so.
 */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { type IngressRule, InstallChart, type Labels } from "../constructs/kube.ts";
import { type Component, PORTS } from "../names.ts";

const ANY_ADDRESS = ["0.0.0.0/0", "::/0"];

type Peer = NonNullable<IngressRule["from"]>[number];

export class NetworkPoliciesChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { components, networkPolicies } = install.values;
    const logs = install.values["loki-stack"];
    const core = this.pods("agent-core");
    this.limit("etcd", [
      this.rule([PORTS.etcdClient], [core, ...this.nodes]),
      this.rule([PORTS.etcdPeer], [this.pods("etcd")]),
    ]);
    this.limit("agent-core", [
      this.rule([PORTS.agentCore], [this.pods("api-rest"), ...this.nodes]),
    ]);
    const operator = components.diskpoolOperator ? [this.pods("operator-diskpool")] : [];
    this.limit("api-rest", [
      this.rule([PORTS.restHttps, PORTS.restHttp], [...operator, ...this.nodes]),
    ]);
    if (components.diskpoolOperator) this.limit("operator-diskpool", []);
    if (logs.enabled && logs.loki.enabled) {
      const readers = networkPolicies.lokiClients;
      const outside: Peer[] =
        Object.keys(readers).length > 0
          ? [{ namespaceSelector: {}, podSelector: { matchLabels: readers } }]
          : [];
      this.limit("loki", [this.rule([PORTS.loki], [{ podSelector: {} }, ...outside])]);
    }
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

  private rule(ports: readonly number[], from: readonly Peer[]): IngressRule {
    return { ports: ports.map((port) => ({ port, protocol: "TCP" })), from };
  }

  /** The programs on the host's network, and outside clients. */
  private get nodes(): readonly Peer[] {
    const { nodeCidrs } = this.install.values.networkPolicies;
    return (nodeCidrs.length > 0 ? nodeCidrs : ANY_ADDRESS).map((cidr) => ({ ipBlock: { cidr } }));
  }

  private pods(component: Component): Peer {
    const matchLabels: Labels = this.selector(component);
    return { podSelector: { matchLabels } };
  }
}
