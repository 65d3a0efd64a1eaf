/**
 * Pools on real block devices (loop devices on files), with blocks of 512 and of 4096 bytes: a real engine keeps
 * what it acknowledged through a crash, refuses a device that holds something or is in use, gives the device back
 * when it stops, and outlives a medium that goes away.
 * Needs root and loop devices; skipped with the reason elsewhere.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, test } from "node:test";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import { PoolState } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { EngineProcess } from "../support/engine.ts";
import { loopbackAddress } from "../support/slot.ts";

const MIB = 1024 * 1024;
const DISK_MIB = 128;
const REPLICA_BYTES = 32n * 1024n * 1024n;
const WRITTEN_BYTES = 16 * MIB;

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${status}: ${stderr}`);
  return stdout.trim();
}

function loopMissing(): string | false {
  const { status, stderr } = spawnSync("losetup", ["--find"], { encoding: "utf8" });
  return status === 0 ? false : `needs a loop device: ${stderr || "no losetup"}`;
}

describe("pools on block devices", { skip: loopMissing(), timeout: 300_000 }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-block-"));
  const devices = new Set<string>();
  const running = new Set<EngineProcess>();
  const address = loopbackAddress();

  const image = (name: string): string => {
    const file = path.join(folder, name);
    writeFileSync(file, "");
    truncateSync(file, DISK_MIB * MIB);
    return file;
  };
  const attach = (file: string, sectorBytes = 512): string => {
    const sector = ["--sector-size", String(sectorBytes)];
    const device = run("losetup", "--find", "--show", ...sector, file);
    devices.add(device);
    return device;
  };
  const start = async (): Promise<EngineProcess> => {
    const engine = await EngineProcess.start({ name: "node-block", address });
    running.add(engine);
    return engine;
  };
  const end = async (engine: EngineProcess, how: "kill" | "stop"): Promise<number> => {
    running.delete(engine);
    if (how === "stop") return await engine.stop();
    await engine.kill();
    return 137;
  };
  const replicaOn = async (engine: EngineProcess, pool: string, uuid: string): Promise<string> => {
    const made = await engine.replica.createReplica({
      ...{ name: uuid, uuid, pooluuid: pool, size: REPLICA_BYTES, thin: true },
      share: ShareProtocol.NVMF,
    });
    return made.uri;
  };
  after(async () => {
    for (const engine of running) await engine.kill();
    for (const device of devices) spawnSync("losetup", ["--detach", device]);
    rmSync(folder, { recursive: true, force: true });
  });

  for (const sectorBytes of [512, 4096]) {
    test(`blocks of ${sectorBytes} bytes keep what was acknowledged through a crash of the engine`, async () => {
      const device = attach(image(`crash-${sectorBytes}`), sectorBytes);
      const uuid = `5f0c1d2e-0000-4000-8000-${String(sectorBytes).padStart(12, "0")}`;
      let engine = await start();
      const pool = await engine.pool.createPool({ name: "pool", disks: [device] });
      assert.equal(pool.state, PoolState.POOL_ONLINE);
      assert.equal(pool.diskCapacity, BigInt(DISK_MIB * MIB));
      const uri = await replicaOn(engine, "pool", uuid);
      const io = ["--uri", uri, "--journal", path.join(folder, `journal-${sectorBytes}`)];
      const writer = new VerifyIo([
        "write",
        ...io,
        "--bytes",
        String(WRITTEN_BYTES),
        "--retry-seconds",
        "0",
      ]);
      await writer.acknowledges(2_000);
      await end(engine, "kill");
      assert.notEqual((await writer.finished).code, 0, "the writer noticed");

      engine = await start();
      await engine.pool.importPool({ name: "pool", disks: [device] });
      await VerifyIo.run(["verify", ...io]);
      assert.equal(await end(engine, "stop"), 0);
      run("losetup", "--detach", device); // nothing holds it any more
      devices.delete(device);
    });
  }

  test("a device that holds a file system, or is mounted, is refused and left as it is", async () => {
    const file = image("foreign");
    run("mkfs.ext4", "-q", file);
    const hash = () => createHash("sha256").update(readFileSync(file)).digest("hex");
    const before = hash();
    const device = attach(file);
    const engine = await start();
    const refused = { kind: "invalid-argument", message: /ext4/ };
    await assert.rejects(engine.pool.createPool({ name: "pool", disks: [device] }), refused);
    assert.equal(hash(), before);
    const place = path.join(folder, "place");
    mkdirSync(place);
    run("mount", "-o", "ro", device, place);
    try {
      const inUse = { kind: "invalid-argument", message: /in use/ };
      await assert.rejects(engine.pool.createPool({ name: "pool", disks: [device] }), inUse);
    } finally {
      run("umount", place);
    }
    assert.equal(await end(engine, "stop"), 0);
  });

  test("a medium that goes away gives errors; the engine answers on and can be stopped", async () => {
    const file = image("lost");
    const device = attach(file, 4096);
    const engine = await start();
    await engine.pool.createPool({ name: "pool", disks: [device] });
    const uuid = "5f0c1d2e-0000-4000-8000-00000000dead";
    const uri = await replicaOn(engine, "pool", uuid);
    const io = [
      "--uri",
      uri,
      "--journal",
      path.join(folder, "journal-lost"),
      "--retry-seconds",
      "0",
    ];
    await VerifyIo.run(["write", ...io, "--bytes", String(WRITTEN_BYTES), "--seconds", "1"]);
    truncateSync(file, 0); // nobody writes now: that would make the file anew
    run("losetup", "--set-capacity", device);
    assert.equal((await engine.pool.listPools({})).pools.length, 1);
    assert.equal((await engine.replica.listReplicas({})).replicas.length, 1);
    await assert.rejects(replicaOn(engine, "pool", "5f0c1d2e-0000-4000-8000-00000000beef"));
    assert.ok((await end(engine, "stop")) <= 1, "it ends, and says whether all was written");
  });
});
