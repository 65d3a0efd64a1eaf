/** Alerts and dashboards. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ENGINE_REACHABLE, POOL_METRICS, VOLUME_METRICS } from "./monitoring/alerts.ts";
import { LATENCY_METRICS } from "./monitoring/latency.ts";
import { everything } from "./testing/installs.ts";

test("alerts and dashboards use only published metrics", () => {
  const known: readonly string[] = [
    ENGINE_REACHABLE,
    ...Object.values(POOL_METRICS),
    ...Object.values(VOLUME_METRICS),
    ...LATENCY_METRICS.flatMap((name) => [name, `${name}_bucket`]),
    ...["volume_num_read_ops", "volume_num_write_ops", "volume_bytes_read", "volume_bytes_written"],
  ];
  const texts = everything.objects
    .filter(
      ({ kind, metadata }) => kind === "PrometheusRule" || metadata.name.includes("dashboard"),
    )
    .map((object) => JSON.stringify(object));
  assert.equal(texts.length, 4);
  for (const text of texts) {
    const used = text.match(/\b(disk_?pool|kubelet_volume|volume|replica|mayastor)_[a-z_]+/g) ?? [];
    assert.ok(used.length > 0);
    assert.deepEqual(
      used.filter((name) => !known.includes(name)),
      [],
    );
  }
});

test("dashboards are JSON with unique panel ids that overlap nowhere", () => {
  const boards = everything.objects.filter(({ metadata }) => metadata.name.includes("dashboard"));
  for (const board of boards) {
    const [text = ""] = Object.values(board["data"] as Record<string, string>);
    const { panels } = JSON.parse(text) as {
      panels: { id: number; gridPos: { x: number; y: number; w: number; h: number } }[];
    };
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const places = panels.map(({ gridPos: { x, y } }) => `${x},${y}`);
    assert.equal(new Set(places).size, panels.length);
    for (const { gridPos } of panels) assert.ok(gridPos.x + gridPos.w <= 24);
  }
});
