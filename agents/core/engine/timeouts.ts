/**
 * How long a call to an engine may take: the configured timeout, raised to the published floor of its kind.
 *
 * Invariant: a floor only raises; a larger configured value wins.
 */
export type TimeoutConfig = {
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly minTimeouts: boolean;
};

const FLOOR_MS = {
  replica: 10_000,
  nexus: 30_000,
  pool: 20_000,
  nexusShutdown: 15_000,
} as const;

/** A connection may take this much longer than configured. */
const CONNECT_EXTRA_MS = 500;

export type CallKind = keyof typeof FLOOR_MS | "other" | "probe";

export function timeoutMs(kind: CallKind, config: TimeoutConfig): number {
  if (kind === "probe") return config.connectTimeoutMs + CONNECT_EXTRA_MS;
  const floorMs = kind === "other" || !config.minTimeouts ? 0 : FLOOR_MS[kind];
  return Math.max(config.requestTimeoutMs, floorMs);
}
