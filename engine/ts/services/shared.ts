/** What several services check the same way. */
import { parseNqn } from "#common/nqn.ts";

/** Host NQNs, each well formed. @throws {SvcError} `invalid-argument` */
export function allowedHosts(hosts: readonly string[]): string[] {
  return hosts.map(parseNqn);
}

const NS_PER_SEC = 1_000_000_000n;

/** Nanoseconds since the epoch -> google.protobuf.Timestamp. */
export function toTimestamp(ns: bigint): { seconds: bigint; nanos: number } {
  return { seconds: ns / NS_PER_SEC, nanos: Number(ns % NS_PER_SEC) };
}

export function fromTimestamp({ seconds, nanos }: { seconds: bigint; nanos: number }): bigint {
  return seconds * NS_PER_SEC + BigInt(nanos);
}
