/**
 * SvcError <-> gRPC status, in one place.
 *
 * Why: a published code loses detail (conflict and aborted are both ABORTED), so our own peers also
 * get the exact kind in the trailers; foreign peers read the code alone.
 * Invariants: every kind has a code; a text fits a peer's limit on headers; a status without our
 * trailer becomes the kind of its code; a bug (BugError) never becomes a status: it ends the process.
 */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { BugError } from "../check.ts";
import {
  assertNever,
  errorMessage,
  isKind,
  SVC_ERROR_KINDS,
  SvcError,
  type SvcErrorKind,
} from "../errors.ts";
import { shortMessage } from "./short_text.ts";

/** Trailer that carries the exact kind of a failure between our own processes. */
export const KIND_TRAILER = "mayastor-error-kind";

export function statusOfKind(kind: SvcErrorKind): status {
  switch (kind) {
    case "deserialize":
    case "invalid-argument":
      return status.INVALID_ARGUMENT;
    case "internal":
    case "failed-persist":
      return status.INTERNAL;
    case "timeout":
    case "deadline-exceeded":
      return status.DEADLINE_EXCEEDED;
    case "not-found":
      return status.NOT_FOUND;
    case "already-exists":
      return status.ALREADY_EXISTS;
    case "permission-denied":
    case "unauthorized":
      return status.PERMISSION_DENIED;
    case "resource-exhausted":
      return status.RESOURCE_EXHAUSTED;
    case "failed-precondition":
    case "not-shared":
    case "already-shared":
    case "not-published":
    case "already-published":
    case "deleting":
    case "in-use":
      return status.FAILED_PRECONDITION;
    case "aborted":
    case "conflict":
      return status.ABORTED;
    case "out-of-range":
      return status.OUT_OF_RANGE;
    case "unimplemented":
      return status.UNIMPLEMENTED;
    case "unavailable":
      return status.UNAVAILABLE;
    case "unauthenticated":
      return status.UNAUTHENTICATED;
    default:
      return assertNever(kind);
  }
}

export function kindOfStatus(code: status): SvcErrorKind {
  switch (code) {
    case status.CANCELLED:
    case status.ABORTED:
      return "aborted";
    case status.INVALID_ARGUMENT:
      return "invalid-argument";
    case status.DEADLINE_EXCEEDED:
      return "deadline-exceeded";
    case status.NOT_FOUND:
      return "not-found";
    case status.ALREADY_EXISTS:
      return "already-exists";
    case status.PERMISSION_DENIED:
      return "permission-denied";
    case status.RESOURCE_EXHAUSTED:
      return "resource-exhausted";
    case status.FAILED_PRECONDITION:
      return "failed-precondition";
    case status.OUT_OF_RANGE:
      return "out-of-range";
    case status.UNIMPLEMENTED:
      return "unimplemented";
    case status.UNAVAILABLE:
      return "unavailable";
    case status.UNAUTHENTICATED:
      return "unauthenticated";
    default:
      return "internal"; // OK never reaches here; UNKNOWN, INTERNAL and DATA_LOSS tell no more
  }
}

export type GrpcFailure = {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
};

/** What a server answers for anything a handler threw; a bug ends the process instead. */
export function toGrpcFailure(error: unknown, trailers: Metadata = new Metadata()): GrpcFailure {
  if (error instanceof BugError) {
    setImmediate(() => {
      throw error; // outside of every handler: nothing may catch it
    });
  }
  const kind = error instanceof SvcError ? error.kind : "internal";
  trailers.set(KIND_TRAILER, kind);
  return {
    code: statusOfKind(kind),
    details: shortMessage(errorMessage(error)),
    metadata: trailers,
  };
}

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/** What a client throws for a failed call; `what` names the call ("CreateNexus on 10.1.0.5:10124"). */
export function fromGrpcFailure(error: unknown, what: string): SvcError {
  if (error instanceof SvcError) return error;
  if (!isServiceError(error)) {
    return new SvcError("internal", `Cannot call ${what}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  const trailer = error.metadata.get(KIND_TRAILER)[0];
  const kind = SVC_ERROR_KINDS.find((known) => known === trailer) ?? kindOfStatus(error.code);
  const fields = { "grpc.call": what, "grpc.code": status[error.code] ?? String(error.code) };
  return new SvcError(kind, error.details || `Cannot call ${what}: ${error.message}`, {
    fields,
    cause: error,
  });
}

/** True when the failure says that the peer could not be reached or did not answer in time. */
export function isUnreachable(error: unknown): boolean {
  return isKind(error, "unavailable", "deadline-exceeded");
}
