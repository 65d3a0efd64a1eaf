/**
 * Replaces the `:authority` of incoming HTTP/2 requests by one that every HTTP/2 server accepts.
 *
 * Why: gRPC clients in Go up to version 1.57 (kubelets up to Kubernetes 1.29 and CSI sidecars of that time) send the
 * path of a unix socket as authority. That is no valid authority; nghttp2, which Node uses, ends such a request with
 * PROTOCOL_ERROR before anybody sees it, and has no switch for that. On a unix socket the authority means nothing.
 * Invariants: nothing else is changed; what is not understood passes as it is. The new value is one byte long, never
 * longer than the old one: an entry of the peer's compression table may then be smaller here than the peer reckons,
 * so it stays at least as long, and every reference to the table still finds its entry.
 * Source: RFC 9113 (frames), RFC 7541 (HPACK).
 */
import { Duplex, Transform, type TransformCallback } from "node:stream";

const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const HEADERS_FRAME = 1;
const PADDED = 0x8;
const PRIORITY = 0x20;
const PRIORITY_BYTES = 5;
/** A request's headers are far below it; a longer frame passes unread. */
const HEADERS_BYTES_MAX = 64 * 1024;
/** Index of `:authority` in HPACK's static table. */
const AUTHORITY_INDEX = 1;
/** A string of one byte, not compressed. */
const REPLACEMENT = Buffer.from("\u0001l", "latin1");

type Parsed = { readonly value: number; readonly next: number };

/** An integer of HPACK with a prefix of so many bits; null when the block ends within it. */
function readInteger(block: Buffer, at: number, prefixBits: number): Parsed | null {
  const first = block[at];
  if (first === undefined) return null;
  const most = (1 << prefixBits) - 1;
  let value = first & most;
  let next = at + 1;
  if (value < most) return { value, next };
  for (let shift = 0; shift <= 21; shift += 7) {
    const byte = block[next++];
    if (byte === undefined) return null;
    value += (byte & 127) << shift;
    if (byte < 128) return { value, next };
  }
  return null;
}

/** Where a string ends that starts at `at`. */
function endOfString(block: Buffer, at: number): number | null {
  const length = readInteger(block, at, 7);
  if (length === null) return null;
  const end = length.next + length.value;
  return end > block.length ? null : end;
}

/** The header block with another authority, or the same when it has none that can be replaced. */
export function replaceAuthority(block: Buffer): Buffer {
  let at = 0;
  for (;;) {
    const first = block[at];
    if (first === undefined) return block;
    const isIndexed = (first & 0x80) !== 0;
    const isSizeUpdate = (first & 0xe0) === 0x20;
    const prefixBits = isIndexed ? 7 : (first & 0x40) !== 0 ? 6 : isSizeUpdate ? 5 : 4;
    const index = readInteger(block, at, prefixBits);
    if (index === null) return block;
    at = index.next;
    if (isIndexed || isSizeUpdate) continue;
    const valueAt = index.value === 0 ? endOfString(block, at) : at;
    const end = valueAt === null ? null : endOfString(block, valueAt);
    if (valueAt === null || end === null) return block;
    if (index.value === AUTHORITY_INDEX) {
      if (end - valueAt < REPLACEMENT.length) return block; // an empty one: nothing shorter exists
      return Buffer.concat([block.subarray(0, valueAt), REPLACEMENT, block.subarray(end)]);
    }
    at = end;
  }
}

/** A whole HEADERS frame with another authority. */
function rewriteFrame(frame: Buffer): Buffer {
  const flags = frame[4] ?? 0;
  const isPadded = (flags & PADDED) !== 0;
  const from =
    FRAME_HEADER_BYTES + (isPadded ? 1 : 0) + ((flags & PRIORITY) !== 0 ? PRIORITY_BYTES : 0);
  const to = frame.length - (isPadded ? (frame[FRAME_HEADER_BYTES] ?? 0) : 0);
  if (from > to) return frame;
  const block = frame.subarray(from, to);
  const replaced = replaceAuthority(block);
  if (replaced === block) return frame;
  const rewritten = Buffer.concat([frame.subarray(0, from), replaced, frame.subarray(to)]);
  rewritten.writeUIntBE(rewritten.length - FRAME_HEADER_BYTES, 0, 3);
  return rewritten;
}

/** What a client sends, with the authority of each request replaced. */
export class AuthorityRewriter extends Transform {
  /** Bytes that are not looked at: the preface, then frames of other kinds. */
  #passing = PREFACE_BYTES;
  #held: Buffer = Buffer.alloc(0);

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (bytes.length > 0) {
      if (this.#passing > 0) {
        const passed = bytes.subarray(0, this.#passing);
        this.push(passed);
        this.#passing -= passed.length;
        bytes = bytes.subarray(passed.length);
        continue;
      }
      if (bytes.length < FRAME_HEADER_BYTES) break;
      const frameBytes = FRAME_HEADER_BYTES + bytes.readUIntBE(0, 3);
      if (bytes[3] !== HEADERS_FRAME || frameBytes > HEADERS_BYTES_MAX) {
        this.#passing = frameBytes;
        continue;
      }
      if (bytes.length < frameBytes) break;
      this.push(rewriteFrame(bytes.subarray(0, frameBytes)));
      bytes = bytes.subarray(frameBytes);
    }
    this.#held = bytes;
    done();
  }

  /** A client that ends in the middle of a frame: the server has to see it. */
  override _flush(done: TransformCallback): void {
    done(null, this.#held.length === 0 ? undefined : this.#held);
  }
}

/** The server's end of a connection whose client may send any authority. */
export function tolerantConnection(socket: Duplex): Duplex {
  const readable = socket.pipe(new AuthorityRewriter());
  // pipe() does not hand on how the connection ended; why it did is no matter of ours.
  socket.once("close", () => readable.destroy());
  socket.on("error", () => {});
  return Duplex.from({ readable, writable: socket });
}
