/**
 * A latency distribution as the engine counts it, and the two shapes a scraper may want of it.
 *
 * Invariants: bucket i holds (2^((i-1)/2^schema), 2^(i/2^schema)] seconds, ascending, none empty, which is the layout
 * of Prometheus native histograms, so that nothing is lost on the way; the classic bounds are powers of two, which
 * are bounds of every schema here, so that their counts are exact as well. What comes from the engine is checked.
 */
import { SvcError } from "#common/errors.ts";
import type { LatencyHistogram } from "#common/proto/generated/mayastor/extension/v1/latency_pb.ts";

/** Native schemas go from -4 to 8; below 0 a bucket is wider than from one classic bound to the next. */
const SCHEMA_MAX = 8;
/** Far more than 2^-30 s to 2^10 s has at the finest schema; a larger answer is not one of an engine. */
const BUCKETS_MAX = 16_384;
/** From 15 us, a local read, to 16 s, a stalled disk. */
const CLASSIC_EXPONENTS = { first: -16, last: 4 };

export type Histogram = {
  readonly schema: number;
  /** Seconds; what is not above counts as zero. */
  readonly zeroThreshold: number;
  readonly zeroCount: number;
  readonly buckets: readonly { readonly index: number; readonly count: number }[];
  readonly sumSec: number;
  readonly count: number;
};

/** @throws {SvcError} `internal` when it is not a histogram */
export function readHistogram(wire: LatencyHistogram | undefined, what: string): Histogram {
  const refuse = (why: string): never => {
    throw new SvcError("internal", `Cannot read the latencies of ${what}: ${why}`);
  };
  if (wire === undefined) return refuse("there is no histogram");
  const { schema, zeroThresholdSec, bucketIndexes, bucketCounts } = wire;
  if (schema < 0 || schema > SCHEMA_MAX) return refuse(`schema ${schema} is not known`);
  if (!(zeroThresholdSec >= 0 && zeroThresholdSec <= 1)) {
    return refuse(`zero threshold ${zeroThresholdSec} is not from 0 to 1 s`);
  }
  if (bucketIndexes.length !== bucketCounts.length || bucketIndexes.length > BUCKETS_MAX) {
    return refuse(`${bucketIndexes.length} buckets with ${bucketCounts.length} counts`);
  }
  let total = wire.zeroCount;
  const buckets = bucketIndexes.flatMap((index, at) => {
    const previous = bucketIndexes[at - 1];
    if (previous !== undefined && previous >= index) return refuse("buckets are not ascending");
    const count = bucketCounts[at] ?? 0n;
    total += count;
    return count === 0n ? [] : [{ index, count: Number(count) }];
  });
  return {
    ...{ schema, buckets, zeroThreshold: zeroThresholdSec },
    zeroCount: Number(wire.zeroCount),
    sumSec: Number(wire.sumNs) / 1e9,
    count: Number(total),
  };
}

/**
 * Both together: two nexuses of one volume at once, while it moves.
 * @throws {SvcError} `internal` when their layouts differ
 */
export function mergeHistograms(a: Histogram, b: Histogram): Histogram {
  if (a.schema !== b.schema || a.zeroThreshold !== b.zeroThreshold) {
    throw new SvcError("internal", "Cannot add up latencies: their buckets differ");
  }
  const counts = new Map(a.buckets.map(({ index, count }) => [index, count]));
  for (const { index, count } of b.buckets) counts.set(index, (counts.get(index) ?? 0) + count);
  const buckets = [...counts].map(([index, count]) => ({ index, count }));
  return {
    schema: a.schema,
    zeroThreshold: a.zeroThreshold,
    zeroCount: a.zeroCount + b.zeroCount,
    buckets: buckets.toSorted((x, y) => x.index - y.index),
    sumSec: a.sumSec + b.sumSec,
    count: a.count + b.count,
  };
}

export type ClassicBucket = { readonly upperSec: number; readonly cumulative: number };

/** Operations at or below each bound; without the last bucket, which has no bound and holds all. */
export function classicBuckets({ schema, zeroCount, buckets }: Histogram): ClassicBucket[] {
  const classic: ClassicBucket[] = [];
  const { first, last } = CLASSIC_EXPONENTS;
  let at = 0;
  let cumulative = zeroCount;
  for (let exponent = first; exponent <= last; exponent += 1) {
    for (let next = buckets[at]; next && next.index <= exponent * 2 ** schema; next = buckets[at]) {
      cumulative += next.count;
      at += 1;
    }
    classic.push({ upperSec: 2 ** exponent, cumulative });
  }
  return classic;
}

export type SparseBuckets = {
  readonly spans: readonly { readonly offset: number; readonly length: number }[];
  readonly deltas: readonly bigint[];
};

/** Runs of neighbouring buckets, and each count as the difference to the one before. */
export function sparseBuckets({ buckets }: Histogram): SparseBuckets {
  const spans: { offset: number; length: number }[] = [];
  const deltas: bigint[] = [];
  let end = 0;
  let previous = 0;
  for (const { index, count } of buckets) {
    const span = spans.at(-1);
    if (span !== undefined && index === end) span.length += 1;
    else spans.push({ offset: index - end, length: 1 });
    end = index + 1;
    deltas.push(BigInt(count) - BigInt(previous));
    previous = count;
  }
  return { spans, deltas };
}
