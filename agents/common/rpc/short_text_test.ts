import assert from "node:assert/strict";
import { test } from "node:test";
import {
  GRPC_MESSAGE_BYTES_MAX,
  REST_TEXT_BYTES_MAX,
  shortJsonText,
  shortMessage,
} from "./short_text.ts";

const forms = [
  { name: "shortMessage()", max: GRPC_MESSAGE_BYTES_MAX, shorten: shortMessage, encode: encodeURI },
  {
    name: "shortJsonText()",
    max: REST_TEXT_BYTES_MAX,
    shorten: shortJsonText,
    encode: (text: string) => JSON.stringify(text).slice(1, -1),
  },
];

for (const { name, max, shorten, encode } of forms) {
  test(`${name} leaves alone what fits`, () => {
    for (const text of ["", "Cannot create replica: pool is offline", "é😀", "x".repeat(max)]) {
      assert.equal(shorten(text), text);
    }
  });

  test(`${name} keeps the encoded text within its limit, whatever it holds`, () => {
    for (const character of ["x", " ", "é", "€", "😀", "\u0001", '"', "\n", "%"]) {
      const short = shorten(character.repeat(200_000));
      const bytes = Buffer.byteLength(encode(short));
      assert.ok(bytes <= max && bytes > max - 16, `${JSON.stringify(character)}: ${bytes}`);
      assert.match(short, /\.\.\.$/);
      encodeURI(short); // throws on what is not well-formed
    }
  });

  test(`${name} mends what cannot be encoded`, () => {
    assert.equal(shorten("a\ud800b"), "a\ufffdb");
    for (const text of ["x".repeat(max - 4), "x".repeat(max - 3), "x".repeat(max)]) {
      encodeURI(shorten(`${text}😀`)); // throws on half a pair
    }
  });
}
