/**
 * A reading as Prometheus text, under the published names.
 *
 * Invariants: `disk_pool_*` are the names of 2.2, `diskpool_*`, `volume_*` and `replica_*` those of later releases,
 * both from the same values; labels are bounded by what is on the node; a new registry for each answer, so that
 * two scrapes never see half of each other.
 */
import { Gauge, Histogram, Registry } from "prom-client";
import { BUCKETS_SEC, type Distribution, type VolumeLatency } from "./latency.ts";
import type { IoReading, OwnedIoReading, PoolReading, Reading } from "./reading.ts";

type Labels = Readonly<Record<string, string>>;

class Page {
  readonly registry = new Registry();

  gauge<T>(
    name: string,
    {
      help,
      items,
      labels,
      value,
    }: {
      help: string;
      items: readonly T[];
      labels: (item: T) => Labels;
      value: (item: T) => number;
    },
  ): void {
    const [first] = items;
    if (first === undefined) return;
    const labelNames = Object.keys(labels(first));
    const gauge = new Gauge({ name, help, labelNames, registers: [this.registry] });
    for (const item of items) gauge.set({ ...labels(item) }, value(item));
  }
}

const POOL_VALUES: readonly {
  readonly suffix: string;
  readonly help: string;
  readonly value: (pool: PoolReading) => number;
}[] = [
  {
    suffix: "total_size_bytes",
    help: "total size of the disk-pool in bytes",
    value: ({ total }) => total,
  },
  {
    suffix: "used_size_bytes",
    help: "used disk-pool size in bytes",
    value: ({ used }) => used,
  },
  {
    suffix: "committed_size_bytes",
    help: "committed size of the disk-pool in bytes",
    value: ({ committed }) => committed,
  },
  { suffix: "status", help: "disk-pool status", value: ({ status }) => status },
];

/** Running totals, published as gauges. */
const IO_VALUES: readonly {
  readonly suffix: string;
  readonly help: string;
  readonly value: (io: IoReading) => number;
}[] = [
  { suffix: "bytes_read", help: "bytes read", value: ({ readBytes }) => readBytes },
  { suffix: "num_read_ops", help: "read operations", value: ({ readOps }) => readOps },
  { suffix: "bytes_written", help: "bytes written", value: ({ writeBytes }) => writeBytes },
  { suffix: "num_write_ops", help: "write operations", value: ({ writeOps }) => writeOps },
  {
    suffix: "read_latency_us",
    help: "time spent in reads in microseconds",
    value: ({ readSec }) => Math.round(readSec * 1e6),
  },
  {
    suffix: "write_latency_us",
    help: "time spent in writes in microseconds",
    value: ({ writeSec }) => Math.round(writeSec * 1e6),
  },
];

/**
 * A classic histogram of counts that are known already: prom-client's own takes one operation at a time, and it has
 * no native ones.
 */
class KnownHistogram extends Histogram<"node" | "pv_name"> {
  readonly #known: { readonly name: string; readonly help: string };
  readonly #series: readonly { readonly labels: Labels; readonly of: Distribution }[];

  constructor(
    { name, help, registry }: { name: string; help: string; registry: Registry },
    series: readonly { readonly labels: Labels; readonly of: Distribution }[],
  ) {
    super({ name, help, labelNames: ["node", "pv_name"], registers: [registry] });
    this.#known = { name, help };
    this.#series = series;
  }

  /** What the registry writes; it prefers this to get(). */
  async getForPromString() {
    const { name, help } = this.#known;
    const values = this.#series.flatMap(({ labels, of: { cumulative, sum, count } }) => [
      ...cumulative.map((value, index) => ({
        metricName: `${name}_bucket`,
        labels: { ...labels, le: BUCKETS_SEC[index] ?? "+Inf" },
        value,
      })),
      { metricName: `${name}_sum`, labels, value: sum },
      { metricName: `${name}_count`, labels, value: count },
    ]);
    return { name, help, type: "histogram", values };
  }
}

const pvName = (volume: string): string => (volume === "" ? "" : `pvc-${volume}`);

export async function render(
  node: string,
  { reading, latencies }: { reading: Reading; latencies: readonly VolumeLatency[] },
): Promise<{ readonly contentType: string; readonly text: string }> {
  const page = new Page();
  const { pools, poolIo, volumeIo, replicaIo } = reading;
  const named = ({ name }: { name: string }): Labels => ({ node, name });
  for (const prefix of ["disk_pool", "diskpool"]) {
    for (const { suffix, help, value } of POOL_VALUES) {
      page.gauge(`${prefix}_${suffix}`, { help, items: pools, labels: named, value });
    }
  }
  const owned = ({ volume }: OwnedIoReading): Labels => ({ node, pv_name: pvName(volume) });
  const volumes = volumeIo.filter(({ volume }) => volume !== "");
  for (const { suffix, help, value } of IO_VALUES) {
    const of = (what: string) => `${help} of the ${what} since its engine started`;
    page.gauge(`diskpool_${suffix}`, { help: of("pool"), items: poolIo, labels: named, value });
    page.gauge(`volume_${suffix}`, { help: of("volume"), items: volumes, labels: owned, value });
    page.gauge(`replica_${suffix}`, {
      help: of("replica"),
      items: replicaIo,
      labels: (replica) => ({ ...named(replica), pv_name: pvName(replica.volume) }),
      value,
    });
  }
  for (const kind of ["read", "write"] as const) {
    if (latencies.length === 0) continue;
    const name = `volume_${kind}_latency_seconds`;
    const help = `latency of ${kind}s of the volume: operations by the mean of their sampling interval`;
    const series = latencies.map((latency) => ({
      labels: { node, pv_name: pvName(latency.volume) },
      of: latency[kind],
    }));
    new KnownHistogram({ name, help, registry: page.registry }, series);
  }
  return { contentType: page.registry.contentType, text: await page.registry.metrics() };
}
