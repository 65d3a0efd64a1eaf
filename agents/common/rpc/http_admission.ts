/**
 * How much one HTTP server has under way: per connection and in all.
 *
 * Why: a client may pipeline hundreds of requests and never read an answer; each answer would wait in memory.
 * Invariants: of one connection one request is worked on at a time, and the next begins only when the answers before
 * it were taken by the kernel; the answers that nobody has taken yet are bounded by their bytes in all, and what comes
 * beyond is refused, not queued; a connection that takes nothing of its answer for a while is cut.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Clock } from "../clock.ts";
import { SvcError } from "../errors.ts";

export type AdmissionLimits = {
  /** Requests that one connection may have waiting behind the one that is worked on. */
  readonly waiting: number;
  /** Requests with large answers worked on at a time, of all connections: lists of thousands of volumes. */
  readonly large: number;
  /** All others: they may take long where engines do, and hold little. */
  readonly small: number;
  /** Those that wait for one of these places. */
  readonly queue: number;
  /** Bytes of answers that their clients have not taken, before further requests are refused. */
  readonly unreadBytes: number;
  /** Bytes of request bodies that are on their way or being worked on. */
  readonly bodyBytes: number;
};

export const ADMISSION_LIMITS: AdmissionLimits = {
  waiting: 32,
  large: 2,
  small: 256,
  queue: 512,
  unreadBytes: 16 * 1024 * 1024,
  bodyBytes: 32 * 1024 * 1024,
};

/**
 * Requests of one connection whose answers were not taken, refusals included: a client that goes on asking is cut, since
 * each refusal would wait in memory too.
 */
const UNANSWERED_MAX = 128;
/** The same of all connections; beyond, only one that asks like everybody, one request after the other, is kept. */
const UNANSWERED_ALL_MAX = 4096;
const UNANSWERED_MAX_WHEN_FULL = 4;

/** What the parser gets at once: not a hundred requests. */
const SLICE_BYTES = 2048;

/** How long a connection may leave its answer without taking any of it. */
export const STALLED_MS = 20_000;

type Connection = { waiting: number; tail: Promise<void>; readonly ends: Set<() => void> };
/** One exchange: the response's end is not told of when its connection breaks before its turn. */
export type Exchange = {
  readonly socket: Socket;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
  /** One of a few: what is asked for. */
  readonly route: string;
};

/** Cuts the connections of a server that ask on and on, whatever they ask; its handlers see nothing of what comes after. */
export function boundPipelines(
  server: Pick<Server, "on" | "listeners" | "removeAllListeners">,
): void {
  const counts = new WeakMap<Socket, number>();
  let all = 0;
  /** False: the connection is cut. */
  const count = ({ socket }: IncomingMessage, response: ServerResponse): boolean => {
    if (socket.destroyed) return false;
    const unanswered = (counts.get(socket) ?? 0) + 1;
    if (!counts.has(socket)) {
      socket.once("close", () => {
        all -= counts.get(socket) ?? 0;
        counts.set(socket, 0);
      });
    }
    counts.set(socket, unanswered);
    all += 1;
    response.once("close", () => {
      const left = counts.get(socket) ?? 0;
      if (left === 0) return; // its connection was counted off
      counts.set(socket, left - 1);
      all -= 1;
    });
    const max = all > UNANSWERED_ALL_MAX ? UNANSWERED_MAX_WHEN_FULL : UNANSWERED_MAX;
    if (unanswered <= max) return true;
    socket.destroy();
    return false;
  };
  for (const event of ["connection", "secureConnection"]) server.on(event, feedSlowly);
  const handlers = server.listeners("request");
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    if (!count(request, response)) return;
    for (const handler of handlers) handler.call(server, request, response);
  });
  // Else answered by the server itself, without a request that anybody could count.
  server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => {
    if (!count(request, response)) return;
    response.writeHead(417, { connection: "close" }).end();
  });
}

/**
 * Node reads 64 KiB at once and makes all requests in it, thousands, into objects that live until their connection is closed;
 * so many connections at a time are more than the memory of a pod. The parser gets it bit by bit, until the connection is cut.
 */
function feedSlowly(socket: Socket): void {
  const parsers = socket.listeners("data");
  if (parsers.length === 0) return; // a connection below TLS: the one above it is parsed
  socket.removeAllListeners("data");
  socket.on("data", (data: Buffer) => {
    for (let at = 0; at < data.length && !socket.destroyed; at += SLICE_BYTES) {
      if (socket.isPaused()) {
        socket.unshift(data.subarray(at)); // it comes again when the answers before it are sent
        return;
      }
      const slice = data.subarray(at, at + SLICE_BYTES);
      for (const parse of parsers) parse.call(socket, slice);
    }
  });
}

/** One for all listeners of a process: they share its memory. */
export class Admission {
  readonly #clock: Clock;
  readonly #connections = new WeakMap<Socket, Connection>();
  readonly #limits: AdmissionLimits;
  readonly #large: Places;
  readonly #small: Places;
  #unreadBytes = 0;
  #bodyBytes = 0;
  /** Of the last answer of each route: the next one will be alike. */
  readonly #sizes = new Map<string, number>();

