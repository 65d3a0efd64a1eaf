import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  createReadStream,
  ftruncateSync,
  linkSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import net from "node:net";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { SvcError } from "#common/errors.ts";
import { BdevRpc } from "#common/proto/generated/mayastor/v1/bdev_pb.ts";
import { PoolRpc } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { ReplicaRpc } from "#common/proto/generated/mayastor/v1/replica_pb.ts";
import { makeClient } from "#common/rpc/grpc.ts";
import type { LocalCluster } from "../../hack/cluster/local.ts";
import { RestError } from "../../hack/cluster/rest.ts";
import { VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { startCluster } from "../support/cluster.ts";

const MIB = 1024 * 1024;

function makeDisk(cluster: LocalCluster, name: string, mib: number): string {
  const file = path.join(cluster.folder, "disks", name);
  const fd = openSync(file, "w");
  ftruncateSync(fd, mib * MIB);
  closeSync(fd);
  return file;
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest("hex");
}

/** Sends bytes to a port and gives back what came until the other side closed or was silent for a while. */
function exchange(
  host: string,
  port: number,
  bytes: Buffer,
  silenceMs = 300,
): Promise<{ data: Buffer; closed: boolean }> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = net.connect(port, host, () => socket.write(bytes));
    const finish = (closed: boolean) => {
      socket.destroy();
      resolve({ data: Buffer.concat(parts), closed });
    };
    socket.setTimeout(silenceMs, () => finish(false));
    socket.on("data", (chunk) => parts.push(chunk));
    socket.on("end", () => finish(true));
    socket.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "ECONNRESET" ? finish(true) : reject(error),
    );
  });
}

