/**
 * The installation as a list of charts, one file each.
 *
 * Why the numbers: `kubectl apply -f dist/` goes by file name, and what others need must come first.
 * The gaps leave room, so that a new chart renames no file.
 * Invariant: only what has a program in this release is installed (values.components).
 */
import type { App, Chart } from "cdk8s";
import { AgentCoreChart } from "./charts/agent_core.ts";
import { ApiRestChart } from "./charts/api_rest.ts";
import { NamespaceChart, PriorityClassChart } from "./charts/base.ts";
import { CsiControllerChart } from "./charts/csi_controller.ts";
import { CsiNodeChart } from "./charts/csi_node.ts";
import { DisruptionBudgetsChart } from "./charts/disruption_budgets.ts";
import { EtcdChart } from "./charts/etcd.ts";
import { IoEngineChart } from "./charts/io_engine.ts";
import { NetworkPoliciesChart } from "./charts/network_policies.ts";
import { OperatorDiskpoolChart } from "./charts/operator_diskpool.ts";
import { RbacChart } from "./charts/rbac.ts";
import { DiskPoolsChart, StorageClassesChart } from "./charts/storage.ts";
import type { Install } from "./config.ts";
import { CrdsChart } from "./crds/crds.ts";
import { LokiChart } from "./monitoring/loki.ts";
import { MonitoringChart } from "./monitoring/monitoring.ts";
import { PromtailChart } from "./monitoring/promtail.ts";

type ChartClass = new (app: App, id: string, install: Install) => Chart;

/** Adds every chart of the installation that has something in it. */
export function addInstallation(app: App, install: Install): void {
  const { values } = install;
  const { components, monitoring } = values;
  const logs = values["loki-stack"];
  const hasBudgets = values.etcd.replicaCount > 1 || values.apis.rest.replicaCount > 1;
  const hasClasses = values.storageClass.enabled || values.storageClasses.length > 0;
  const charts: readonly (readonly [id: string, wanted: boolean, chart: ChartClass])[] = [
    ["00-namespace", true, NamespaceChart],
    ["05-crds", components.diskpoolOperator, CrdsChart],
    ["10-priority-class", true, PriorityClassChart],
    ["15-rbac", true, RbacChart],
    ["20-network-policies", values.networkPolicies.enabled, NetworkPoliciesChart],
    [
      "25-pod-disruption-budgets",
      values.podDisruptionBudgets.enabled && hasBudgets,
      DisruptionBudgetsChart,
    ],
    ["30-etcd", true, EtcdChart],
    ["35-loki", logs.enabled && logs.loki.enabled, LokiChart],
    ["36-promtail", logs.enabled && logs.promtail.enabled, PromtailChart],
    ["40-agent-core", true, AgentCoreChart],
    ["45-api-rest", true, ApiRestChart],
    ["50-io-engine", true, IoEngineChart],
    ["55-operator-diskpool", components.diskpoolOperator, OperatorDiskpoolChart],
    ["60-csi-controller", components.csi, CsiControllerChart],
    ["65-csi-node", components.csi, CsiNodeChart],
    ["70-storage-classes", components.csi && hasClasses, StorageClassesChart],
    ["80-monitoring", Object.values(monitoring).includes(true), MonitoringChart],
    ["90-disk-pools", values.diskPools.length > 0, DiskPoolsChart],
  ];
  for (const [id, wanted, chart] of charts) if (wanted) new chart(app, id, install);
}