  constructor(clock: Clock, limits: AdmissionLimits = ADMISSION_LIMITS) {
    this.#clock = clock;
    this.#limits = limits;
    this.#large = new Places(limits.large, limits.queue);
    this.#small = new Places(limits.small, limits.queue);
  }

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  /** A request with a body of so many bytes begins. @throws {SvcError} `unavailable` */
  body(socket: Socket, response: ServerResponse, bytes: number): void {
    if (bytes > 0 && this.#bodyBytes + bytes > this.#limits.bodyBytes) {
      throw busy("too many request bodies are under way");
    }
    this.#bodyBytes += bytes;
    this.#atEnd(socket, response, () => {
      this.#bodyBytes -= bytes;
    });
  }

  /**
   * Runs `work` when it is the request's turn.
   * @throws {SvcError} `unavailable`: too much is under way; the signal's reason when the client has gone
   */
  async run<T>(
    { socket, response, signal, route, isLarge }: Exchange & { readonly isLarge: boolean },
    work: () => Promise<T>,
  ): Promise<T> {
    if (socket.destroyed) throw gone();
    const connection = this.#connectionOf(socket);
    if (connection.waiting >= this.#limits.waiting) {
      throw busy("the connection has too many requests waiting");
    }
    const before = connection.tail;
    const taken = new Promise<void>((resolve) => this.#atEnd(socket, response, resolve));
    connection.tail = before.then(() => taken);
    connection.waiting += 1;
    await before;
    connection.waiting -= 1;
    const checkGone = () => {
      if (socket.destroyed) throw gone();
      signal.throwIfAborted();
    };
    checkGone();
    // Made only to be refused, it would cost as much.
    if (isLarge) this.#checkUnread(this.#sizes.get(route) ?? 0);
    const places = isLarge ? this.#large : this.#small;
    return await places.use(async () => {
      checkGone();
      if (isLarge) this.#checkUnread(this.#sizes.get(route) ?? 0);
      return await work();
    });
  }

  #checkUnread(bytes: number): void {
    const isFull =
      this.#unreadBytes >= this.#limits.unreadBytes ||
      (this.#unreadBytes > 0 && this.#unreadBytes + bytes > this.#limits.unreadBytes);
    if (!isFull) return;
    throw busy("too many answers wait for their clients");
  }

  /** An answer of so many bytes is about to be sent. @throws {SvcError} `unavailable` */
  answering({ socket, response, route }: Omit<Exchange, "signal">, bytes: number): void {
    this.#sizes.set(route, bytes);
    this.#checkUnread(bytes);
    this.#unreadBytes += bytes;
    const done = new AbortController();
    this.#atEnd(socket, response, () => {
      this.#unreadBytes -= bytes;
      done.abort();
    });
    void this.#watch(socket, response, done.signal).catch(() => {}); // it was taken
  }

  async #watch(socket: Socket, response: ServerResponse, done: AbortSignal): Promise<void> {
    for (let written = -1; ; ) {
      await this.#clock.sleep(STALLED_MS, done);
      const now = socket.bytesWritten - socket.writableLength;
      if (now === written) {
        response.destroy();
        socket.destroy();
        return;
      }
      written = now;
    }
  }

  /** Once, when the answer was handed to the kernel or the connection is gone. */
  #atEnd(socket: Socket, response: ServerResponse, end: () => void): void {
    const { ends } = this.#connectionOf(socket);
    const once = () => {
      if (ends.delete(once)) end();
    };
    ends.add(once);
    response.once("close", once);
    if (socket.destroyed) once();
  }

  #connectionOf(socket: Socket): Connection {
    const known = this.#connections.get(socket);
    if (known) return known;
    const made: Connection = { waiting: 0, tail: Promise.resolve(), ends: new Set() };
    this.#connections.set(socket, made);
    socket.once("close", () => {
      for (const end of [...made.ends]) end();
    });
    return made;
  }
}

/** So many at a time, and a bounded queue for them. */
class Places {
  readonly #max: number;
  readonly #queueMax: number;
  readonly #queue: (() => void)[] = [];
  #used = 0;

  constructor(max: number, queueMax: number) {
    this.#max = max;
    this.#queueMax = queueMax;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#used < this.#max) this.#used += 1;
    else {
      if (this.#queue.length >= this.#queueMax) throw busy("too many requests wait");
      await new Promise<void>((resolve) => this.#queue.push(resolve)); // the place is handed on
    }
    try {
      return await work();
    } finally {
      const next = this.#queue.shift();
      if (next) next();
      else this.#used -= 1;
    }
  }
}

function gone(): SvcError {
  return new SvcError("aborted", "The client has gone");
}

function busy(why: string): SvcError {
  return new SvcError("unavailable", `Cannot answer now: ${why}; read the answers and try again`);
}
