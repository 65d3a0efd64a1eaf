/**
 * REST errors: the HTTP status of each kind and the way between SvcError and the published body.
 *
 * Why: one table, so that server, clients and document agree. Invariant: kinds map one to one, both ways.
 */
import { check } from "../check.ts";
import {
  errorMessage,
  rootMessage,
  SVC_ERROR_KINDS,
  SvcError,
  type SvcErrorKind,
} from "../errors.ts";
import type { RestErrorKind, RestJsonError } from "./model.ts";

/** HTTP status that each error kind is answered with. */
export const ERROR_STATUS: Readonly<Record<RestErrorKind, number>> = {
  Deserialize: 400,
  InvalidArgument: 400,
  PermissionDenied: 401,
  Unauthenticated: 401,
  Unauthorized: 401,
  NotFound: 404,
  Timeout: 408,
  Conflict: 409,
  Deleting: 409,
  InUse: 409,
  FailedPrecondition: 412,
  NotShared: 412,
  AlreadyShared: 412,
  NotPublished: 412,
  AlreadyPublished: 412,
  OutOfRange: 416,
  AlreadyExists: 422,
  Internal: 500,
  Unimplemented: 501,
  Aborted: 503,
  Unavailable: 503,
  DeadlineExceeded: 504,
  ResourceExhausted: 507,
  FailedPersist: 507,
};

/** Our kinds and the published ones are one to one. */
export const REST_KIND: Readonly<Record<SvcErrorKind, RestErrorKind>> = {
  deserialize: "Deserialize",
  internal: "Internal",
  timeout: "Timeout",
  "invalid-argument": "InvalidArgument",
  "deadline-exceeded": "DeadlineExceeded",
  "not-found": "NotFound",
  "already-exists": "AlreadyExists",
  "permission-denied": "PermissionDenied",
  "resource-exhausted": "ResourceExhausted",
  "failed-precondition": "FailedPrecondition",
  aborted: "Aborted",
  "out-of-range": "OutOfRange",
  unimplemented: "Unimplemented",
  unavailable: "Unavailable",
  unauthenticated: "Unauthenticated",
  unauthorized: "Unauthorized",
  conflict: "Conflict",
  "failed-persist": "FailedPersist",
  "not-shared": "NotShared",
  "already-shared": "AlreadyShared",
  "not-published": "NotPublished",
  "already-published": "AlreadyPublished",
  deleting: "Deleting",
  "in-use": "InUse",
};

const svcKinds = new Map(SVC_ERROR_KINDS.map((kind) => [REST_KIND[kind], kind]));

/** The kind that a REST kind stands for. */
export function svcKind(kind: RestErrorKind): SvcErrorKind {
  const found = svcKinds.get(kind);
  check(found !== undefined, "every REST kind has its SvcError kind");
  return found;
}

/** The REST form of a failure: its own text and chain in `details`, the innermost cause in `message`. */
export function toRestError(error: SvcError): RestJsonError {
  const details: string[] = [];
  let current: unknown = error;
  for (let depth = 0; depth < 16 && current instanceof Error; depth++) {
    if (!details.some((known) => known.includes(errorMessage(current)))) {
      details.push(current.message);
    }
    current = current.cause;
  }
  return { details: details.join(": "), message: rootMessage(error), kind: REST_KIND[error.kind] };
}

/** The failure that a REST error tells of; toRestError() gives the same body again. */
export function fromRestError(error: RestJsonError): SvcError {
  const same = error.message === error.details || error.message === "";
  return new SvcError(
    svcKind(error.kind),
    error.details === "" ? error.message : error.details,
    same ? {} : { cause: new Error(error.message) },
  );
}
