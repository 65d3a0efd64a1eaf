/**
 * Units: durations, sizes and percentages as people write them in options.
 *
 * Invariant: a parser names the text it refuses and the form it wants.
 */
import { SvcError } from "./errors.ts";

export const KIB = 1024n;
export const MIB = 1024n * KIB;
export const GIB = 1024n * MIB;
export const TIB = 1024n * GIB;

const DURATION_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * "500ms", "10s", "1m 30s" to milliseconds.
 * @throws {SvcError} `invalid-argument`
 */
export function parseDurationMs(text: string): number {
  const parts = [...text.trim().matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)\s*/g)];
  const covered = parts.map((part) => part[0]).join("");
  let total = 0;
  let valid = parts.length > 0 && covered === text.trim();
  for (const [, count, unit] of parts) {
    const scale = DURATION_MS[unit ?? ""];
    if (scale === undefined) valid = false;
    else total += Number(count) * scale;
  }
  if (!valid) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read duration "${text}": write for example 500ms, 10s or 1m`,
    );
  }
  return total;
}

/**
 * "250%" or "250" to 250.
 * @throws {SvcError} `invalid-argument`
 */
export function parsePercent(text: string): number {
  const match = /^(\d{1,6})\s*%?$/.exec(text.trim());
  if (!match) {
    throw new SvcError(
      "invalid-argument",
      `Cannot read percentage "${text}": write for example 40%`,
    );
  }
  return Number(match[1]);
}

/** A bigint that must fit a JSON number: sizes in REST. */
export function toSafeNumber(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) {
    throw new SvcError("out-of-range", `Cannot represent ${value} as a JSON number`);
  }
  return number;
}