describe("bad input", () => {
  let cluster: LocalCluster;
  let address: string;
  let pid: number | null;
  const clients = () => ({
    bdev: makeClient(BdevRpc, `${address}:10124`, { deadlineMs: 20_000 }),
    pool: makeClient(PoolRpc, `${address}:10124`, { deadlineMs: 20_000 }),
    replica: makeClient(ReplicaRpc, `${address}:10124`, { deadlineMs: 20_000 }),
  });

  const cleanups: (() => unknown)[] = [];
  after(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });
  before(async () => {
    cluster = await startCluster({ after: (callback) => cleanups.push(callback) }, { engines: 1 });
    address = cluster.nodes[0]?.address ?? "";
    pid = cluster.processes.pid("node-1");
  });

  /** Same process as at the start: nothing died on the way. */
  const stillAlive = () =>
    assert.equal(cluster.processes.pid("node-1"), pid, cluster.processes.logTail("node-1"));

  const rejects = async (call: Promise<unknown>, kind: string, text: RegExp) => {
    await assert.rejects(call, (error: unknown) => {
      assert.ok(error instanceof SvcError || error instanceof RestError, String(error));
      assert.equal(error.kind, kind, error.message);
      assert.match(error.message, text);
      return true;
    });
    stillAlive();
  };

  test("a pool on a device with a file system is refused by name and nothing is overwritten", async () => {
    const disk = makeDisk(cluster, "ext4.img", 64);
    execFileSync("mkfs.ext4", ["-q", "-F", disk]);
    const sum = await sha256(disk);
    await rejects(
      cluster.rest.createPool("node-1", "on-ext4", `aio://${disk}`),
      "InvalidArgument",
      /ext4|ext[234]/,
    );
    assert.equal(await sha256(disk), sum, "the file system was touched");
    execFileSync("fsck.ext4", ["-fn", disk], { stdio: "ignore" });
  });

  test("a pool on another pool's device is refused with that pool's name and nothing is overwritten", async () => {
    const disk = makeDisk(cluster, "foreign.img", 64);
    const { pool } = clients();
    await pool.rpc.createPool({ name: "first", disks: [`aio://${disk}`] });
    await pool.rpc.exportPool({ name: "first" });
    const sum = await sha256(disk);
    await rejects(
      pool.rpc.createPool({ name: "second", disks: [`aio://${disk}`] }),
      "invalid-argument",
      /first/,
    );
    assert.equal(await sha256(disk), sum, "the foreign pool was touched");
    const again = await pool.rpc.importPool({ name: "first", disks: [`aio://${disk}`] });
    assert.equal(again.name, "first");
    pool.close();
  });

  test("a pool on another pool's disk by another path is refused, and nothing is overwritten", async () => {
    const disk = makeDisk(cluster, "once.img", 64);
    const { pool } = clients();
    await pool.rpc.createPool({ name: "once", disks: [`aio://${disk}`] });
    symlinkSync(disk, `${disk}.symbolic`);
    linkSync(disk, `${disk}.hard`);
    for (const other of [`${disk}.symbolic`, `${disk}.hard`, path.join(disk, "../once.img")]) {
      await rejects(
        pool.rpc.createPool({ name: "twice", disks: [`aio://${other}`] }),
        "invalid-argument",
        /in use/,
      );
    }
    // The refused ones kept nothing: the disk can be had again, by any of its names.
    await pool.rpc.exportPool({ name: "once" });
    const again = await pool.rpc.importPool({ name: "once", disks: [`aio://${disk}.symbolic`] });
    assert.equal(again.name, "once");
    await pool.rpc.destroyPool({ name: "once" });
    pool.close();
  });

  test("a bad URI, an unknown scheme, an unknown parameter and a missing file are each named", async () => {
    const { bdev } = clients();
    await rejects(bdev.rpc.create({ uri: "not a uri" }), "invalid-argument", /not a uri/);
    await rejects(bdev.rpc.create({ uri: "iscsi:///x" }), "invalid-argument", /iscsi/);
    await rejects(
      bdev.rpc.create({ uri: "malloc:///m?size_mb=8&colour=red" }),
      "invalid-argument",
      /colour/,
    );
    await rejects(bdev.rpc.create({ uri: "aio:///no/such/file" }), "not-found", /no\/such\/file/);
    bdev.close();
  });

  test("a wrong block size is refused", async () => {
    const { bdev } = clients();
    await rejects(
      bdev.rpc.create({ uri: "malloc:///m?size_mb=8&blk_size=513" }),
      "invalid-argument",
      /513/,
    );
    const disk = makeDisk(cluster, "odd.img", 8);
    await rejects(
      bdev.rpc.create({ uri: `aio://${disk}?blk_size=1000` }),
      "invalid-argument",
      /1000/,
    );
    bdev.close();
  });

  test("a name already taken is refused", async () => {
    const { bdev, pool, replica } = clients();
    await bdev.rpc.create({ uri: "malloc:///twice?size_mb=8" });
    await rejects(bdev.rpc.create({ uri: "malloc:///twice?size_mb=8" }), "already-exists", /twice/);
    await rejects(
      pool.rpc.createPool({
        name: "pool-1",
        disks: [`aio://${makeDisk(cluster, "taken.img", 64)}`],
      }),
      "invalid-argument",
      /pool-1/,
    );
    const wanted = {
      ...{ name: "r1", uuid: "0f4d1a50-1111-4222-8333-444455556666" },
      ...{ pooluuid: "pool-1", size: BigInt(8 * MIB), thin: false },
    };
    await replica.rpc.createReplica(wanted);
    await rejects(replica.rpc.createReplica(wanted), "already-exists", /0f4d1a50|r1/);
    await replica.rpc.destroyReplica({ uuid: wanted.uuid });
    bdev.close();
    pool.close();
    replica.close();
  });

  test("a volume larger than any pool is refused with what there is", async () => {
    const volume = "0f4d1a50-7777-4222-8333-444455556666";
    await rejects(
      cluster.rest.createVolume(volume, { size: 64 * 1024 * MIB, replicas: 1 }),
      "ResourceExhausted",
      /pool/i,
    );
    await assert.rejects(cluster.rest.volume(volume), (error: RestError) => error.status === 404);
  });

  test("malformed REST requests answer the documented error body", async () => {
    const { url } = cluster.rest;
    const put = await fetch(`${url}/v0/volumes/0f4d1a50-7777-4222-8333-444455556666`, {
      method: "PUT",
      body: "{",
      headers: { "content-type": "application/json" },
    });
    assert.equal(put.status, 400);
    const body = (await put.json()) as { kind: string; details: string; message: string };
    assert.equal(body.kind, "Deserialize");
    assert.equal((await fetch(`${url}/v0/volumes/not-a-uuid`)).status, 400);
    assert.equal((await fetch(`${url}/v0/nothing/here`)).status, 404);
  });

  test("garbage, truncated and oversized PDUs end their connection and nothing else", async () => {
    for (const port of [8420, 4421]) {
      for (let seed = 0; seed < 20; seed++) {
        const garbage = createHash("sha512").update(`${port} ${seed}`).digest();
        await exchange(address, port, Buffer.concat([garbage, garbage, garbage]));
      }
      const icreq = Buffer.alloc(128);
      icreq.set([0, 0, 128, 0, 128, 0, 0, 0]);
      const answer = await exchange(address, port, icreq, 2000);
      assert.equal(answer.data[0], 1, "a well-formed ICReq gets an ICResp");
      const huge = Buffer.alloc(72);
      huge.set([4, 0, 72, 72, 0xff, 0xff, 0xff, 0x7f]); // a command capsule of 2 GiB
      const refused = await exchange(address, port, Buffer.concat([icreq, huge]), 5000);
      assert.ok(refused.closed, "a capsule of 2 GiB does not end the connection");
      assert.equal(refused.data[128], 3, "it is answered with a termination request");
      await exchange(address, port, icreq.subarray(0, 60)); // cut off in the middle
    }
    stillAlive();
  });

  test("an unknown NQN is refused at connect", async () => {
    const tool = new VerifyIo([
      ...[
        "digest",
        "--uri",
        `nvmf://${address}:8420/nqn.2019-05.io.openebs:nobody`,
        "--bytes",
        "1MiB",
        "--retry-seconds",
        "0",
      ],
    ]);
    const finished = await tool.finished;
    assert.notEqual(finished.code, 0);
    assert.match(finished.stderr + JSON.stringify(finished.events), /nobody/);
    stillAlive();
  });

  test("a disk that is too small for a pool is refused", async () => {
    const disk = makeDisk(cluster, "small.img", 4);
    await rejects(
      cluster.rest.createPool("node-1", "small", `aio://${disk}`),
      "InvalidArgument",
      /small/,
    );
    assert.ok(
      readFileSync(disk).every((byte) => byte === 0),
      "the disk was written to",
    );
  });

  test("a disk that holds a damaged pool is not formatted over", async () => {
    const disk = makeDisk(cluster, "damaged.img", 64);
    const { pool } = clients();
    await pool.rpc.createPool({ name: "damaged", disks: [`aio://${disk}`] });
    await pool.rpc.exportPool({ name: "damaged" });
    const fd = openSync(disk, "r+");
    writeSync(fd, Buffer.from([0xff]), 0, 1, 100); // one bit pattern in the super block's reserved area
    closeSync(fd);
    const sum = await sha256(disk);
    await rejects(
      pool.rpc.createPool({ name: "damaged", disks: [`aio://${disk}`] }),
      "invalid-argument",
      /damaged|super|crc|checksum/i,
    );
    assert.equal(await sha256(disk), sum);
    pool.close();
  });
});
