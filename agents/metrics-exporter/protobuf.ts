/**
 * Metric families as a stream of protobuf messages, each behind its length: the one format whose histograms are
 * native. Classic buckets go along for servers that are told to take those instead.
 */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  MetricFamilySchema,
  type MetricSchema,
  MetricType,
} from "#common/proto/generated/prometheus/metrics_pb.ts";
import type { Family, Labels } from "./families.ts";
import { classicBuckets, type Histogram, sparseBuckets } from "./histogram.ts";

export const PROTOBUF_TYPE =
  "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

type Metric = MessageInitShape<typeof MetricSchema>;

const labelPairs = (labels: Labels) =>
  Object.entries(labels).map(([name, value]) => ({ name, value }));

function nativeHistogram(histogram: Histogram): NonNullable<Metric["histogram"]> {
  const { spans, deltas } = sparseBuckets(histogram);
  return {
    sampleCount: BigInt(histogram.count),
    sampleSum: histogram.sumSec,
    bucket: classicBuckets(histogram).map(({ upperSec, cumulative }) => ({
      upperBound: upperSec,
      cumulativeCount: BigInt(cumulative),
    })),
    schema: histogram.schema,
    zeroThreshold: histogram.zeroThreshold,
    zeroCount: BigInt(histogram.zeroCount),
    positiveSpan: [...spans],
    positiveDelta: [...deltas],
  };
}

function metricsOf(family: Family): Metric[] {
  if (family.type === "gauge") {
    return family.samples.map(({ labels, value }) => ({
      label: labelPairs(labels),
      gauge: { value },
    }));
  }
  return family.samples.map(({ labels, value }) => ({
    label: labelPairs(labels),
    histogram: nativeHistogram(value),
  }));
}

export function writeProtobuf(families: readonly Family[]): Uint8Array {
  const writer = new BinaryWriter();
  for (const family of families) {
    const { name, help } = family;
    const type = family.type === "gauge" ? MetricType.GAUGE : MetricType.HISTOGRAM;
    const message = create(MetricFamilySchema, { name, help, type, metric: metricsOf(family) });
    writer.bytes(toBinary(MetricFamilySchema, message)); // its length, then itself
  }
  return writer.finish();
}
