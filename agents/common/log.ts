/**
 * Logs: JSON lines on stdout, one constant message and its values as fields.
 *
 * Why: support bundles and alerts select on fields, so a value never hides in the text.
 * Invariants: `component` is on every line; errors become {kind, message, stack} under their key;
 * bigint becomes a decimal string. Level from LOG_LEVEL, or RUST_LOG as published manifests set
 * it (default info).
 */
import { pino } from "pino";
import { SvcError } from "./errors.ts";

export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

const LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"];

function loggable(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof SvcError) {
    const cause = value.cause === undefined ? {} : { cause: loggable(value.cause) };
    return { kind: value.kind, message: value.message, ...encodeFields(value.fields), ...cause };
  }
  if (value instanceof Error) {
    return { name: value.name, message: value.message, stack: value.stack };
  }
  return value;
}

function encodeFields(fields: LogFields): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, loggable(value)]));
}

/** Makes the log of one component, e.g. `createLog("agent-core")`. */
export function createLog(component: string): Log {
  const wanted = process.env["LOG_LEVEL"] ?? process.env["RUST_LOG"] ?? "info";
  const logger = pino({
    level: LEVELS.includes(wanted) ? wanted : "info",
    base: { component },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: {},
  });
  return {
    debug: (message, fields = {}) => logger.debug(encodeFields(fields), message),
    info: (message, fields = {}) => logger.info(encodeFields(fields), message),
    warn: (message, fields = {}) => logger.warn(encodeFields(fields), message),
    error: (message, fields = {}) => logger.error(encodeFields(fields), message),
  };
}

/** A log that keeps nothing: for tests and for libraries used without one. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
