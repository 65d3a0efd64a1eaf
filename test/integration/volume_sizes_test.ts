/** Sizes with real processes: devices have what was asked for, space is promised once, block sizes stay apart, an idle node drains at once. */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { LocalCluster, until } from "../../hack/cluster/local.ts";
import { VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { ownPlace, QUICK_CORE } from "../support/cluster.ts";
import { clearOnSignal } from "../support/interrupts.ts";

const MIB = 2 ** 20;
const POLICY = { self_heal: true };

function uuid(index: number): string {
  return `6d1f2a0c-6a2e-4a52-9c31-${String(index).padStart(12, "0")}`;
}

/** The bytes that a host sees: what the tool says when it is asked for more. */
async function deviceBytes(uri: string): Promise<number> {
  const asked = String(2 ** 40);
  const failure = await VerifyIo.run(["digest", "--uri", uri, "--bytes", asked]).then(
    () => "",
    (error: Error) => error.message,
  );
  const bytes = /device \((\d+)/.exec(failure)?.[1];
  assert.ok(bytes, failure);
  return Number(bytes);
}

describe("sizes on a real cluster", () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  let cluster: LocalCluster;

  before(async () => {
    clearOnSignal(folder);
    cluster = await LocalCluster.create({
      ...{ folder, engines: 3, diskMiB: 512, coreArgs: QUICK_CORE },
      ...ownPlace(3),
    });
    await cluster.start();
    const [first, ...rest] = cluster.nodes;
    assert.ok(first);
    await cluster.rest.createPool(first.name, first.pool, `aio://${first.disk}?blk_size=4096`);
    for (const { name, pool, disk } of rest) {
      await cluster.rest.createPool(name, pool, `aio://${disk}`);
    }
  });

  after(() => LocalCluster.clear(folder));

  const put = (volume: string, body: object) =>
    cluster.rest.request("PUT", `/volumes/${volume}`, { policy: POLICY, ...body });
  const remove = (volume: string) => cluster.rest.request("DELETE", `/volumes/${volume}`);

  test("a device has at least what was asked for, on disks of either block size", async () => {
    const [large, small] = cluster.nodes;
    assert.ok(large && small);
    for (const { name } of [large, small]) {
      for (const size of [1, 4097, MIB, 5 * MIB, 64 * MIB + 1, 100_000_000, 128 * MIB]) {
        const volume = uuid(1);
        const node = { explicit: { allowed_nodes: [name], preferred_nodes: [] } };
        await put(volume, { size, replicas: 1, thin: true, topology: { node_topology: node } });
        const { spec, state } = await cluster.rest.publish(volume, name);
        const device = await deviceBytes(state.target?.deviceUri ?? "");
        assert.ok(device >= size, `${name}: asked for ${size}, got ${device}`);
        assert.equal(device, spec.size, `${name}: ${size}`);
        await cluster.rest.unpublish(volume);
        await remove(volume);
      }
    }
  });

  test("replicas are never put on pools of different block sizes", async () => {
    await assert.rejects(put(uuid(2), { size: 64 * MIB, replicas: 3, thin: false }), /block size/);
    await put(uuid(2), { size: 64 * MIB, replicas: 2, thin: false });
    const { state } = await cluster.rest.publish(uuid(2));
    assert.equal(state.status, "Online");
    await assert.rejects(
      cluster.rest.request("PUT", `/volumes/${uuid(2)}/replica_count/3`),
      /block size/,
    );
    await cluster.rest.unpublish(uuid(2));
    await remove(uuid(2));
  });

  test("a burst of thin volumes gets no more than the pool's limit", async () => {
    const [{ name, pool } = { name: "", pool: "" }] = cluster.nodes;
    const found = (await cluster.rest.request("GET", `/pools/${pool}`)) as {
      state: { capacity: number };
    };
    // Five of them stay below 250 % of the pool, six do not.
    const size = Math.floor((found.state.capacity * 0.45) / MIB) * MIB - 8 * MIB;
    const node = { explicit: { allowed_nodes: [name], preferred_nodes: [] } };
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        put(uuid(100 + index), {
          ...{ size, replicas: 1, thin: true, topology: { node_topology: node } },
        }).then(
          () => "made",
          (error: Error) => error.message,
        ),
      ),
    );
    assert.equal(answers.filter((answer) => answer === "made").length, 5, answers.join("\n"));
    for (const answer of answers) if (answer !== "made") assert.match(answer, /250 %/);
    for (const [index, answer] of answers.entries()) {
      if (answer === "made") await remove(uuid(100 + index));
    }
  });

  test("the drain of a node with an idle volume ends at once", async () => {
    const [, from] = cluster.nodes;
    assert.ok(from);
    await put(uuid(3), { size: 64 * MIB, replicas: 2, thin: false });
    await cluster.rest.publish(uuid(3), from.name);
    await cluster.rest.request("PUT", `/nodes/${from.name}/drain/maintenance`);
    const startedMs = performance.now();
    await until(
      `${from.name} is drained`,
      async () => {
        const node = await cluster.rest.request("GET", `/nodes/${from.name}`);
        return JSON.stringify(node).includes("drainedstate") ? true : null;
      },
      { seconds: 60 },
    );
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs < 30_000, `took ${Math.round(tookMs)} ms`);
  });
});
