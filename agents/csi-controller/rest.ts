/**
 * REST v0 as the CSI controller needs it: typed calls whose failures carry the kind that CSI callers act on.
 *
 * Invariants: every call ends within the timeout; an answer is read only after its schema has accepted it; no answer
 * at all is `unavailable`, no answer in time `deadline-exceeded`. A call that changes something is not cut short when
 * its gRPC caller goes away: the control plane would finish it anyway, and the volume's guard must cover that.
 */
import { type Static, type TSchema, Type } from "typebox";
import Value from "typebox/value";
import { type Clock, deadlineSignal } from "#common/clock.ts";
import { errorMessage, SvcError, type SvcErrorKind } from "#common/errors.ts";
import { fromRestError } from "#common/openapi/errors.ts";
import {
  type CreateVolumeBody,
  type Node,
  NodeSchema,
  type Pool,
  PoolSchema,
  type PublishVolumeBody,
  RestJsonErrorSchema,
  type Volume,
  VolumeSchema,
  type Volumes,
  VolumesSchema,
} from "#common/openapi/model.ts";

/** Kind of a failure whose body is not one of ours (a proxy's page), by HTTP status. */
const KIND_BY_STATUS: Readonly<Record<number, SvcErrorKind>> = {
  400: "invalid-argument",
  401: "permission-denied",
  403: "permission-denied",
  404: "not-found",
  408: "deadline-exceeded",
  409: "conflict",
  412: "failed-precondition",
  416: "out-of-range",
  422: "already-exists",
  501: "unimplemented",
  502: "unavailable",
  503: "unavailable",
  504: "deadline-exceeded",
  507: "resource-exhausted",
};

/** What a CSI caller should read in kinds that REST tells apart more finely: busy now, or come back later. */
const CSI_KIND: Partial<Record<SvcErrorKind, SvcErrorKind>> = {
  deleting: "conflict",
  "in-use": "conflict",
  aborted: "unavailable",
  "failed-persist": "unavailable",
  unauthenticated: "permission-denied",
};

const segment = encodeURIComponent;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // told apart by the schema check that follows
  }
}

function failureOf(what: string, status: number, text: string): SvcError {
  const body = parseJson(text);
  const said = Value.Check(RestJsonErrorSchema, body) ? fromRestError(body) : null;
  const kind = said?.kind ?? KIND_BY_STATUS[status] ?? "internal";
  const message = said?.message ?? text.slice(0, 500);
  return new SvcError(CSI_KIND[kind] ?? kind, `Cannot ${what}: ${message}`, {
    fields: { "http.status": status, "rest.kind": kind },
    cause: said?.cause,
  });
}

export type RestSettings = {
  /** Without the trailing slash. */
  readonly baseUrl: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
};

type Call = {
  readonly what: string;
  readonly method: "GET" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
};

/** One page of volumes starts at `startingToken`; `maxEntries` 0: all of them. */
export type PageRequest = { readonly maxEntries: number; readonly startingToken: number };

export class RestApi {
  readonly #settings: RestSettings;

  constructor(settings: RestSettings) {
    this.#settings = settings;
  }

  async #exchange(call: Call): Promise<{ readonly status: number; readonly text: string }> {
    const { baseUrl, timeoutMs, clock } = this.#settings;
    const deadline = deadlineSignal(clock, timeoutMs, call.signal);
    try {
      const answer = await fetch(`${baseUrl}/v0${call.path}`, {
        method: call.method,
        signal: deadline.signal,
        ...(call.body === undefined
          ? {}
          : {
              body: JSON.stringify(call.body),
              headers: { "content-type": "application/json" },
            }),
      });
      return { status: answer.status, text: await answer.text() };
    } catch (error) {
      if (call.signal?.aborted) {
        throw new SvcError("aborted", `Cannot ${call.what}: the caller has gone away`);
      }
      if (deadline.signal.aborted) {
        const message = `Cannot ${call.what}: no answer from ${baseUrl} within ${timeoutMs} ms`;
        throw new SvcError("deadline-exceeded", message, { cause: error });
      }
      // fetch() hides the reason ("connect ECONNREFUSED ...") one level down.
      const cause = error instanceof Error && error.cause ? error.cause : error;
      const message = `Cannot ${call.what}: ${baseUrl} cannot be reached: ${errorMessage(cause)}`;
      throw new SvcError("unavailable", message, { cause });
    } finally {
      deadline.clear();
    }
  }

  async #call<Schema extends TSchema>(call: Call, schema: Schema): Promise<Static<Schema>> {
    const { status, text } = await this.#exchange(call);
    if (status < 200 || status > 299) throw failureOf(call.what, status, text);
    const value = parseJson(text);
    if (Value.Check(schema, value)) return value;
    const [first] = Value.Errors(schema, value);
    const where = first ? `${first.instancePath || "/"} ${first.message}` : "not JSON";
    throw new SvcError("internal", `Cannot ${call.what}: unexpected answer: ${where}`);
  }

  /** False only when nothing answers; an error answer comes from somewhere, too. */
  async isReachable(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#exchange({ what: "probe REST", method: "GET", path: "/nodes", signal });
      return true;
    } catch {
      return false; // no matter why: that is what the caller asked
    }
  }

  /** @throws {SvcError} `not-found`, ... */
  getVolume(id: string, signal?: AbortSignal): Promise<Volume> {
    const path = `/volumes/${segment(id)}`;
    return this.#call({ what: `read volume ${id}`, method: "GET", path, signal }, VolumeSchema);
  }

  listVolumes({ maxEntries, startingToken }: PageRequest, signal?: AbortSignal): Promise<Volumes> {
    const path = `/volumes?max_entries=${maxEntries}&starting_token=${startingToken}`;
    return this.#call({ what: "list volumes", method: "GET", path, signal }, VolumesSchema);
  }

  createVolume(id: string, body: CreateVolumeBody): Promise<Volume> {
    const path = `/volumes/${segment(id)}`;
    return this.#call({ what: `create volume ${id}`, method: "PUT", path, body }, VolumeSchema);
  }

  async deleteVolume(id: string): Promise<void> {
    const what = `delete volume ${id}`;
    const { status, text } = await this.#exchange({
      what,
      method: "DELETE",
      path: `/volumes/${segment(id)}`,
    });
    if (status < 200 || status > 299) throw failureOf(what, status, text);
  }

  publishVolume(id: string, body: PublishVolumeBody): Promise<Volume> {
    const path = `/volumes/${segment(id)}/target`;
    return this.#call({ what: `publish volume ${id}`, method: "PUT", path, body }, VolumeSchema);
  }

  unpublishVolume(id: string): Promise<Volume> {
    const path = `/volumes/${segment(id)}/target?force=true`;
    return this.#call({ what: `unpublish volume ${id}`, method: "DELETE", path }, VolumeSchema);
  }

  getNode(id: string, signal?: AbortSignal): Promise<Node> {
    const path = `/nodes/${segment(id)}`;
    return this.#call({ what: `read node ${id}`, method: "GET", path, signal }, NodeSchema);
  }

  listNodes(signal?: AbortSignal): Promise<Node[]> {
    const call: Call = { what: "list nodes", method: "GET", path: "/nodes", signal };
    return this.#call(call, Type.Array(NodeSchema));
  }

  listPools(node: string | null, signal?: AbortSignal): Promise<Pool[]> {
    const path = node === null ? "/pools" : `/nodes/${segment(node)}/pools`;
    return this.#call({ what: "list pools", method: "GET", path, signal }, Type.Array(PoolSchema));
  }
}
