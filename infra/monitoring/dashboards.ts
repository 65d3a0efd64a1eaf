/**
 * Grafana dashboards as data: pools, volumes and their latency.
 * Why built: panels differ in a title, a query and a unit; a builder keeps the rest the same.
 * Invariant: the same input gives the same JSON; ids and uids are fixed.
 */
import { POOL_METRICS, VOLUME_METRICS } from "./alerts.ts";
import { quantile } from "./latency.ts";

type Panel = {
  readonly title: string;
  readonly kind: "timeseries" | "stat" | "table" | "bargauge";
  readonly unit: "bytes" | "percentunit" | "short" | "s" | "iops" | "Bps";
  readonly queries: readonly { readonly expr: string; readonly legend: string }[];
  /** Text of values, e.g. of a status. */
  readonly texts?: Readonly<Record<number, { readonly text: string; readonly color: string }>>;
};

const DATASOURCE = { type: "prometheus", uid: "$datasource" };
const WIDTH = 12;
const HEIGHT = 8;
const COLUMNS = 24 / WIDTH;

function mappings(texts: Panel["texts"]) {
  if (texts === undefined) return [];
  const options = Object.fromEntries(
    Object.entries(texts).map(([value, shown], index) => [value, { index, ...shown }]),
  );
  return [{ type: "value", options }];
}

function panelJson({ title, kind, unit, queries, texts }: Panel, index: number) {
  return {
    id: index + 1,
    title,
    type: kind,
    datasource: DATASOURCE,
    gridPos: {
      h: HEIGHT,
      w: WIDTH,
      x: (index % COLUMNS) * WIDTH,
      y: Math.floor(index / COLUMNS) * HEIGHT,
    },
    fieldConfig: { defaults: { unit, mappings: mappings(texts) }, overrides: [] },
    options: {},
    targets: queries.map(({ expr, legend }, target) => ({
      refId: String.fromCharCode("A".charCodeAt(0) + target),
      datasource: DATASOURCE,
      expr,
      legendFormat: legend,
    })),
  };
}

type Variable = { readonly name: string; readonly label: string; readonly query: string };

function dashboard(
  { uid, title }: { uid: string; title: string },
  { variables, panels }: { variables: readonly Variable[]; panels: readonly Panel[] },
) {
  return {
    uid,
    title,
    tags: ["mayastor"],
    schemaVersion: 38,
    version: 1,
    editable: true,
    refresh: "1m",
    time: { from: "now-6h", to: "now" },
    templating: {
      list: [
        { name: "datasource", label: "Data source", type: "datasource", query: "prometheus" },
        ...variables.map((variable) => ({
          ...variable,
          type: "query",
          datasource: DATASOURCE,
          multi: true,
          includeAll: true,
          refresh: 2,
        })),
      ],
    },
    panels: panels.map(panelJson),
  };
}

const POOL = `{node=~"$node",name=~"$pool"}`;
const POOL_LEGEND = "{{node}} {{name}}";
const CLAIM = `{namespace=~"$namespace",persistentvolumeclaim=~"$claim"}`;
const CLAIM_LEGEND = "{{namespace}}/{{persistentvolumeclaim}}";

function poolsDashboard() {
  const { total, used, committed, status } = POOL_METRICS;
  const one = (expr: string) => [{ expr, legend: POOL_LEGEND }];
  return dashboard(
    { uid: "mayastor-pools", title: "Mayastor / Pools" },
    {
      variables: [
        { name: "node", label: "Node", query: `label_values(${status}, node)` },
        { name: "pool", label: "Pool", query: `label_values(${status}{node=~"$node"}, name)` },
      ],
      panels: [
        {
          title: "Status",
          kind: "stat",
          unit: "short",
          queries: one(`${status}${POOL}`),
          texts: {
            0: { text: "Unknown", color: "purple" },
            1: { text: "Online", color: "green" },
            2: { text: "Degraded", color: "orange" },
            3: { text: "Faulted", color: "red" },
          },
        },
        {
          title: "Used",
          kind: "bargauge",
          unit: "percentunit",
          queries: one(`${used}${POOL} / ${total}${POOL}`),
        },
        {
          title: "Size of all pools",
          kind: "timeseries",
          unit: "bytes",
          queries: [
            { expr: `sum(${total}${POOL})`, legend: "size" },
            { expr: `sum(${used}${POOL})`, legend: "used" },
            { expr: `sum(${committed}${POOL})`, legend: "committed" },
          ],
        },
        {
          title: "Free space",
          kind: "timeseries",
          unit: "bytes",
          queries: one(`${total}${POOL} - ${used}${POOL}`),
        },
        {
          title: "Committed, of the size (thin provisioning)",
          kind: "timeseries",
          unit: "percentunit",
          queries: one(`${committed}${POOL} / ${total}${POOL}`),
        },
        {
          title: "Growth in a day",
          kind: "timeseries",
          unit: "bytes",
          queries: one(`delta(${used}${POOL}[1d])`),
        },
      ],
    },
  );
}

