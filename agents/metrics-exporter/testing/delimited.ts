/** Reads a protobuf page as a server does: each metric family behind its length. */
import { fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { MetricFamilySchema } from "#common/proto/generated/prometheus/metrics_pb.ts";

export function readDelimited(bytes: Uint8Array): MessageShape<typeof MetricFamilySchema>[] {
  const reader = new BinaryReader(bytes);
  const read: MessageShape<typeof MetricFamilySchema>[] = [];
  while (reader.pos < reader.len) read.push(fromBinary(MetricFamilySchema, reader.bytes()));
  return read;
}
