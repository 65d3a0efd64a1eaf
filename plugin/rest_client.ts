/**
 * REST v0 as the plugin needs it: typed calls over HTTP, directly or through the Kubernetes API server.
 *
 * Invariants: every call ends within the timeout, and at an interrupt; an answer is checked to have the fields that we print, but unknown
 * fields and new enum values pass, so that a plugin works with a newer server; failures read as published
 * ("error in response: status code '404 Not Found', content: 'RestJsonError {…}'").
 */
import { request as httpRequest, STATUS_CODES } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { type Static, type TSchema, Type } from "typebox";
import Value from "typebox/value";
import { type Clock, deadlineSignal } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import {
  BlockDeviceSchema,
  type Node,
  NodeSchema,
  type Pool,
  PoolSchema,
  type PurgeCost,
  PurgeCostSchema,
  RestJsonErrorSchema,
  type Volume,
  VolumeSchema,
  VolumesSchema,
} from "#common/openapi/model.ts";

/** Volumes are read in pages of this many, as published. */
const PAGE_ENTRIES = 200;
/** Far above any answer; keeps a wrong endpoint from filling memory. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;

/** A newer server leaves out what is not on a device. */
const { filesystem, partition } = BlockDeviceSchema.properties;
const BlockDeviceShown = Type.Object({
  ...BlockDeviceSchema.properties,
  filesystem: Type.Optional(filesystem),
  partition: Type.Optional(partition),
});
export type BlockDeviceShown = Static<typeof BlockDeviceShown>;

/** Where requests go: a base URL, and what the connection and each request need to be let in. */
export type Endpoint = {
  readonly baseUrl: string;
  readonly tls?: Pick<RequestOptions, "ca" | "cert" | "key" | "rejectUnauthorized" | "servername">;
  readonly headers?: Readonly<Record<string, string>>;
};

/** A call that failed: the text is what the user is told. */
export class RestError extends Error {
  /** HTTP status; null when no answer came */
  readonly status: number | null;
  constructor(message: string, status: number | null) {
    super(message);
    this.name = "RestError";
    this.status = status;
  }
}

export type HttpAnswer = { readonly status: number; readonly text: string };

/** One HTTP exchange. @throws {RestError} when there is no answer in time, or `signal` is aborted */
export async function exchange(
  endpoint: Endpoint,
  {
    method,
    path,
    timeoutMs,
    clock,
    signal,
  }: { method: string; path: string; timeoutMs: number; clock: Clock; signal: AbortSignal },
): Promise<HttpAnswer> {
  const url = new URL(endpoint.baseUrl.replace(/\/+$/, "") + path);
  const deadline = deadlineSignal(clock, timeoutMs, signal);
  try {
    return await new Promise((resolve, reject) => {
      const start = url.protocol === "https:" ? httpsRequest : httpRequest;
      const options: RequestOptions = {
        method,
        agent: false,
        signal: deadline.signal,
        headers: { accept: "application/json", ...endpoint.headers },
        ...endpoint.tls,
      };
      const asked = start(url, options, (answer) => {
        const chunks: Buffer[] = [];
        let length = 0;
        answer.on("data", (chunk: Buffer) => {
          length += chunk.length;
          if (length > ANSWER_BYTES_MAX) asked.destroy(new Error("the answer is too large"));
          else chunks.push(chunk);
        });
        answer.on("error", reject);
        answer.on("end", () => {
          resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") });
        });
      });
      asked.on("error", reject);
      asked.end();
    });
  } catch (error) {
    const reason = signal.aborted
      ? "interrupted"
      : deadline.signal.aborted
        ? `no answer within ${timeoutMs} ms`
        : reasonOf(error);
    throw new RestError(`error in request: ${method} ${url.origin}: ${reason}`, null);
  } finally {
    deadline.clear();
  }
}

/** Node packs the failures of several addresses into one error without a text. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(errorMessage).join("; ");
  return errorMessage(error);
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

function responseError({ status, text }: HttpAnswer): RestError {
  const shown = `${status} ${STATUS_CODES[status] ?? ""}`.trim();
  let content = text.length > 1_000 ? `${text.slice(0, 1_000)}...` : text;
  try {
    const body: unknown = JSON.parse(text);
    if (Value.Check(RestJsonErrorSchema, body)) {
      const { details, message, kind } = body;
      content = `RestJsonError { details: ${quoted(details)}, message: ${quoted(message)}, kind: ${kind} }`;
    }
  } catch {
    // not from the REST server (a proxy's page, say): shown as it came
  }
  return new RestError(`error in response: status code '${shown}', content: '${content}'`, status);
}

/** The schema without what a newer server may add: closed objects, enum values. */
function tolerant(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(tolerant);
  if (typeof schema !== "object" || schema === null) return schema;
  if ("enum" in schema) return { type: "string" };
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key]) => key !== "additionalProperties")
      .map(([key, value]) => [key, key === "required" ? value : tolerant(value)]),
  );
}

