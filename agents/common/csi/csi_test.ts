import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFileSystem, parseNodeSelector, uint32Parameter, uuidOfVolumeName } from "./driver.ts";
import { Limiter, VolumeGuard } from "./guard.ts";

test("parseNodeSelector() reads pairs and refuses a key given twice", () => {
  assert.deepEqual(parseNodeSelector("a/b=c,d=e"), { "a/b": "c", d: "e" });
  for (const bad of ["", "a", "a=", "=b", "a=b=c", "a=b,a=c"]) {
    assert.throws(() => parseNodeSelector(bad), { kind: "invalid-argument" }, bad);
  }
});

test("uuidOfVolumeName() accepts pvc-<uuid> only", () => {
  const uuid = "ec4e66fb-3b33-4439-b504-d49aba53da26";
  assert.equal(uuidOfVolumeName(`pvc-${uuid.toUpperCase()}`), uuid);
  for (const bad of [uuid, `pvc-${uuid}0`, "pvc-", "pvc-x", `vol-${uuid}`]) {
    assert.equal(uuidOfVolumeName(bad), null, bad);
  }
});

test("uint32Parameter() is null when absent and refuses what is no 32-bit number", () => {
  assert.equal(uint32Parameter({}, "k"), null);
  assert.equal(uint32Parameter({ k: "4294967295" }, "k"), 4294967295);
  for (const bad of ["4294967296", "-1", "1.5", "30s", " 3"]) {
    assert.throws(() => uint32Parameter({ k: bad }, "k"), { kind: "invalid-argument" }, bad);
  }
});

test("parseFileSystem() knows lower-case names and defaults to ext4", () => {
  assert.equal(parseFileSystem(""), "ext4");
  assert.equal(parseFileSystem("xfs"), "xfs");
  assert.throws(() => parseFileSystem("EXT4"), { kind: "invalid-argument" });
});

test("VolumeGuard refuses a second operation on a volume and lets the next in afterwards", async () => {
  const guard = new VolumeGuard();
  let finish = () => {};
  const first = guard.run("v", "stage", () => new Promise<void>((resolve) => (finish = resolve)));
  await assert.rejects(
    guard.run("v", "unstage", async () => {}),
    {
      kind: "aborted",
      message: /stage is in progress/,
    },
  );
  assert.equal(await guard.run("w", "stage", async () => 1), 1);
  finish();
  await first;
  await assert.rejects(
    guard.run("v", "stage", () => Promise.reject(new Error("x"))),
    /x/,
  );
  assert.equal(await guard.run("v", "stage", async () => 2), 2);
});

test("Limiter never runs more than its limit, and starts the others in order", async () => {
  const limiter = new Limiter(2);
  let running = 0;
  let most = 0;
  const order: number[] = [];
  await Promise.all(
    [1, 2, 3, 4, 5].map((n) =>
      limiter.run(async () => {
        order.push(n);
        most = Math.max(most, ++running);
        await Promise.resolve();
        running -= 1;
      }),
    ),
  );
  assert.equal(most, 2);
  assert.deepEqual(order, [1, 2, 3, 4, 5]);
});
