/**
 * Calls an internal API (core_api.ts) over an open gRPC channel.
 *
 * Invariants: every call has a deadline (the configured one, or the method's floor if that is longer) and obeys an
 * AbortSignal; a failure is the very SvcError that the server threw, or says that the server was not reached; an
 * answer that the schema refuses is `internal`, never handed on.
 */
import type { Client } from "@grpc/grpc-js";
import { type Clock, systemClock } from "../clock.ts";
import { SvcError } from "../errors.ts";
import { fromRestError } from "../openapi/errors.ts";
import { RestJsonErrorSchema } from "../openapi/model.ts";
import { callUnary } from "./grpc.ts";
import { isServiceError } from "./grpc_status.ts";
import {
  type JsonApi,
  type JsonCalls,
  jsonDefinition,
  parserOf,
  REST_ERROR_TRAILER,
} from "./json_api.ts";

const parseRestError = parserOf(RestJsonErrorSchema, "the error of an answer", "internal");

export type JsonClientOptions = {
  /** Deadline of a call; milliseconds. */
  readonly timeoutMs: number;
  /** Lets `timeoutMs` cut below the floors of the methods. */
  readonly ignoreFloors?: boolean;
  readonly clock?: Clock;
};

/** Puts back what the server threw; without its trailer the server was not reached, or is not ours. */
function restore(error: unknown, what: string, isChange: boolean): unknown {
  if (!(error instanceof SvcError) || !isServiceError(error.cause)) return error;
  const { details, metadata } = error.cause;
  const [trailer] = metadata.get(REST_ERROR_TRAILER);
  if (trailer !== undefined) {
    try {
      return fromRestError(parseRestError(JSON.parse(trailer.toString("utf8"))));
    } catch {
      // a trailer that is not ours: the gRPC status below tells enough
    }
  }
  const reason = details.replace(/\. Resolution note: $/, "");
  // Nobody takes back what was asked for.
  if (isChange && error.kind === "deadline-exceeded") {
    return new SvcError(
      error.kind,
      `Cannot wait longer for ${what}: it may still be carried out; look at its state before you ask again`,
      { fields: error.fields, cause: new Error(reason) },
    );
  }
  return new SvcError(error.kind, `Cannot call ${what}`, {
    fields: error.fields,
    cause: new Error(reason),
  });
}

/** The calls of an API; the channel stays its opener's. */
export function makeJsonCalls<Api extends JsonApi>(
  channel: Client,
  api: Api,
  { timeoutMs, ignoreFloors = false, clock = systemClock }: JsonClientOptions,
): JsonCalls<Api["methods"]> {
  const calls: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(api.methods)) {
    const definition = jsonDefinition(api.service, name);
    const parseRequest = parserOf(method.request, `the request of ${name}`, "invalid-argument");
    const parseResponse = parserOf(method.response, `the answer of ${name}`, "internal");
    const deadlineMs = ignoreFloors ? timeoutMs : Math.max(timeoutMs, method.floorMs);
    calls[name] = async (
      request: unknown,
      { signal }: { readonly signal: AbortSignal },
    ): Promise<unknown> => {
      const checked = parseRequest(request);
      const what = `${name} on ${channel.getChannel().getTarget().replace(/^dns:/, "")}`;
      try {
        const options = { signal, deadlineMs };
        return parseResponse(
          await callUnary(channel, {
            definition,
            request: checked,
            what,
            deadlineMs,
            clock,
            options,
          }),
        );
      } catch (error) {
        throw restore(error, what, !name.startsWith("Get"));
      }
    };
  }
  // Filled for every method of the API, each checking its own messages.
  return calls as JsonCalls<Api["methods"]>;
}
