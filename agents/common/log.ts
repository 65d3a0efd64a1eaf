/**
 * Logs: JSON lines on stdout, one constant message and its values as fields.
 *
 * Why: support bundles and alerts select on fields, so a value never hides in the text.
 * Invariants: `component` is on every line; errors become {kind, message, stack} under their key;
 * bigint becomes a decimal string. Level from LOG_LEVEL, or RUST_LOG as published manifests set
 * it (default info). A reader that is gone, or does not read, costs log lines, never the program: it
 * neither hangs nor ends for want of a log.
 */
import { writeSync } from "node:fs";
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

const STDOUT = 1;
/** How long one line waits for a reader that lags behind. */
const FULL_WAIT_MS = 20;
const FULL_WAITS_MAX = 5;

function errnoOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

/** Writes whole lines at once, without a buffer that would have to be flushed at the end. */
export function lineWriter(fd: number): { write(line: string): void } {
  const clock = new Int32Array(new SharedArrayBuffer(4)); // nobody wakes it: a pause without an event loop
  let isLagging = false;
  let isCut = false; // the last line is there in part only
  const writeAll = (bytes: Buffer): void => {
    let waits = 0;
    for (let done = 0; done < bytes.length; ) {
      try {
        done += writeSync(fd, bytes, done);
        waits = 0;
        isLagging = false;
        isCut = false;
      } catch (error) {
        if (errnoOf(error) !== "EAGAIN") return; // EPIPE and the like: nobody reads any more
        // A line once begun is worth waiting for; while the reader lags, a new one is not.
        if (waits >= FULL_WAITS_MAX || (isLagging && done === 0)) {
          isLagging = true;
          isCut ||= done > 0;
          return;
        }
        waits += 1;
        Atomics.wait(clock, 0, 0, FULL_WAIT_MS);
      }
    }
  };
  return { write: (line) => writeAll(Buffer.from(isCut ? `\n${line}` : line)) };
}

/** Makes the log of one component, e.g. `createLog("agent-core")`. */
export function createLog(component: string): Log {
  const wanted = process.env["LOG_LEVEL"] ?? process.env["RUST_LOG"] ?? "info";
  const options = {
    level: LEVELS.includes(wanted) ? wanted : "info",
    base: { component },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: {},
  };
  const logger = pino(options, lineWriter(STDOUT));
  return {
    debug: (message, fields = {}) => logger.debug(encodeFields(fields), message),
    info: (message, fields = {}) => logger.info(encodeFields(fields), message),
    warn: (message, fields = {}) => logger.warn(encodeFields(fields), message),
    error: (message, fields = {}) => logger.error(encodeFields(fields), message),
  };
}

/** A log that keeps nothing: for tests and for libraries used without one. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
