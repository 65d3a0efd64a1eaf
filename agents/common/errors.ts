/**
 * Failures: what can go wrong without anyone having made a mistake in the code.
 *
 * Why: a caller acts on the *kind* of a failure (retry, give up, ask the user), never on its text.
 * Invariants: every failure that crosses a function's edge is an SvcError; a message says what was
 * tried, then the state that stopped it ("Cannot create replica: pool is offline"); values go to `fields`.
 * A broken invariant is no failure: that is `check()`.
 */

/** Every kind of failure, in the order of the published reply kinds. */
export const SVC_ERROR_KINDS = [
  "deserialize",
  "internal",
  "timeout",
  "invalid-argument",
  "deadline-exceeded",
  "not-found",
  "already-exists",
  "permission-denied",
  "resource-exhausted",
  "failed-precondition",
  "aborted",
  "out-of-range",
  "unimplemented",
  "unavailable",
  "unauthenticated",
  "unauthorized",
  "conflict",
  "failed-persist",
  "not-shared",
  "already-shared",
  "not-published",
  "already-published",
  "deleting",
  "in-use",
] as const;

export type SvcErrorKind = (typeof SVC_ERROR_KINDS)[number];

export type ErrorFields = Readonly<Record<string, unknown>>;

/** A failure with a kind a caller can act on. */
export class SvcError extends Error {
  readonly kind: SvcErrorKind;
  readonly fields: ErrorFields;

  constructor(
    kind: SvcErrorKind,
    message: string,
    { fields = {}, cause }: { fields?: ErrorFields; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SvcError";
    this.kind = kind;
    this.fields = fields;
  }
}

export function isKind(error: unknown, ...kinds: readonly SvcErrorKind[]): error is SvcError {
  return error instanceof SvcError && kinds.includes(error.kind);
}

/** The text of anything thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The message of the innermost cause: what REST calls `message`, next to our own text in `details`. */
export function rootMessage(error: unknown): string {
  let current = error;
  for (let depth = 0; depth < 16; depth++) {
    if (!(current instanceof Error) || current.cause === undefined) break;
    current = current.cause;
  }
  return errorMessage(current);
}

/** Wraps anything thrown; an SvcError passes unchanged. */
export function toSvcError(error: unknown, message = "Unexpected failure"): SvcError {
  if (error instanceof SvcError) return error;
  if (error instanceof Error && error.name === "AbortError") {
    return new SvcError("aborted", `${message}: the operation was cancelled`, { cause: error });
  }
  return new SvcError("internal", `${message}: ${errorMessage(error)}`, { cause: error });
}

/** The end of an exhaustive switch: a compile error when a case is missing. */
export function assertNever(value: never): never {
  throw new Error(`unhandled case: ${JSON.stringify(value)}`);
}
