/**
 * Serves an internal API (core_api.ts): JSON messages over unary gRPC.
 *
 * Use: `startServer(address, [makeJsonService(CORE_API, handlers, { log })])` of grpc.ts; it may stand beside
 * protobuf services on the same port.
 * Invariants: a handler sees only requests its schema accepts; an answer that its schema refuses is our bug: it is
 * logged and answered as `internal`, never sent; the exact REST error of a failure travels in a trailer.
 */
import { BugError } from "../check.ts";
import { type Clock, systemClock } from "../clock.ts";
import { toSvcError } from "../errors.ts";
import type { Log } from "../log.ts";
import { toRestError } from "../openapi/errors.ts";
import { type CallContext, type GrpcService, unaryCall } from "./grpc.ts";
import {
  type JsonApi,
  type JsonHandlers,
  jsonDefinition,
  parserOf,
  REST_ERROR_TRAILER,
} from "./json_api.ts";
import { shortJsonText } from "./short_text.ts";

type AnyHandler = (request: unknown, context: CallContext) => Promise<unknown>;

/** Joins an API to its handlers: what grpc.ts' startServer() takes. */
export function makeJsonService<Api extends JsonApi>(
  api: Api,
  handlers: JsonHandlers<Api["methods"]>,
  { log, clock = systemClock }: { log: Log; clock?: Clock },
): GrpcService {
  const definition: Record<string, GrpcService["definition"][string]> = {};
  const implementation: Record<string, GrpcService["implementation"][string]> = {};
  for (const [name, method] of Object.entries(api.methods)) {
    const parseRequest = parserOf(method.request, `the request of ${name}`, "deserialize");
    const parseResponse = parserOf(method.response, `the answer of ${name}`, "internal");
    // JsonHandlers has one entry for each method; the parsers above give it the types of that method.
    const handler = handlers[name] as AnyHandler;
    const run = async (raw: unknown, context: CallContext): Promise<unknown> => {
      try {
        const answer = parseResponse(await handler(parseRequest(raw), context));
        const bytes = Buffer.from(JSON.stringify(answer), "utf8");
        context.answering(bytes.length);
        return bytes;
      } catch (error) {
        if (error instanceof BugError) throw error; // ends the process, see grpc_status.ts
        const failure = toSvcError(error, `Cannot answer ${name}`);
        const fields = { "grpc.method": name, error: failure };
        if (failure.kind === "internal") log.error("request failed", fields);
        else log.debug("request failed", fields);
        const rest = toRestError(failure);
        const body = {
          ...rest,
          details: shortJsonText(rest.details),
          message: shortJsonText(rest.message),
        };
        context.trailers.set(REST_ERROR_TRAILER, Buffer.from(JSON.stringify(body), "utf8"));
        throw failure;
      }
    };
    definition[name] = jsonDefinition(api.service, name);
    implementation[name] = unaryCall<unknown, unknown>(run, clock);
  }
  return { definition, implementation };
}
