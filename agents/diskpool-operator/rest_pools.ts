/**
 * Pools through REST v0.
 *
 * Invariants: every request has a deadline; creating and destroying may take at least as long as api-rest itself
 * grants them; an answer is checked against the published schema; a REST that is not reached is `unavailable`.
 */
import { Type } from "typebox";
import { type Clock, deadlineSignal } from "#common/clock.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import { fromRestError } from "#common/openapi/errors.ts";
import {
  BlockDeviceSchema,
  PoolSchema,
  PurgeCostSchema,
  RestJsonErrorSchema,
} from "#common/openapi/model.ts";
import { parserOf } from "#common/rpc/json_api.ts";
import type { Pools } from "./ports.ts";

/** Pool operations have a floor of 20 s behind api-rest; some for the way. */
const POOL_CHANGE_MS = 22_000;

const parsePool = parserOf(PoolSchema, "a pool of the REST API", "internal");
const parsePurgeCost = parserOf(PurgeCostSchema, "the cost of a purge of the REST API", "internal");
const parseDevices = parserOf(
  Type.Array(BlockDeviceSchema),
  "the block devices of the REST API",
  "internal",
);
const parseError = parserOf(RestJsonErrorSchema, "an error of the REST API", "internal");

type Request = {
  readonly method: "GET" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
};

function failureOf({ method, path }: Request, status: number, text: string): SvcError {
  try {
    return fromRestError(parseError(JSON.parse(text)));
  } catch {
    // Not api-rest's own: a proxy's, or no JSON at all. A proxy's 404 says nothing about a pool.
    const kind = status === 404 || status >= 500 ? "unavailable" : "internal";
    return new SvcError(kind, `Cannot ${method} ${path}: status ${status}`);
  }
}

export function restPools(
  endpoint: string,
  { timeoutMs, clock }: { timeoutMs: number; clock: Clock },
): Pools {
  const base = `${endpoint}/v0`;
  const changeMs = Math.max(timeoutMs, POOL_CHANGE_MS);

  const send = async (request: Request): Promise<unknown> => {
    const { method, path, body, signal } = request;
    const limit = deadlineSignal(clock, request.timeoutMs, signal);
    try {
      const response = await fetch(base + path, {
        method,
        signal: limit.signal,
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      });
      const text = await response.text();
      if (!response.ok) throw failureOf(request, response.status, text);
      return text === "" ? null : (JSON.parse(text) as unknown);
    } catch (error) {
      if (error instanceof SvcError) throw error;
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
      const message = `Cannot reach the REST API at ${endpoint}: ${errorMessage(cause)}`;
      throw new SvcError("unavailable", message, { cause: error });
    } finally {
      limit.clear();
    }
  };
  const place = ({ node, pool }: { node: string; pool: string }) =>
    `/nodes/${encodeURIComponent(node)}/pools/${encodeURIComponent(pool)}`;
  const read = async <T>(
    path: string,
    parse: (value: unknown) => T,
    signal: AbortSignal,
  ): Promise<T> => parse(await send({ method: "GET", path, timeoutMs, signal }));

  return {
    get: (pool, signal) => read(`/pools/${encodeURIComponent(pool)}`, parsePool, signal),
    create: async ({ disks, labels, ...where }, signal) => {
      const body = { disks, labels };
      await send({ method: "PUT", path: place(where), body, timeoutMs: changeMs, signal });
    },
    destroy: async (where, signal) => {
      await send({ method: "DELETE", path: place(where), timeoutMs: changeMs, signal });
    },
    purgeCost: (pool, signal) =>
      read(`/pools/${encodeURIComponent(pool)}/purge`, parsePurgeCost, signal),
    purge: async (pool, lastCopies, signal) => {
      const path = `/pools/${encodeURIComponent(pool)}/purge?last_copies=${lastCopies}`;
      await send({ method: "DELETE", path, timeoutMs: changeMs, signal });
    },
    devices: (node, signal) =>
      read(`/nodes/${encodeURIComponent(node)}/block_devices?all=true`, parseDevices, signal),
  };
}
