import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { isKind } from "#common/errors.ts";
import { silentLog } from "#common/log.ts";
import {
  ObjectLatencies_Kind as Kind,
  LatencyHistogramSchema,
  ObjectLatenciesSchema,
} from "#common/proto/generated/mayastor/extension/v1/latency_pb.ts";
import { classicBuckets, mergeHistograms, readHistogram, sparseBuckets } from "./histogram.ts";
import { latencyOf } from "./reading.ts";
import { EMPTY, HISTOGRAM } from "./testing/reading.ts";

type Wire = MessageInitShape<typeof LatencyHistogramSchema>;
const WIRE = {
  schema: 3,
  zeroThresholdSec: 2 ** -23,
  zeroCount: 2n,
  sumNs: 501_500_000_000n,
  bucketIndexes: [-80, -79, 72],
  bucketCounts: [3n, 4n, 1n],
};
const read = (wire: Wire) => readHistogram(create(LatencyHistogramSchema, wire), "nexus n");

test("readHistogram() reads what the engine counts", () => {
  assert.deepEqual(read(WIRE), HISTOGRAM);
});

test("an object with a histogram that is none is left out, and nothing else", () => {
  const object = (name: string, write: Wire) =>
    create(ObjectLatenciesSchema, { kind: Kind.POOL, name, read: WIRE, write, unmap: WIRE });
  const all = [object("good", WIRE), object("bad", { ...WIRE, schema: 9 }), object("too", WIRE)];
  const names = all.flatMap((one) => latencyOf(one, silentLog)).map(({ name }) => name);
  assert.deepEqual(names, ["good", "too"]);
});

const bad: readonly [string, Wire, RegExp][] = [
  ["a schema coarser than the classic bounds", { ...WIRE, schema: -1 }, /schema -1 is not known/],
  ["an unknown schema", { ...WIRE, schema: 9 }, /schema 9 is not known/],
  ["a threshold that is no number", { ...WIRE, zeroThresholdSec: Number.NaN }, /threshold NaN/],
  ["a negative threshold", { ...WIRE, zeroThresholdSec: -1 }, /threshold -1/],
  ["a missing count", { ...WIRE, bucketCounts: [1n] }, /3 buckets with 1 counts/],
  ["buckets out of order", { ...WIRE, bucketIndexes: [1, 3, 2] }, /not ascending/],
  ["a bucket twice", { ...WIRE, bucketIndexes: [1, 1, 2] }, /not ascending/],
  [
    "too many buckets",
    {
      ...WIRE,
      bucketIndexes: Array.from({ length: 16_385 }, (_, index) => index),
      bucketCounts: new Array<bigint>(16_385).fill(1n),
    },
    /16385 buckets/,
  ],
];
for (const [what, wire, message] of bad) {
  test(`readHistogram() refuses ${what}`, () => {
    assert.throws(
      () => read(wire),
      (error) => isKind(error, "internal") && message.test(error.message),
    );
  });
}

test("readHistogram() refuses an answer without histogram", () => {
  assert.throws(() => readHistogram(undefined, "nexus n"), /Cannot read the latencies of nexus n/);
});

test("classicBuckets() are exact at their bounds", () => {
  const at = (sec: number) =>
    classicBuckets(HISTOGRAM).find(({ upperSec }) => upperSec === sec)?.cumulative;
  assert.equal(at(2 ** -16), 2);
  assert.equal(at(2 ** -11), 2);
  assert.equal(at(2 ** -10), 5); // bucket -80 ends there
  assert.equal(at(2 ** -9), 9);
  assert.equal(at(16), 9);
});

test("sparseBuckets() are runs and differences", () => {
  assert.deepEqual(sparseBuckets(HISTOGRAM), {
    spans: [
      { offset: -80, length: 2 },
      { offset: 150, length: 1 },
    ],
    deltas: [3n, 1n, -3n],
  });
  assert.deepEqual(sparseBuckets(EMPTY), { spans: [], deltas: [] });
});

const histograms = fc
  .record({
    indexes: fc.uniqueArray(fc.integer({ min: -184, max: 80 }), { maxLength: 60 }),
    counts: fc.array(fc.integer({ min: 1, max: 2 ** 40 }), { minLength: 60, maxLength: 60 }),
    zeroCount: fc.integer({ min: 0, max: 1000 }),
  })
  .map(({ indexes, counts, zeroCount }) =>
    read({
      ...WIRE,
      zeroCount: BigInt(zeroCount),
      bucketIndexes: indexes.toSorted((a, b) => a - b),
      bucketCounts: counts.slice(0, indexes.length).map(BigInt),
    }),
  );

test("sparseBuckets() lose nothing", () => {
  fc.assert(
    fc.property(histograms, (histogram) => {
      const { spans, deltas } = sparseBuckets(histogram);
      const found: { index: number; count: number }[] = [];
      let [index, count, at] = [0, 0n, 0];
      for (const { offset, length } of spans) {
        index += offset;
        for (let i = 0; i < length; i += 1) {
          count += deltas[at] ?? 0n;
          at += 1;
          found.push({ index, count: Number(count) });
          index += 1;
        }
      }
      assert.equal(at, deltas.length);
      assert.deepEqual(found, histogram.buckets);
    }),
  );
});

test("classicBuckets() count what a search finds, and never fall", () => {
  fc.assert(
    fc.property(histograms, (histogram) => {
      let previous = 0;
      for (const { upperSec, cumulative } of classicBuckets(histogram)) {
        const below = histogram.buckets
          .filter(({ index }) => 2 ** (index / 8) <= upperSec)
          .reduce((sum, { count }) => sum + count, histogram.zeroCount);
        assert.equal(cumulative, below);
        assert.ok(cumulative >= previous && cumulative <= histogram.count);
        previous = cumulative;
      }
    }),
  );
});

test("mergeHistograms() adds up, in any order", () => {
  fc.assert(
    fc.property(histograms, histograms, (a, b) => {
      const merged = mergeHistograms(a, b);
      assert.deepEqual(merged, mergeHistograms(b, a));
      assert.equal(merged.count, a.count + b.count);
      const counted = merged.buckets.reduce((sum, { count }) => sum + count, merged.zeroCount);
      assert.equal(counted, merged.count);
      assert.deepEqual(mergeHistograms(a, { ...EMPTY }), a);
    }),
  );
  assert.throws(() => mergeHistograms(EMPTY, { ...EMPTY, schema: 2 }), /their buckets differ/);
});
