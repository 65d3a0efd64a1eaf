/**
 * A reading as metric families under the published names, whatever format they are then written in.
 *
 * Invariants: `disk_pool_*` are the names of 2.2, `diskpool_*`, `volume_*` and `replica_*` those of later releases,
 * both from the same values; labels are bounded by what is on the node; one sample per set of labels.
 */
import { type Histogram, mergeHistograms } from "./histogram.ts";
import type {
  HealthReading,
  IoReading,
  LatencyReading,
  OwnedIoReading,
  PoolReading,
  Reading,
} from "./reading.ts";

export type Labels = Readonly<Record<string, string>>;
export type Sample<T> = { readonly labels: Labels; readonly value: T };
type Named = { readonly name: string; readonly help: string };

export type GaugeFamily = Named & {
  readonly type: "gauge";
  readonly samples: readonly Sample<number>[];
};
export type HistogramFamily = Named & {
  readonly type: "histogram";
  readonly samples: readonly Sample<Histogram>[];
};
/** With at least one sample. */
export type Family = GaugeFamily | HistogramFamily;

type Column<T> = {
  readonly suffix: string;
  readonly help: string;
  readonly value: (item: T) => number;
};

const POOL_VALUES: readonly Column<PoolReading>[] = [
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

/** Our own addition to the published names. */
const HEALTH_VALUES: readonly Column<HealthReading>[] = [
  {
    suffix: "read_errors",
    help: "reads that the disk failed, since the pool was loaded",
    value: ({ readErrors }) => readErrors,
  },
  {
    suffix: "write_errors",
    help: "writes and flushes that the disk failed, since the pool was loaded",
    value: ({ writeErrors }) => writeErrors,
  },
  {
    suffix: "slow_requests",
    help: "requests that took the disk more than four seconds, since the pool was loaded",
    value: ({ slowRequests }) => slowRequests,
  },
  {
    suffix: "oldest_request_seconds",
    help: "how long the oldest request that has not ended has been waiting for the disk",
    value: ({ waitingSec }) => waitingSec,
  },
];

/** Running totals, published as gauges. */
const IO_VALUES: readonly Column<IoReading>[] = [
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

/** Two that cannot be added up (engines of two releases): the later one alone. */
function mergedOrLater(a: Histogram, b: Histogram): Histogram {
  return a.schema === b.schema && a.zeroThreshold === b.zeroThreshold ? mergeHistograms(a, b) : b;
}

/** One sample per set of labels; `merge` joins those that share one, null: the last one stays. */
function samplesOf<Item, T>(
  items: readonly Item[],
  {
    labels,
    value,
    merge,
  }: {
    labels: (item: Item) => Labels;
    value: (item: Item) => T;
    merge: ((a: T, b: T) => T) | null;
  },
): Sample<T>[] {
  const samples = new Map<string, Sample<T>>();
  for (const item of items) {
    const own = labels(item);
    const key = JSON.stringify(own);
    const known = samples.get(key);
    const joined = known && merge ? merge(known.value, value(item)) : value(item);
    samples.set(key, { labels: own, value: joined });
  }
  return [...samples.values()];
}

/** Our own addition to the published names: the other metrics of an engine that is down are not there to be asked. */
const REACHABLE = "mayastor_exporter_engine_reachable";

/** What is always there, whatever the engine says. */
export function engineFamily(node: string, isReachable: boolean): Family {
  return {
    type: "gauge",
    name: REACHABLE,
    help: "whether the io-engine of the node answered: 1, or 0 and none of its metrics are shown",
    samples: [{ labels: { node }, value: isReachable ? 1 : 0 }],
  };
}

/** Parts of a page by name; those that cannot be read have the age of their figures, or null for none. */
export function partFamilies(node: string, ages: ReadonlyMap<string, number | null>): Family[] {
  const failing = [...ages.keys()].map((part) => ({ labels: { node, part }, value: 1 }));
  const aged = [...ages].flatMap(([part, value]) =>
    value === null ? [] : [{ labels: { node, part }, value }],
  );
  const families: Family[] = [
    {
      type: "gauge",
      name: "mayastor_exporter_part_failed",
      help: "1 for what the io-engine, which answers otherwise, did not tell the last time",
      samples: failing,
    },
    {
      type: "gauge",
      name: "mayastor_exporter_part_age_seconds",
      help: "age of the figures that are shown of such a part",
      samples: aged,
    },
  ];
  return families.filter(({ samples }) => samples.length > 0);
}

const pvName = (volume: string): string => (volume === "" ? "" : `pvc-${volume}`);

export function familiesOf(node: string, reading: Reading): readonly Family[] {
  const { pools, poolHealth, poolIo, volumeIo, replicaIo, latencies } = reading;
  const families: Family[] = [];
  const gauges = <Item>(
    prefix: string,
    columns: readonly Column<Item>[],
    { items, labels, of }: { items: readonly Item[]; labels: (item: Item) => Labels; of: string },
  ) => {
    for (const { suffix, help, value } of items.length === 0 ? [] : columns) {
      const samples = samplesOf(items, { labels, value, merge: null });
      families.push({ type: "gauge", name: `${prefix}_${suffix}`, help: `${help}${of}`, samples });
    }
  };
  const histograms = (
    prefix: string,
    what: string,
    { items, labels }: { items: readonly LatencyReading[]; labels: (io: LatencyReading) => Labels },
  ) => {
    for (const kind of items.length === 0 ? [] : (["read", "write", "unmap"] as const)) {
      const name = `${prefix}_${kind}_latency_seconds`;
      const help = `latency of ${kind}s of the ${what} since its engine started`;
      const value = (item: LatencyReading) => item[kind];
      const samples = samplesOf(items, { labels, value, merge: mergedOrLater });
      families.push({ type: "histogram", name, help, samples });
    }
  };

  const named = ({ name }: { name: string }): Labels => ({ node, name });
  const owned = ({ volume }: { volume: string }): Labels => ({ node, pv_name: pvName(volume) });
  const replica = (item: { name: string; volume: string }): Labels => ({
    ...named(item),
    pv_name: pvName(item.volume),
  });
  gauges("disk_pool", POOL_VALUES, { items: pools, labels: named, of: "" });
  gauges("diskpool", POOL_VALUES, { items: pools, labels: named, of: "" });
  gauges("diskpool", HEALTH_VALUES, { items: poolHealth, labels: named, of: "" });
  const of = (what: string) => ` of the ${what} since its engine started`;
  gauges("diskpool", IO_VALUES, { items: poolIo, labels: named, of: of("pool") });
  const volumes: readonly OwnedIoReading[] = volumeIo.filter(({ volume }) => volume !== "");
  gauges("volume", IO_VALUES, { items: volumes, labels: owned, of: of("volume") });
  gauges("replica", IO_VALUES, { items: replicaIo, labels: replica, of: of("replica") });

  const measured = (wanted: LatencyReading["kind"]) =>
    latencies.filter(({ kind, volume }) => kind === wanted && (kind !== "nexus" || volume !== ""));
  histograms("diskpool", "pool", { items: measured("pool"), labels: named });
  histograms("volume", "volume", { items: measured("nexus"), labels: owned });
  histograms("replica", "replica", { items: measured("replica"), labels: replica });
  return families;
}
