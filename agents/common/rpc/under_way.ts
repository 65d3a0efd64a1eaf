/**
 * What the gRPC servers of a process have under way: calls, and answers that their callers have not taken.
 *
 * Why: a caller may open streams and read none of the answers; each would stay in memory for as long as it likes.
 * Invariants: what comes beyond a bound is refused before any work; a call counts until its last byte was handed on or
 * it was cut; one connection has no more than its share of the bytes, so that others are answered beside it.
 */
import { SvcError } from "../errors.ts";

/** Calls of all connections: above what a large cluster's agents and engines ask at a time. */
export const CALLS_MAX = 1024;
/** Bytes of answers that nobody has taken: a list of thousands of volumes is a few MiB. */
export const UNREAD_BYTES_MAX = 48 * 1024 * 1024;
/** Of one connection: api-rest asks for several lists at a time. */
export const UNREAD_BYTES_OF_PEER_MAX = 24 * 1024 * 1024;

export type HeldCall = {
  /** An answer of so many bytes is about to be sent. @throws {SvcError} `resource-exhausted` */
  answering(bytes: number): void;
  end(): void;
};

export class UnderWay {
  readonly #peers = new Map<string, number>();
  #calls = 0;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  get calls(): number {
    return this.#calls;
  }

  /** @throws {SvcError} `resource-exhausted` */
  begin(peer: string): HeldCall {
    if (this.#calls >= CALLS_MAX) throw busy("too many calls are under way");
    this.#check(peer, 1); // an answer may be dear to make: not before the earlier ones were taken
    this.#calls += 1;
    let held = 0;
    let ended = false;
    return {
      answering: (bytes) => {
        if (ended) return;
        this.#check(peer, bytes);
        held += bytes;
        this.#add(peer, bytes);
      },
      end: () => {
        if (ended) return;
        ended = true;
        this.#calls -= 1;
        this.#add(peer, -held);
      },
    };
  }

  /** A single answer is let through whatever its size: the limit of messages is for that. */
  #check(peer: string, bytes: number): void {
    const ofPeer = this.#peers.get(peer) ?? 0;
    if (ofPeer > 0 && ofPeer + bytes > UNREAD_BYTES_OF_PEER_MAX) {
      throw busy("this connection leaves its answers unread");
    }
    if (this.#bytes > 0 && this.#bytes + bytes > UNREAD_BYTES_MAX) {
      throw busy("too many answers wait for their callers");
    }
  }

  #add(peer: string, bytes: number): void {
    this.#bytes += bytes;
    const left = (this.#peers.get(peer) ?? 0) + bytes;
    if (left > 0) this.#peers.set(peer, left);
    else this.#peers.delete(peer);
  }
}

/** One for all servers of the process: they share its memory. */
export const underWay = new UnderWay();

function busy(why: string): SvcError {
  return new SvcError("resource-exhausted", `Cannot answer now: ${why}; try again later`);
}
