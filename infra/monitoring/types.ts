/**
 * The parts of the Prometheus operator's resources that are used here.
 * Source: its API reference, monitoring.coreos.com/v1.
 */
type Labels = Readonly<Record<string, string>>;

export type ServiceMonitorSpec = {
  readonly selector: { readonly matchLabels: Labels };
  readonly endpoints: readonly {
    readonly port: string;
    readonly path?: string;
    readonly interval?: string;
  }[];
};

export type AlertRule = {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly labels: { readonly severity: "info" | "warning" | "critical" };
  readonly annotations: { readonly summary: string; readonly description: string };
};

export type PrometheusRuleSpec = {
  readonly groups: readonly { readonly name: string; readonly rules: readonly AlertRule[] }[];
};
