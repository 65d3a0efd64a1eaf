import assert from "node:assert/strict";
import { test } from "node:test";
import { differingMiB, whyNoProof } from "./verify_io.ts";

const result = (over: object) => ({
  code: 0,
  result: { event: "result", ok: true, reads: 7, blocks_written: 7, ...over },
});

test("whyNoProof() is content only when every written block was read and right", () => {
  assert.equal(whyNoProof(result({})), null);
  assert.equal(whyNoProof(result({ reads: 3 })), "checked 3 of 7 blocks");
  assert.equal(whyNoProof({ ...result({}), code: 3 }), "exited with 3");
  assert.equal(whyNoProof(result({ ok: false })), "did not say that all is right");
  assert.equal(whyNoProof({ code: 0, result: null }), "did not say that all is right");
  assert.equal(whyNoProof(result({ reads: undefined })), "did not say what it read");
  assert.match(whyNoProof(result({ reads: 0, blocks_written: 0 })) ?? "", /had nothing to check/);
});

test("differingMiB() counts a missing one as different", () => {
  assert.deepEqual(differingMiB(["a", "b"], ["a", "b"]), []);
  assert.deepEqual(differingMiB(["a", "b", "c"], ["a", "x"]), [1, 2]);
});
