/** The service accounts and roles of the components that are installed; see rbac/ for the rules. */
import type { App } from "cdk8s";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import { type Account, addAccount } from "../rbac/account.ts";
import { agentCoreAccount } from "../rbac/agent_core.ts";
import { apiRestAccount } from "../rbac/api_rest.ts";
import { csiControllerAccount } from "../rbac/csi_controller.ts";
import { csiNodeAccount } from "../rbac/csi_node.ts";
import { etcdAccount } from "../rbac/etcd.ts";
import { ioEngineAccount } from "../rbac/io_engine.ts";
import { lokiAccount } from "../rbac/loki.ts";
import { operatorDiskpoolAccount } from "../rbac/operator_diskpool.ts";
import { promtailAccount } from "../rbac/promtail.ts";
import type { Values } from "../values.ts";

export function accountsOf(values: Values): readonly Account[] {
  const logs = values["loki-stack"];
  return [
    agentCoreAccount,
    apiRestAccount,
    ioEngineAccount,
    etcdAccount,
    ...(values.components.diskpoolOperator ? [operatorDiskpoolAccount] : []),
    ...(values.components.csi ? [csiControllerAccount, csiNodeAccount] : []),
    ...(logs.enabled && logs.loki.enabled ? [lokiAccount] : []),
    ...(logs.enabled && logs.promtail.enabled ? [promtailAccount] : []),
  ];
}

export class RbacChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    for (const account of accountsOf(install.values)) addAccount(this, account);
  }
}
