/** The small things everybody leans on: units, names, ids, options, gates, retries, clocks. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { deadlineSignal, ManualClock } from "./clock.ts";
import { helpText, integer, parseBaseUrl, parseOptions, text } from "./config.ts";
import { isKind, rootMessage, SvcError, toSvcError } from "./errors.ts";
import { Gate } from "./gate.ts";
import { parseNodeId, parseVolumeId } from "./ids.ts";
import { isNqn, nodeHostNqn, parseNqn } from "./nqn.ts";
import { seededRandom, systemRandom } from "./random.ts";
import { backoffMs, retry } from "./retry.ts";
import { decodeJson, encodeJson } from "./store/json.ts";
import { parseDurationMs, parsePercent, toSafeNumber } from "./units.ts";

const invalid = { kind: "invalid-argument" };

test("the pinned runtime runs the tests", () => {
  assert.match(process.version, /^v24\./);
});

test("parseBaseUrl() takes an HTTP server, and no slash at its end", () => {
  assert.equal(parseBaseUrl("http://api-rest:8081//"), "http://api-rest:8081");
  assert.equal(parseBaseUrl("https://[fd00::1]:8080/at"), "https://[fd00::1]:8080/at");
  for (const wrong of ["", "api-rest:8081", "ftp://api-rest", "/v0"]) {
    assert.throws(() => parseBaseUrl(wrong), invalid);
  }
});

test("parseDurationMs() reads what the options document", () => {
  const cases = { "10s": 10_000, "500ms": 500, "1m 30s": 90_000, "0.5s": 500, "2h": 7_200_000 };
  for (const [written, ms] of Object.entries(cases)) assert.equal(parseDurationMs(written), ms);
  for (const bad of ["", "10", "s", "10x", "-1s", "1s,"]) {
    assert.throws(() => parseDurationMs(bad), invalid, bad);
  }
});

test("parsePercent() takes a number with or without sign", () => {
  assert.equal(parsePercent("250%"), 250);
  assert.equal(parsePercent("40"), 40);
  assert.throws(() => parsePercent("forty"), invalid);
});

test("toSafeNumber() refuses what a number cannot hold", () => {
  assert.equal(toSafeNumber(2n ** 53n - 1n), Number.MAX_SAFE_INTEGER);
  assert.throws(() => toSafeNumber(2n ** 53n), { kind: "out-of-range" });
});

test("parseNqn() follows the published rules", () => {
  const uuid = "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
  for (const good of [uuid, nodeHostNqn("worker-1")]) assert.equal(parseNqn(good), good);
  const bad = ["", "nqn.2019", "nqn.19-05.io.openebs:x", "nqn.2019-05.io.openebs:"];
  for (const name of [...bad, `nqn.2019-05.io.openebs:${"x".repeat(220)}`]) {
    assert.equal(isNqn(name), false, name);
  }
});

test("ids lower-case uuids and refuse path tricks", () => {
  const uuid = "BF207797-B23D-447A-8D3F-98D378ACFA8A";
  assert.equal(parseVolumeId(uuid), uuid.toLowerCase());
  assert.throws(() => parseVolumeId(`${uuid}/..`), invalid);
  for (const bad of ["", "a/b", "a b"]) assert.throws(() => parseNodeId(bad), invalid);
});

describe("parseOptions()", () => {
  const table = {
    port: { short: "p", env: "PORT", default: "1", help: "The port", parse: integer },
    name: { help: "A name", parse: text },
    quiet: { flag: true, help: "Say nothing" },
  } as const;

  test("prefers flags to environment to defaults", () => {
    const read = (args: string[], env = {}) => parseOptions(table, { args, env });
    assert.deepEqual(read([]), { port: 1, name: null, quiet: false });
    assert.equal(read([], { PORT: "2" }).port, 2);
    assert.equal(read(["-p", "3", "--quiet"], { PORT: "2" }).port, 3);
  });

  test("names the option that is wrong", () => {
    assert.throws(() => parseOptions(table, { args: ["--port", "x"], env: {} }), /--port/);
    assert.throws(() => parseOptions(table, { args: ["--nope"], env: {} }), /nope/);
    assert.match(helpText("x", table), /-p, --port <port>\n.*\[env: PORT\] \[default: 1\]/);
  });
});

test("decodeJson() and encodeJson() keep 64-bit integers exactly", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (key) => {
      const written = `{"reservationKey":${key},"text":"12345678901234567890"}`;
      assert.equal(encodeJson(decodeJson(written, "test")), written);
    }),
  );
  assert.throws(() => decodeJson("{", "the key"), { kind: "deserialize" });
});

test("errors keep kind and innermost cause", () => {
  const error = new SvcError("unavailable", "Cannot x", { cause: new Error("ECONNREFUSED") });
  assert.equal(rootMessage(error), "ECONNREFUSED");
  assert.equal(toSvcError(error), error);
  assert.equal(isKind(toSvcError(new Error("odd")), "internal"), true);
});

test("Gate.close() waits for what entered and lets nothing more in", async () => {
  const errors: unknown[] = [];
  const gate = new Gate((error) => errors.push(error));
  let end = (): void => {};
  const work = new Promise<void>((resolve) => {
    end = resolve;
  });
  let done = false;
  gate.enter(async () => {
    await work;
    done = true;
  });
  gate.enter(() => Promise.reject(new Error("one")));
  const closing = gate.close();
  assert.equal(
    gate.enter(async () => {}),
    false,
  );
  end();
  await closing;
  assert.equal(done, true);
  assert.equal(errors.length, 1);
});

test("retry() repeats what may pass, and only that", async () => {
  const clock = new ManualClock();
  const options = {
    clock,
    random: seededRandom(1),
    signal: new AbortController().signal,
    attempts: 3,
    delayMs: 100,
    delayMsMax: 1000,
  };
  let calls = 0;
  const failing = (kind: "unavailable" | "not-found") => async () => {
    calls += 1;
    throw new SvcError(kind, "Cannot");
  };
  const transient = assert.rejects(retry(options, failing("unavailable")), { kind: "unavailable" });
  await clock.advance(5000);
  await transient;
  assert.equal(calls, 3);
  await assert.rejects(retry(options, failing("not-found")), { kind: "not-found" });
  assert.equal(calls, 4);
});

test("backoffMs() grows, is capped and jitters by at most a quarter", () => {
  const random = seededRandom(7);
  for (let attempt = 1; attempt < 50; attempt++) {
    const base = Math.min(100 * 2 ** (attempt - 1), 5000);
    const pause = backoffMs(attempt, { random, delayMs: 100, delayMsMax: 5000 });
    assert.ok(pause >= 0.75 * base && pause <= 1.25 * base);
  }
});

test("seededRandom() repeats itself, and both sources make proper uuids", () => {
  const [a, b] = [seededRandom(42), seededRandom(42)];
  assert.deepEqual([a.uuid(), a.uint32()], [b.uuid(), b.uint32()]);
  for (const random of [a, systemRandom]) {
    assert.match(
      random.uuid(),
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  }
});

test("deadlineSignal() aborts at its time and not after clear()", async () => {
  const clock = new ManualClock();
  const first = deadlineSignal(clock, 100);
  const second = deadlineSignal(clock, 100);
  second.clear();
  await clock.advance(101);
  assert.equal(first.signal.aborted, true);
  assert.equal(second.signal.aborted, false);
});
