/**
 * Random: the only door to randomness, so that a seed replays a whole cluster.
 *
 * Invariant: uuid() is a well-formed lower-case version 4 uuid from either source.
 */
import { randomBytes, randomUUID } from "node:crypto";

export interface Random {
  uuid(): string;
  uint32(): number;
}

export const systemRandom: Random = {
  uuid: () => randomUUID(),
  uint32: () => randomBytes(4).readUInt32LE(0),
};

/** Repeatable: the same seed gives the same sequence (mulberry32). Not for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const uint32 = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const uuid = (): string => {
    const bytes = Buffer.alloc(16);
    for (let offset = 0; offset < 16; offset += 4) bytes.writeUInt32LE(uint32(), offset);
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const hex = bytes.toString("hex");
    return [
      hex.slice(0, 8),
      hex.slice(8, 12),
      hex.slice(12, 16),
      hex.slice(16, 20),
      hex.slice(20),
    ].join("-");
  };
  return { uuid, uint32 };
}
