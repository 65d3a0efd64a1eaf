/**
 * Metric families as Prometheus text, version 0.0.4; histograms with classic buckets, the only ones text can carry.
 * Invariant: a new registry for each answer, so that two scrapes never see half of each other.
 */
import { Gauge, Histogram, Registry } from "prom-client";
import type { Family, HistogramFamily } from "./families.ts";
import { classicBuckets } from "./histogram.ts";

/** A histogram whose counts are known already: prom-client's own takes one operation at a time. */
class KnownHistogram extends Histogram {
  readonly #family: HistogramFamily;

  constructor(registry: Registry, family: HistogramFamily) {
    super({ name: family.name, help: family.help, registers: [registry] });
    this.#family = family;
  }

  /** What the registry writes; it prefers this to get(). */
  async getForPromString() {
    const { name, help, samples } = this.#family;
    const values = samples.flatMap(({ labels, value: histogram }) => [
      ...classicBuckets(histogram).map(({ upperSec, cumulative }) => ({
        metricName: `${name}_bucket`,
        labels: { ...labels, le: upperSec },
        value: cumulative,
      })),
      {
        metricName: `${name}_bucket`,
        labels: { ...labels, le: "+Inf" },
        value: histogram.count,
      },
      { metricName: `${name}_sum`, labels, value: histogram.sumSec },
      { metricName: `${name}_count`, labels, value: histogram.count },
    ]);
    return { name, help, type: "histogram", values };
  }
}

export const TEXT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

export async function writeText(families: readonly Family[]): Promise<string> {
  const registry = new Registry();
  for (const family of families) {
    if (family.type === "histogram") {
      new KnownHistogram(registry, family);
      continue;
    }
    const { name, help, samples } = family;
    const labelNames = Object.keys(samples[0]?.labels ?? {});
    const gauge = new Gauge({ name, help, labelNames, registers: [registry] });
    for (const { labels, value } of samples) gauge.set({ ...labels }, value);
  }
  return await registry.metrics();
}
