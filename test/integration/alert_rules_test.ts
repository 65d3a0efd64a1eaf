/** Every alert against promtool: it fires when it should, for whom it should, and not a moment before. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { stringify } from "yaml";
import { alertRules } from "../../infra/monitoring/alerts.ts";
import { promtool, scratchFolder } from "../support/prometheus.ts";

const SERVICE = "mayastor-metrics-exporter-pool";
const POOL = { node: "node-1", name: "pool-1" };
const OTHER = { node: "node-2", name: "pool-2" };
const VOLUME = { node: "node-1", pv_name: "pvc-1" };
const CLAIM = { namespace: "default", persistentvolumeclaim: "data" };
type Labels = Readonly<Record<string, string>>;

const rules = alertRules({ service: SERVICE });
const series = (name: string, labels: Labels, values: string) => ({
  series: `${name}{${Object.entries(labels).map(([key, value]) => `${key}="${value}"`)}}`,
  values,
});
/** Sixty requests a minute, `slow` of them of more than 2 s, as the classic buckets of text. */
const latency = (name: string, labels: Labels, slow: number) => [
  series(`${name}_bucket`, { ...labels, le: "0.5" }, `0+${60 - slow}x120`),
  series(`${name}_bucket`, { ...labels, le: "2" }, `0+${60 - slow}x120`),
  series(`${name}_bucket`, { ...labels, le: "4" }, "0+60x120"),
  series(`${name}_bucket`, { ...labels, le: "+Inf" }, "0+60x120"),
];
const slowPool = (kind: string) => ({
  quiet: latency(`diskpool_${kind}_latency_seconds`, OTHER, 0),
  firing: latency(`diskpool_${kind}_latency_seconds`, POOL, 3),
  for: POOL,
});
const slowVolume = (kind: string) => ({
  quiet: latency(`volume_${kind}_latency_seconds`, { ...VOLUME, pv_name: "pvc-2" }, 0),
  firing: latency(`volume_${kind}_latency_seconds`, VOLUME, 3),
  for: VOLUME,
});

type Case = {
  readonly firing: readonly { series: string; values: string }[];
  readonly quiet: readonly { series: string; values: string }[];
  /** Labels of the alert, besides its name and severity. */
  readonly for: Labels;
};

const cases: Readonly<Record<string, Case>> = {
  // The exporter is scraped all the while: it is another container than the engine.
  MayastorEngineDown: {
    firing: [
      series("mayastor_exporter_engine_reachable", { node: "node-1" }, "0x120"),
      series("up", { service: SERVICE, instance: "10.0.0.1:9502" }, "1x120"),
    ],
    quiet: [series("mayastor_exporter_engine_reachable", { node: "node-2" }, "1x120")],
    for: { node: "node-1" },
  },
  MayastorPoolFaulted: {
    firing: [series("disk_pool_status", POOL, "3x120")],
    quiet: [series("disk_pool_status", OTHER, "1x120")],
    for: POOL,
  },
  MayastorPoolNotOnline: {
    firing: [series("disk_pool_status", POOL, "2x120")],
    quiet: [series("disk_pool_status", OTHER, "3x120")],
    for: POOL,
  },
  MayastorPoolNearlyFull: {
    firing: [
      series("disk_pool_used_size_bytes", POOL, "91x120"),
      series("disk_pool_total_size_bytes", POOL, "100x120"),
    ],
    quiet: [
      series("disk_pool_used_size_bytes", OTHER, "90x120"),
      series("disk_pool_total_size_bytes", OTHER, "100x120"),
    ],
    for: POOL,
  },
  MayastorPoolOvercommitted: {
    firing: [
      series("disk_pool_committed_size_bytes", POOL, "201x120"),
      series("disk_pool_total_size_bytes", POOL, "100x120"),
    ],
    quiet: [
      series("disk_pool_committed_size_bytes", OTHER, "200x120"),
      series("disk_pool_total_size_bytes", OTHER, "100x120"),
    ],
    for: POOL,
  },
  MayastorMetricsMissing: {
    firing: [series("up", { service: SERVICE, instance: "10.0.0.1:9502" }, "0x120")],
    quiet: [
      series("up", { service: SERVICE, instance: "10.0.0.2:9502" }, "1x120"),
      series("up", { service: "other", instance: "10.0.0.3:80" }, "0x120"),
    ],
    for: { service: SERVICE, instance: "10.0.0.1:9502" },
  },
  MayastorVolumeNearlyFull: {
    firing: [
      series("kubelet_volume_stats_available_bytes", CLAIM, "4x120"),
      series("kubelet_volume_stats_capacity_bytes", CLAIM, "100x120"),
    ],
    quiet: [
      series("kubelet_volume_stats_available_bytes", { ...CLAIM, namespace: "b" }, "5x120"),
      series("kubelet_volume_stats_capacity_bytes", { ...CLAIM, namespace: "b" }, "100x120"),
    ],
    for: CLAIM,
  },
  MayastorPoolReadsSlow: slowPool("read"),
  MayastorPoolWritesSlow: slowPool("write"),
  MayastorVolumeReadsSlow: slowVolume("read"),
  MayastorVolumeWritesSlow: slowVolume("write"),
};

const minutes = (duration: string): number => {
  const found = /^(\d+)m$/.exec(duration)?.[1];
  assert.ok(found, duration);
  return Number(found);
};

/** As Prometheus fills the templates of annotations. */
const filled = (text: string, labels: Labels) =>
  text.replaceAll(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => labels[name] ?? "");

function testOf(rule: (typeof rules)[number]) {
  const found = cases[rule.alert];
  assert.ok(found, `no case for ${rule.alert}`);
  const { summary, description } = rule.annotations;
  // A rate needs two samples, so it is there one step after the start.
  const start = rule.expr.includes("rate(") ? 1 : 0;
  const at = (minute: number, alerts: readonly unknown[]) => ({
    eval_time: `${minute}m`,
    alertname: rule.alert,
    exp_alerts: alerts,
  });
  const firing = {
    exp_labels: { severity: rule.labels.severity, ...found.for },
    exp_annotations: {
      summary: filled(summary, found.for),
      description: filled(description, found.for),
    },
  };
  const wait = start + minutes(rule.for);
  return {
    interval: "1m",
    input_series: [...found.firing, ...found.quiet],
    alert_rule_test: [at(wait - 1, []), at(wait, [firing]), at(wait + 30, [firing])],
  };
}

test("alert rules are of promtool's liking", async (t) => {
  const folder = scratchFolder(t, "rules");
  const file = path.join(folder, "rules.yaml");
  writeFileSync(file, stringify({ groups: [{ name: "mayastor", rules }] }));
  assert.match(await promtool(["check", "rules", file]), new RegExp(`${rules.length} rules found`));
});

test("alert rules all have a case, and no case is left over", () => {
  const names = rules.map(({ alert }) => alert);
  assert.deepEqual(Object.keys(cases).toSorted(), names.toSorted());
});

for (const rule of rules) {
  test(`${rule.alert} fires after ${rule.for}, for the right one only`, async (t) => {
    const folder = scratchFolder(t, "rules");
    writeFileSync(
      path.join(folder, "rules.yaml"),
      stringify({ groups: [{ name: "mayastor", rules: [rule] }] }),
    );
    const file = path.join(folder, "test.yaml");
    const text = stringify({
      rule_files: ["rules.yaml"],
      evaluation_interval: "1m",
      tests: [testOf(rule)],
    });
    writeFileSync(file, text);
    await promtool(["test", "rules", file]);
  });
}