function volumesDashboard() {
  const { available, capacity, used, inodes, inodesUsed } = VOLUME_METRICS;
  const one = (expr: string) => [{ expr, legend: CLAIM_LEGEND }];
  const within = `{namespace=~"$namespace"}`;
  return dashboard(
    { uid: "mayastor-volumes", title: "Mayastor / Volumes" },
    {
      variables: [
        { name: "namespace", label: "Namespace", query: `label_values(${capacity}, namespace)` },
        {
          name: "claim",
          label: "Claim",
          query: `label_values(${capacity}${within}, persistentvolumeclaim)`,
        },
      ],
      panels: [
        {
          title: "Used",
          kind: "bargauge",
          unit: "percentunit",
          queries: one(`${used}${CLAIM} / ${capacity}${CLAIM}`),
        },
        {
          title: "Free space",
          kind: "timeseries",
          unit: "bytes",
          queries: one(`${available}${CLAIM}`),
        },
        {
          title: "Used inodes",
          kind: "timeseries",
          unit: "percentunit",
          queries: one(`${inodesUsed}${CLAIM} / ${inodes}${CLAIM}`),
        },
        {
          title: "Full within a week, at the pace of the last day",
          kind: "table",
          unit: "short",
          queries: one(`predict_linear(${available}${CLAIM}[1d], 7 * 86400) < 0`),
        },
      ],
    },
  );
}

const VOLUME = `{node=~"$node",pv_name=~"$volume"}`;
/** Chosen by Grafana so that a range holds enough scrapes. */
const RANGE = "$__rate_interval";

function latencyPanel(kind: "read" | "write", on: "volume" | "replica" | "diskpool"): Panel {
  const metric = `${on}_${kind}_latency_seconds`;
  const what = { volume: "Volume", replica: "Replica", diskpool: "Pool" }[on];
  const by = { volume: "pv_name", replica: "node, pv_name", diskpool: "node, name" }[on];
  const selector = on === "diskpool" ? `{node=~"$node"}` : VOLUME;
  const legend = by
    .split(", ")
    .map((label) => `{{${label}}}`)
    .join(" ");
  return {
    title: `${what}: ${kind} latency`,
    kind: "timeseries",
    unit: "s",
    queries: [0.5, 0.99].map((part) => ({
      expr: quantile({ part, metric, by, selector, range: RANGE }),
      legend: `p${part * 100} ${legend}`,
    })),
  };
}

function latencyDashboard() {
  const rate = (title: string, unit: Panel["unit"], metrics: Readonly<Record<string, string>>) => ({
    title,
    kind: "timeseries" as const,
    unit,
    queries: Object.entries(metrics).map(([legend, metric]) => ({
      expr: `sum by (pv_name) (rate(${metric}${VOLUME}[${RANGE}]))`,
      legend: `${legend} {{pv_name}}`,
    })),
  });
  const ops = "volume_num_read_ops";
  return dashboard(
    { uid: "mayastor-latency", title: "Mayastor / Latency" },
    {
      variables: [
        { name: "node", label: "Node", query: `label_values(${POOL_METRICS.status}, node)` },
        { name: "volume", label: "Volume", query: `label_values(${ops}, pv_name)` },
      ],
      panels: [
        rate("Operations", "iops", { read: ops, write: "volume_num_write_ops" }),
        rate("Throughput", "Bps", { read: "volume_bytes_read", write: "volume_bytes_written" }),
        ...(["volume", "replica", "diskpool"] as const).flatMap((on) => [
          latencyPanel("read", on),
          latencyPanel("write", on),
        ]),
      ],
    },
  );
}

/** File name to JSON. */
export function dashboards(): Readonly<Record<string, string>> {
  const text = (board: unknown) => `${JSON.stringify(board, null, 2)}\n`;
  return {
    pools: text(poolsDashboard()),
    volumes: text(volumesDashboard()),
    latency: text(latencyDashboard()),
  };
}
