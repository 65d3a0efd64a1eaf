/** What a monitoring stack picks up: ServiceMonitor, PrometheusRule, dashboards for Grafana's sidecar. */
import type { App } from "cdk8s";
import { exportsMetrics } from "../charts/io_engine.ts";
import type { Install } from "../config.ts";
import { InstallChart } from "../constructs/kube.ts";
import { RELEASE_LABEL } from "../names.ts";
import { alertRules } from "./alerts.ts";
import { dashboards } from "./dashboards.ts";

export class MonitoringChart extends InstallChart {
  constructor(app: App, id: string, install: Install) {
    super(app, id, install);
    const { monitoring } = install.values;
    const service = this.named("metrics-exporter-pool");
    const name = this.named("monitoring");
    const labels = { app: "mayastor", ...monitoring.labels };
    if (monitoring.serviceMonitor && exportsMetrics(install.values)) {
      this.add(
        "ServiceMonitor",
        { name, labels },
        {
          spec: {
            selector: {
              matchLabels: { app: "metrics-exporter-pool", [RELEASE_LABEL]: install.release },
            },
            endpoints: [{ port: "metrics" }],
          },
        },
      );
    }
    if (monitoring.prometheusRule && exportsMetrics(install.values)) {
      const rules = alertRules({ service });
      this.add("PrometheusRule", { name, labels }, { spec: { groups: [{ name, rules }] } });
    }
    if (monitoring.dashboards) {
      for (const [board, text] of Object.entries(dashboards())) {
        this.add(
          "ConfigMap",
          { name: this.named(`dashboard-${board}`), labels: { grafana_dashboard: "1", ...labels } },
          { data: { [`mayastor-${board}.json`]: text } },
        );
      }
    }
  }
}
