/**
 * Texts of failures, cut to what a trailer may hold.
 * Why: a peer resets a call whose headers are too long (8 KiB with many), and a lone surrogate cannot be encoded at
 * all: in both cases the caller would get another failure in place of the real one.
 * Invariants: the result has at most `max` bytes in its encoding; it is well-formed; what was cut ends in "...".
 */

/** Bytes of grpc-message and of each text of the REST error; with their encodings they fit 8 KiB together. */
export const GRPC_MESSAGE_BYTES_MAX = 2_048;
export const REST_TEXT_BYTES_MAX = 1_700;

const bytesOf = (encode: (text: string) => string) => (text: string) =>
  Buffer.byteLength(encode(text), "utf8");

/** UTF-8 has no lone surrogates: they become U+FFFD. */
const wellFormed = (text: string): string => Buffer.from(text, "utf8").toString("utf8");

function shorten(text: string, max: number, costOf: (text: string) => number): string {
  const whole = wellFormed(text.slice(0, max + 1)); // every character costs one at least
  if (text.length <= max && costOf(whole) <= max) return whole;
  let kept = "";
  let left = max - 3;
  for (const character of whole) {
    left -= costOf(character);
    if (left < 0) break;
    kept += character;
  }
  return `${kept}...`;
}

/** For grpc-message, which is percent-encoded. */
export function shortMessage(text: string): string {
  return shorten(text, GRPC_MESSAGE_BYTES_MAX, bytesOf(encodeURI));
}

/** For a string within JSON. */
export function shortJsonText(text: string): string {
  const encode = (part: string) => JSON.stringify(part).slice(1, -1);
  return shorten(text, REST_TEXT_BYTES_MAX, bytesOf(encode));
}
