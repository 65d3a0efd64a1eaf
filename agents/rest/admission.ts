/**
 * How much one server has under way: per connection and in all.
 *
 * Why: a client may pipeline hundreds of requests and never read an answer; each answer would wait in memory.
 * Invariants: of one connection one request is worked on at a time, and the next begins only when the answers before
 * it were taken by the kernel; the answers that nobody has taken yet are bounded by their bytes in all, and what comes
 * beyond is refused, not queued; a connection that takes nothing of its answer for a while is cut.
 */
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Clock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";

/** Requests that one connection may have waiting behind the one that is worked on. */
export const WAITING_MAX = 32;
/** Requests worked on at a time, of all connections: each may hold a list of thousands of volumes. */
export const READS_MAX = 2;
/** Changes take long where engines do, and hold little. */
export const CHANGES_MAX = 256;
/** Those that wait for one of these places. */
export const QUEUE_MAX = 512;
/** Bytes of answers that their clients have not taken, before further requests are refused. */
export const UNREAD_BYTES_MAX = 16 * 1024 * 1024;
/** How long a connection may leave its answer without taking any of it. */
export const STALLED_MS = 20_000;

/** Bytes of request bodies that are on their way or being worked on. */
export const BODY_BYTES_ALL_MAX = 32 * 1024 * 1024;

type Connection = { waiting: number; tail: Promise<void>; readonly ends: Set<() => void> };
/** One exchange: the response's end is not told of when its connection breaks before its turn. */
export type Exchange = {
  readonly socket: Socket;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
};

/** One for all listeners of a process: they share its memory. */
export class Admission {
  readonly #clock: Clock;
  readonly #connections = new WeakMap<Socket, Connection>();
  readonly #reads = new Places(READS_MAX);
  readonly #changes = new Places(CHANGES_MAX);
  #unreadBytes = 0;
  #bodyBytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  /** A request with a body of so many bytes begins. @throws {SvcError} `unavailable` */
  body(socket: Socket, response: ServerResponse, bytes: number): void {
    if (bytes > 0 && this.#bodyBytes + bytes > BODY_BYTES_ALL_MAX) {
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
    { socket, response, signal, reads }: Exchange & { readonly reads: boolean },
    work: () => Promise<T>,
  ): Promise<T> {
    const connection = this.#connectionOf(socket);
    if (connection.waiting >= WAITING_MAX) {
      throw busy("the connection has too many requests waiting");
    }
    const before = connection.tail;
    const taken = new Promise<void>((resolve) => this.#atEnd(socket, response, resolve));
    connection.tail = before.then(() => taken);
    connection.waiting += 1;
    await before;
    connection.waiting -= 1;
    const checkGone = () => {
      if (socket.destroyed) throw new SvcError("aborted", "The client has gone");
      signal.throwIfAborted();
    };
    checkGone();
    const places = reads ? this.#reads : this.#changes;
    return await places.use(async () => {
      checkGone();
      return await work();
    });
  }

  /** An answer of so many bytes is about to be sent. @throws {SvcError} `unavailable` */
  answering({ socket, response }: Omit<Exchange, "signal">, bytes: number): void {
    if (this.#unreadBytes > 0 && this.#unreadBytes + bytes > UNREAD_BYTES_MAX) {
      throw busy("too many answers wait for their clients");
    }
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
  readonly #queue: (() => void)[] = [];
  #used = 0;

  constructor(max: number) {
    this.#max = max;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#used < this.#max) this.#used += 1;
    else {
      if (this.#queue.length >= QUEUE_MAX) throw busy("too many requests wait");
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

function busy(why: string): SvcError {
  return new SvcError("unavailable", `Cannot answer now: ${why}; read the answers and try again`);
}
