import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  ANY_HOST,
  endedPublication,
  generationOf,
  nextPublication,
  type Publication,
  unrecordedPublication,
  volumeOfName,
  withOutcome,
} from "./publication.ts";

const V = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const A = "nqn.2019-05.io.openebs:node-name:a";
const B = "nqn.2019-05.io.openebs:node-name:b";
const left = (nqn: string, leftOpen = 0) => ({ nqn, leftOpen });
const end = (...hosts: { nqn: string; leftOpen: number }[]) => ({ hosts, complete: true });
/** A publication to `hosts` from its begin to its end; null: nobody knows how they left. */
const served = (
  last: Publication | null,
  hosts: string[],
  how: Parameters<typeof withOutcome>[1] | null,
  interrupted = false,
): Publication => {
  const present = { ...nextPublication(V, last), interrupted };
  return endedPublication(how === null ? present : withOutcome(present, how, hosts), hosts);
};

describe("nextPublication()", () => {
  test("gives the documented name at first and after clean ends", () => {
    assert.equal(nextPublication(V, null).name, V);
    const once = served(null, [A], end(left(A)));
    const twice = served(once, [B], end(left(B)));
    assert.equal(nextPublication(V, twice).name, V);
  });

  test("never gives a name again that a host may still hold", () => {
    const cut = served(null, [A], null); // A was cut off
    assert.equal(nextPublication(V, cut).name, `${V}:1`);
    const onB = served(cut, [B], end(left(B)));
    const back = nextPublication(V, onB);
    assert.equal(back.name, `${V}:2`, "B ended well, A has not been seen since");
    const again = served(onB, [A], null);
    assert.equal(nextPublication(V, again).name, `${V}:3`);
  });

  test("gives the documented name again once a later publication ended well on the host that was cut off", () => {
    const cut = served(null, [A], null);
    const onA = served(cut, [A], end(left(A)));
    assert.deepEqual(onA.stale_hosts, []);
    assert.equal(nextPublication(V, onA).name, V);
    const cutAgain = served(onA, [A], null);
    assert.equal(nextPublication(V, cutAgain).name, `${V}:2`, "a suffix is given once");
  });

  test("takes a host that never connected to a later publication for one that still holds the earlier", () => {
    const cut = served(null, [A], null);
    const unused = served(cut, [A], end());
    assert.deepEqual(unused.stale_hosts, [A]);
  });
});

describe("withOutcome()", () => {
  test("a host that left a controller open, or was connected at the end, is stale, asked for or not", () => {
    assert.deepEqual(served(null, [A], end(left(A, 1))).stale_hosts, [A]);
    assert.deepEqual(served(null, [], end(left(B, 2))).stale_hosts, [B]);
    assert.deepEqual(served(null, [A], end(left(A), left(B, 1))).stale_hosts, [B]);
  });

  test("a target that was made again knows nothing of hosts that it has not seen", () => {
    assert.deepEqual(served(null, [A], end(), true).stale_hosts, [A]);
    assert.deepEqual(served(null, [A], end(left(A)), true).stale_hosts, []);
    assert.deepEqual(served(null, [], end(left(A)), true).stale_hosts, [ANY_HOST]);
    assert.deepEqual(
      served(null, [A], end()).stale_hosts,
      [],
      "one target has seen all, and nobody came",
    );
  });

  test("more hosts than are kept count as unknown, for good", () => {
    const many = served(null, [], { hosts: [left(A)], complete: false });
    assert.deepEqual(many.stale_hosts, [ANY_HOST]);
    assert.deepEqual(served(many, [A], end(left(A))).stale_hosts, [ANY_HOST]);
  });

  test("two controllers of one host are one host", () => {
    const outcome = served(null, [A], end(left(A), left(A, 1)));
    assert.deepEqual(outcome.stale_hosts, [A]);
  });

  test("the list of stale hosts has a bound", () => {
    const hosts = Array.from({ length: 100 }, (_, index) => `${A}${index}`);
    assert.deepEqual(served(null, hosts, null).stale_hosts, [ANY_HOST]);
  });
});

test("unrecordedPublication(): hosts of an earlier release may hold what it published", () => {
  assert.equal(nextPublication(V, unrecordedPublication(V, [A])).name, `${V}:1`);
  assert.deepEqual(unrecordedPublication(V, []).stale_hosts, [ANY_HOST]);
});

test("generationOf() and volumeOfName() read a name", () => {
  assert.equal(generationOf(V, V), 0);
  assert.equal(generationOf(V, `${V}:12`), 12);
  for (const name of [
    `${V}:0`,
    `${V}:01`,
    `${V}:-1`,
    `${V}:1.5`,
    `${V}:`,
    `${V}:9999999999999999`,
    "x",
    "",
  ]) {
    assert.equal(generationOf(V, name), null, name);
  }
  assert.equal(volumeOfName(`${V}:12`), V);
  assert.equal(volumeOfName(V), V);
});