function parseAnswer<Schema extends TSchema>(schema: Schema, text: string): Static<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RestError(`error in response: content is not JSON: ${errorMessage(error)}`, null);
  }
  // A JSON schema made from a JSON schema; only new enum values and fields are let through besides.
  const loose = tolerant(schema) as TSchema;
  if (!Value.Check(loose, value)) {
    const [first] = Value.Errors(loose, value);
    const where = first ? `${first.instancePath || "/"} ${first.message}` : "unknown shape";
    throw new RestError(`error in response: unexpected content: ${where}`, null);
  }
  return value as Static<Schema>;
}

const segment = encodeURIComponent;

export type RestClient = ReturnType<typeof makeRestClient>;

/** The calls that the plugin's commands make. */
export function makeRestClient(
  endpoint: Endpoint,
  { timeoutMs, clock, signal }: { timeoutMs: number; clock: Clock; signal: AbortSignal },
) {
  async function call<Schema extends TSchema>(
    method: "GET" | "PUT" | "DELETE",
    path: string,
    schema: Schema,
  ): Promise<Static<Schema>> {
    const wanted = { method, path: `/v0${path}`, timeoutMs, clock, signal };
    const answer = await exchange(endpoint, wanted);
    if (answer.status < 200 || answer.status > 299) throw responseError(answer);
    return parseAnswer(schema, answer.text);
  }
  return {
    /** All volumes, page by page. */
    async volumes(): Promise<Volume[]> {
      const found: Volume[] = [];
      for (let token: number | undefined = 0; token !== undefined; ) {
        const path = `/volumes?max_entries=${PAGE_ENTRIES}&starting_token=${token}`;
        const page: Static<typeof VolumesSchema> = await call("GET", path, VolumesSchema);
        found.push(...page.entries);
        if (page.next_token !== undefined && page.next_token <= token) {
          throw new RestError(
            `error in response: page ${token} is followed by page ${page.next_token}`,
            null,
          );
        }
        token = page.next_token;
      }
      return found;
    },
    volume: (id: string): Promise<Volume> => call("GET", `/volumes/${segment(id)}`, VolumeSchema),
    scaleVolume: (id: string, replicas: number): Promise<Volume> =>
      call("PUT", `/volumes/${segment(id)}/replica_count/${replicas}`, VolumeSchema),
    pools: (): Promise<Pool[]> => call("GET", "/pools", Type.Array(PoolSchema)),
    pool: (id: string): Promise<Pool> => call("GET", `/pools/${segment(id)}`, PoolSchema),
    nodePools: (node: string): Promise<Pool[]> =>
      call("GET", `/nodes/${segment(node)}/pools`, Type.Array(PoolSchema)),
    nodes: (): Promise<Node[]> => call("GET", "/nodes", Type.Array(NodeSchema)),
    node: (id: string): Promise<Node> => call("GET", `/nodes/${segment(id)}`, NodeSchema),
    blockDevices: (node: string, all: boolean): Promise<BlockDeviceShown[]> => {
      const path = `/nodes/${segment(node)}/block_devices?all=${all}`;
      return call("GET", path, Type.Array(BlockDeviceShown));
    },
    purgeCost: (kind: "pool" | "node", id: string): Promise<PurgeCost> =>
      call("GET", `/${kind}s/${segment(id)}/purge`, PurgeCostSchema),
    purge: (kind: "pool" | "node", id: string, lastCopies: boolean): Promise<PurgeCost> =>
      call("DELETE", `/${kind}s/${segment(id)}/purge?last_copies=${lastCopies}`, PurgeCostSchema),
    cordon: (node: string, label: string): Promise<Node> =>
      call("PUT", `/nodes/${segment(node)}/cordon/${segment(label)}`, NodeSchema),
    uncordon: (node: string, label: string): Promise<Node> =>
      call("DELETE", `/nodes/${segment(node)}/cordon/${segment(label)}`, NodeSchema),
    drain: (node: string, label: string): Promise<Node> =>
      call("PUT", `/nodes/${segment(node)}/drain/${segment(label)}`, NodeSchema),
  };
}
