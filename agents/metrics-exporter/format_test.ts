import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MetricType } from "#common/proto/generated/prometheus/metrics_pb.ts";
import { familiesOf } from "./families.ts";
import { chooseFormat } from "./negotiate.ts";
import { writeProtobuf } from "./protobuf.ts";
import { volumeOf } from "./reading.ts";
import { readDelimited } from "./testing/delimited.ts";
import { HISTOGRAM, READING, VOLUME } from "./testing/reading.ts";
import { writeText } from "./text.ts";

const families = familiesOf("worker-0", READING);
const VOLUME_LABELS = `node="worker-0",pv_name="pvc-${VOLUME}"`;

test("volumeOf() finds the volume in the name of a nexus", () => {
  assert.equal(volumeOf(VOLUME), VOLUME);
  assert.equal(volumeOf(`nexus-${VOLUME}`), VOLUME);
  assert.equal(volumeOf("nexus0"), "");
});

test("writeText() writes the documented pool metrics", async () => {
  const text = await writeText(families);
  const labels = '{node="worker-0",name="mayastor-disk-pool"}';
  for (const line of [
    "# HELP disk_pool_status disk-pool status",
    "# TYPE disk_pool_status gauge",
    `disk_pool_status${labels} 1`,
    "# HELP disk_pool_total_size_bytes total size of the disk-pool in bytes",
    `disk_pool_total_size_bytes${labels} 5360320512`,
    `disk_pool_used_size_bytes${labels} 2147483648`,
    `disk_pool_committed_size_bytes${labels} 9663676416`,
    `diskpool_status${labels} 1`,
    `diskpool_read_errors${labels} 3`,
    `diskpool_write_errors${labels} 1`,
    `diskpool_slow_requests${labels} 2`,
    `diskpool_oldest_request_seconds${labels} 1.5`,
    `diskpool_num_read_ops${labels} 1`,
    `volume_num_read_ops{${VOLUME_LABELS}} 10`,
    `volume_read_latency_us{${VOLUME_LABELS}} 10000`,
    `volume_write_latency_us{${VOLUME_LABELS}} 4000`,
    `replica_bytes_written{node="worker-0",name="r1",pv_name="pvc-${VOLUME}"} 8192`,
  ]) {
    assert.ok(text.split("\n").includes(line), `${line}\nnot in\n${text}`);
  }
  const types = text.split("\n").filter((line) => line.startsWith("# TYPE"));
  assert.equal(new Set(types).size, types.length, "one family each");
});

test("writeText() writes latencies as classic histograms", async () => {
  const lines = (await writeText(families)).split("\n");
  assert.ok(lines.includes("# TYPE volume_read_latency_seconds histogram"));
  const bucket = (le: string) => `volume_read_latency_seconds_bucket{${VOLUME_LABELS},le="${le}"}`;
  for (const line of [
    `${bucket("0.00048828125")} 2`,
    `${bucket("0.0009765625")} 5`,
    `${bucket("0.001953125")} 9`,
    `${bucket("16")} 9`,
    `${bucket("+Inf")} 10`,
    `volume_read_latency_seconds_sum{${VOLUME_LABELS}} 501.5`,
    `volume_read_latency_seconds_count{${VOLUME_LABELS}} 10`,
    'diskpool_read_latency_seconds_count{node="worker-0",name="mayastor-disk-pool"} 10',
    `replica_read_latency_seconds_count{node="worker-0",name="r1",pv_name="pvc-${VOLUME}"} 10`,
  ]) {
    assert.ok(lines.includes(line), `${line}\nnot in\n${lines.join("\n")}`);
  }
});

test("familiesOf() adds up two nexuses of one volume, and skips what is no volume", () => {
  const twice = { ...READING, latencies: [...READING.latencies, ...READING.latencies] };
  const found = familiesOf("n", twice).find(({ name }) => name === "volume_read_latency_seconds");
  assert.ok(found?.type === "histogram");
  assert.equal(found.samples.length, 1);
  assert.equal(found.samples[0]?.value.count, 2 * HISTOGRAM.count);
});

test("writeProtobuf() writes every family of the text, with native histograms", async () => {
  const read = readDelimited(writeProtobuf(families));
  const text = await writeText(families);
  const inText = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
  assert.deepEqual(read.map(({ name }) => name).toSorted(), inText.toSorted());

  const status = read.find(({ name }) => name === "disk_pool_status");
  assert.equal(status?.type, MetricType.GAUGE);
  assert.equal(status?.metric[0]?.gauge?.value, 1);

  const latency = read.find(({ name }) => name === "volume_read_latency_seconds");
  assert.equal(latency?.type, MetricType.HISTOGRAM);
  const [metric] = latency?.metric ?? [];
  assert.deepEqual(
    metric?.label.map(({ name, value }) => [name, value]),
    [
      ["node", "worker-0"],
      ["pv_name", `pvc-${VOLUME}`],
    ],
  );
  const histogram = metric?.histogram;
  assert.equal(histogram?.schema, 3);
  assert.equal(histogram?.zeroThreshold, 2 ** -23);
  assert.equal(histogram?.zeroCount, 2n);
  assert.equal(histogram?.sampleCount, 10n);
  assert.equal(histogram?.sampleSum, 501.5);
  assert.deepEqual(
    histogram?.positiveSpan.map(({ offset, length }) => [offset, length]),
    [
      [-80, 2],
      [150, 1],
    ],
  );
  assert.deepEqual(histogram?.positiveDelta, [3n, 1n, -3n]);
  assert.equal(histogram?.bucket.at(-1)?.cumulativeCount, 9n);
});

const FULL =
  "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const accepts: readonly [string | undefined, "protobuf" | "text"][] = [
  [undefined, "text"],
  ["", "text"],
  ["*/*", "text"],
  // As sent with native histograms on, and off.
  [
    `${FULL},application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1`,
    "protobuf",
  ],
  [
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "text",
  ],
  [FULL.replaceAll(";", " ; ").toUpperCase(), "protobuf"],
  [FULL.replace("delimited", '"delimited"'), "protobuf"],
  [`${FULL};q=0.4,text/plain;q=0.5`, "text"],
  [`${FULL};q=0`, "text"],
  [`${FULL};q=2`, "text"],
  [`${FULL};q=x`, "text"],
  ["application/vnd.google.protobuf", "text"],
  [FULL.replace("delimited", "text"), "text"],
  [FULL.replace("MetricFamily", "Other"), "text"],
  [`${"a/b,".repeat(40)}${FULL}`, "text"],
];
for (const [accept, format] of accepts) {
  test(`chooseFormat() is ${format} for ${accept?.slice(0, 100)}`, () => {
    assert.equal(chooseFormat(accept), format);
  });
}

test("chooseFormat() takes any header", () => {
  const pieces = fc.array(fc.constantFrom(FULL, ";", ",", "=", "q", "0.5", '"', " ", "text/plain"));
  const headers = fc.oneof(
    fc.string({ maxLength: 200 }),
    pieces.map((all) => all.join("")),
  );
  fc.assert(
    fc.property(headers, (header) => {
      const format = chooseFormat(header);
      assert.ok(format === "text" || header.includes("vnd.google.protobuf"));
    }),
  );
});
