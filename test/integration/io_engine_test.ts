/**
 * The io-engine process from outside: real processes, real files, real etcd, published gRPC.
 * What is proven: a mirrored nexus survives the death of a replica's engine without losing a write,
 * records the fault in etcd, and heals; one whose record was fenced acknowledges nothing that a replica
 * missed, and ends; a crash and a clean stop both import again; each bad input has its own published code.
 */
import assert from "node:assert/strict";
import { mkdtempSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isKind } from "#common/errors.ts";
import { ShareProtocol } from "#common/proto/generated/mayastor/v1/common_pb.ts";
import {
  ChildAction,
  ChildState,
  type Nexus,
  NexusState,
} from "#common/proto/generated/mayastor/v1/nexus_pb.ts";
import { PoolState } from "#common/proto/generated/mayastor/v1/pool_pb.ts";
import { EtcdStore } from "#common/store/etcd.ts";
import { EtcdServer, etcdMissing } from "#common/store/testing/etcd.ts";
import { digest, VerifyIo } from "../../hack/quickstart/verify_io.ts";
import { EngineProcess, type EngineSettings } from "../support/engine.ts";
import { loopbackAddress } from "../support/slot.ts";

const MIB = 1024 * 1024;
const DATA_OFFSET = 5 * MIB;
const SIZE = 64n * 1024n * 1024n;
const USABLE_BYTES = 48 * MIB; // within the nexus, which is its size less the reserved parts
const WAIT_MS = 60_000;
const POLL_MS = 100;
/** Byte of the super block that says whether the pool was unloaded cleanly. */
const CLEAN_OFFSET = 16;

const uuid = (last: number) => `5f0c1d2e-0000-4000-8000-${String(last).padStart(12, "0")}`;

async function until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
  const attempts = WAIT_MS / POLL_MS;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const seen = await look();
    if (seen !== null) return seen;
    await sleep(POLL_MS);
  }
  throw new Error(`Waited ${WAIT_MS} ms in vain for ${what}`);
}

/** What is wrong with it, the kind it is refused with, and the call. */
type Case = readonly [string, string, () => Promise<unknown>];

async function rejectEach(cases: readonly Case[]): Promise<void> {
  for (const [what, kind, call] of cases) await assert.rejects(call, { kind }, what);
}

function isClean(disk: string): boolean {
  const bytes = Buffer.alloc(4);
  const fd = openSync(disk, "r");
  readSync(fd, bytes, 0, 4, CLEAN_OFFSET);
  return bytes.readUInt32LE(0) === 1;
}

describe("io-engine", { skip: etcdMissing(), timeout: 600_000 }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), "mayastor-engine-"));
  const running = new Set<EngineProcess>();
  let etcd: EtcdServer;
  let store: EtcdStore;
  let a: EngineProcess;
  let b: EngineProcess;

  const disk = (name: string, mib = 256): string => {
    const file = path.join(folder, name);
    writeFileSync(file, "");
    truncateSync(file, mib * MIB);
    return file;
  };
  const start = async (settings: EngineSettings): Promise<EngineProcess> => {
    const engine = await EngineProcess.start({
      ...settings,
      args: ["-p", etcd.endpoint],
      env: { NEXUS_NVMF_ANA_ENABLE: "1", NEXUS_NVMF_RESV_ENABLE: "1", NVME_KATO: "2s" },
    });
    running.add(engine);
    return engine;
  };
  const end = async (engine: EngineProcess, how: "kill" | "stop"): Promise<number> => {
    running.delete(engine);
    if (how === "stop") return await engine.stop();
    await engine.kill();
    return 137;
  };
  const info = async (key: string): Promise<unknown> => {
    const entry = await store.get(key);
    return entry ? JSON.parse(entry.value) : null;
  };
  const nexusOn = async (engine: EngineProcess, id: string): Promise<Nexus> => {
    const found = (await engine.nexus.listNexus({ uuid: id })).nexusList[0];
    assert.ok(found, `nexus ${id} is listed`);
    return found;
  };

  before(async () => {
    etcd = await EtcdServer.create();
    store = new EtcdStore({ endpoints: etcd.endpoint, timeoutMs: 5_000 });
    [a, b] = await Promise.all([
      start({ name: "node-a", address: loopbackAddress() }),
      start({ name: "node-b", address: loopbackAddress() }),
    ]);
  });
  after(async () => {
    for (const engine of running) await engine.kill();
    await store?.close();
    await etcd?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("answers who it is", async () => {
    const seen = await a.host.getMayastorInfo({});
    assert.equal(seen.registrationInfo?.id, "node-a");
    assert.equal(seen.registrationInfo?.grpcEndpoint, `${a.settings.address}:10124`);
    assert.equal(seen.registrationInfo?.hostnqn, "nqn.2019-05.io.openebs:node-name:node-a");
    assert.equal(seen.supportedFeatures?.asymmetricNamespaceAccess, true);
    const { usage } = await a.host.getMayastorResourceUsage({});
    assert.ok(usage && usage.softFaults > 0n);
    await a.host.listBlockDevices({ all: true });
  });

  test("mirrors, survives a dead replica engine, records it, heals, and loses nothing", async () => {
    const disks = [disk("a0"), disk("b0")] as const;
    await a.pool.createPool({ name: "pool-a", disks: [disks[0]] });
    await b.pool.createPool({ name: "pool-b", disks: [`aio://${disks[1]}?blk_size=512`] });
    const local = await a.replica.createReplica({
      ...{ name: uuid(1), uuid: uuid(1), pooluuid: "pool-a", size: SIZE, thin: true },
    });
    const remote = await b.replica.createReplica({
      ...{ name: uuid(2), uuid: uuid(2), pooluuid: "pool-b", size: SIZE },
      share: ShareProtocol.NVMF,
      allowedHosts: ["nqn.2019-05.io.openebs:node-name:node-a"],
    });
    assert.equal(local.uri, `bdev:///${uuid(1)}?uuid=${uuid(1)}`);
    const nqn = `nqn.2019-05.io.openebs:${uuid(2)}`;
    assert.equal(remote.uri, `nvmf://${b.settings.address}:8420/${nqn}?uuid=${uuid(2)}`);

    const id = uuid(10);
    const key = `volume/${uuid(20)}/nexus/${id}/info`;
    const created = await a.nexus.createNexus({
      ...{ name: uuid(20), uuid: id, size: SIZE, children: [local.uri, remote.uri] },
      ...{ minCntlId: 1, maxCntlId: 2, resvKey: 0x1234n, resvType: 2, preemptPolicy: 1 },
      nexusInfoKey: key,
    });
    assert.equal(created.nexus?.state, NexusState.NEXUS_ONLINE);
    assert.equal(created.nexus?.size, SIZE);
    const both = [
      { healthy: true, uuid: uuid(1) },
      { healthy: true, uuid: uuid(2) },
    ];
    assert.deepEqual(await info(key), { children: both, clean_shutdown: false });

    const published = await a.nexus.publishNexus({ uuid: id, share: ShareProtocol.NVMF });
    const uri = published.nexus?.deviceUri ?? "";
    assert.equal(uri, `nvmf://${a.settings.address}:4421/nqn.2019-05.io.openebs:${uuid(20)}`);
    const again = await a.nexus.publishNexus({ uuid: id, share: ShareProtocol.NVMF });
    assert.equal(again.nexus?.deviceUri, uri, "publishing twice is fine");

    const journal = path.join(folder, "journal");
    const io = ["--uri", uri, "--journal", journal];
    const writer = new VerifyIo([
      "write",
      ...io,
      "--bytes",
      String(USABLE_BYTES),
      "--rate",
      "2000",
    ]);
    try {
      await until("writes", async () =>
        writer.events.some((event) => event.event === "progress") ? true : null,
      );
      await end(b, "kill");
      const faulted = await until("the child to be Faulted", async () => {
        const { children } = await nexusOn(a, id);
        const child = children.find((one) => one.uri === remote.uri);
        return child?.state === ChildState.FAULTED ? child : null;
      });
      assert.equal((await nexusOn(a, id)).state, NexusState.NEXUS_DEGRADED);
      assert.equal(faulted.hasIoLog, true);
      await until("the fault in etcd", async () => {
        const record = JSON.stringify(await info(key));
        return record.includes(`{"healthy":false,"uuid":"${uuid(2)}"}`) ? record : null;
      });

      assert.equal(isClean(disks[1]), false, "a crash leaves the pool marked as in use");
      b = await start({ name: "node-b", address: b.settings.address });
      await b.pool.importPool({ name: "pool-b", disks: [disks[1]] });
      const back = (await b.replica.listReplicas({ uuid: uuid(2) })).replicas[0];
      assert.equal(back?.uri, remote.uri, "an import serves the replica again");
      assert.deepEqual(back?.allowedHosts, remote.allowedHosts);

      await a.nexus.childOperation({
        ...{ nexusUuid: id, uri: remote.uri, action: ChildAction.Online },
      });
      await until("the nexus to be Online", async () => {
        const seen = await nexusOn(a, id);
        return seen.state === NexusState.NEXUS_ONLINE ? seen : null;
      });
      assert.deepEqual(await info(key), { children: both, clean_shutdown: false });
      const { records } = await a.nexus.getRebuildHistory({ uuid: id });
      assert.equal(records.at(-1)?.isPartial, true);
      writer.stop();
      const finished = await writer.finished;
      assert.equal(finished.code, 0, JSON.stringify(finished.result));
    } finally {
      writer.kill();
    }
    await VerifyIo.run(["verify", ...io]);

    const { stats } = await a.stats.getNexusIoStats({ name: uuid(20) });
    assert.ok((stats[0]?.numWriteOps ?? 0n) > 0n);
    assert.equal(stats[0]?.tickRate, 1_000_000_000n);

    await a.nexus.destroyNexus({ uuid: id });
    assert.deepEqual(await info(key), { children: both, clean_shutdown: true });
    const shared = await a.replica.shareReplica({ uuid: uuid(1), share: ShareProtocol.NVMF });
    await b.replica.unshareReplica({ uuid: uuid(2) });
    const open = await b.replica.shareReplica({ uuid: uuid(2), share: ShareProtocol.NVMF });
    assert.deepEqual(open.allowedHosts, []);
    const digests = await Promise.all(
      [shared.uri, open.uri].map((replica) => digest(replica, USABLE_BYTES, DATA_OFFSET)),
    );
    assert.deepEqual(digests[0], digests[1], "both replicas hold the same bytes");
  });

  test("acknowledges nothing that a dead replica engine missed once its record is fenced, and ends", async () => {
    const disks = [disk("fence-a"), disk("fence-b")] as const;
    await a.pool.createPool({ name: "fence-a", disks: [disks[0]] });
    await b.pool.createPool({ name: "fence-b", disks: [disks[1]] });
    const local = await a.replica.createReplica({
      ...{ name: uuid(7), uuid: uuid(7), pooluuid: "fence-a", size: SIZE },
    });
    const remote = await b.replica.createReplica({
      ...{ name: uuid(8), uuid: uuid(8), pooluuid: "fence-b", size: SIZE },
      share: ShareProtocol.NVMF,
    });
    const id = uuid(15);
    const key = `volume/${uuid(22)}/nexus/${id}/info`;
    const children = [local.uri, remote.uri];
    const request = { name: uuid(22), uuid: id, size: SIZE, children, nexusInfoKey: key };
    await a.nexus.createNexus(request);
    const published = await a.nexus.publishNexus({ uuid: id, share: ShareProtocol.NVMF });
    const uri = published.nexus?.deviceUri ?? "";
    const journal = path.join(folder, "fence-journal");
    const writer = new VerifyIo([
      ...["write", "--uri", uri, "--journal", journal, "--bytes", String(USABLE_BYTES)],
      ...["--rate", "2000", "--progress-seconds", "0.2"],
    ]);
    const healthy = [7, 8].map((last) => ({ healthy: true, uuid: uuid(last) }));
    const fenced = { children: healthy, clean_shutdown: false, fenced_by: uuid(16) };
    try {
      await writer.acknowledges(500);
      await store.put(key, JSON.stringify(fenced));
      await writer.acknowledges(500); // as long as every child has them
      await end(b, "kill");
      await until("the nexus to shut itself down", async () =>
        (await nexusOn(a, id)).state === NexusState.NEXUS_SHUTDOWN ? true : null,
      );
    } finally {
      writer.kill();
    }
    await writer.finished;
    assert.deepEqual(await info(key), fenced, "the record is its successor's to judge by");

    b = await start({ name: "node-b", address: b.settings.address });
    await b.pool.importPool({ name: "fence-b", disks: [disks[1]] });
    const at = ["--uri", remote.uri, "--offset-bytes", String(DATA_OFFSET)];
    await VerifyIo.run(["verify", ...at, "--journal", journal]);

    await a.nexus.destroyNexus({ uuid: id });
    assert.deepEqual(await info(key), fenced, "nor does its end change it");
    await a.nexus.createNexus({ ...request, children: [remote.uri] });
    const [, second] = healthy;
    assert.deepEqual(await info(key), { children: [second], clean_shutdown: false });
    await a.nexus.destroyNexus({ uuid: id });
    assert.deepEqual(await info(key), { children: [second], clean_shutdown: true });
  });

  test("stops cleanly and comes back with everything it served", async () => {
    const file = disk("clean");
    const settings = { name: "node-c", address: loopbackAddress() };
    const engine = await start(settings);
    await engine.pool.createPool({ name: "pool-c", disks: [file] });
    const replica = await engine.replica.createReplica({
      ...{ name: uuid(3), uuid: uuid(3), pooluuid: "pool-c", size: SIZE, entityId: uuid(21) },
      share: ShareProtocol.NVMF,
    });
    const children = [`bdev:///${uuid(3)}?uuid=${uuid(3)}`];
    await engine.nexus.createNexus({ name: "", uuid: uuid(11), size: SIZE, children });
    await engine.nexus.publishNexus({ uuid: uuid(11), share: ShareProtocol.NVMF });
    assert.equal(isClean(file), false);
    assert.equal(await end(engine, "stop"), 0, engine.log.join("\n"));
    assert.equal(isClean(file), true);
    const record = { children: [{ healthy: true, uuid: uuid(3) }], clean_shutdown: true };
    assert.deepEqual(await info(uuid(11)), record);

    const next = await start(settings);
    const pool = await next.pool.createPool({ name: "pool-c", disks: [file] });
    assert.equal(pool.state, PoolState.POOL_ONLINE);
    assert.ok(pool.used >= SIZE, "create-or-import found the pool");
    const found = (await next.replica.listReplicas({ poolname: "pool-c" })).replicas[0];
    assert.equal(found?.uri, replica.uri);
    assert.equal(found?.entityId, uuid(21));
    await next.pool.destroyPool({ name: "pool-c" });
    await assert.rejects(next.pool.importPool({ name: "pool-c", disks: [file] }), {
      kind: "invalid-argument",
    });
    assert.equal(await end(next, "stop"), 0);
  });

  test("answers each bad pool request with its own code", async () => {
    const file = disk("bad-pool");
    await a.pool.createPool({ name: "bad-pool", disks: [file] });
    const cases: Case[] = [
      ["no disk", "invalid-argument", () => a.pool.createPool({ name: "x", disks: [] })],
      [
        "two disks",
        "invalid-argument",
        () => a.pool.createPool({ name: "x", disks: ["/a", "/b"] }),
      ],
      ["no name", "invalid-argument", () => a.pool.createPool({ name: "", disks: [file] })],
      [
        "missing disk",
        "invalid-argument",
        () => a.pool.createPool({ name: "x", disks: ["/none"] }),
      ],
      [
        "bad scheme",
        "invalid-argument",
        () => a.pool.createPool({ name: "x", disks: ["iscsi:///x"] }),
      ],
      [
        "bad query",
        "invalid-argument",
        () => a.pool.createPool({ name: "x", disks: [`${file}?no=1`] }),
      ],
      [
        "bad uuid",
        "invalid-argument",
        () => a.pool.createPool({ name: "x", disks: [file], uuid: "z" }),
      ],
      ["loaded", "already-exists", () => a.pool.createPool({ name: "bad-pool", disks: [file] })],
      [
        "disk in use",
        "invalid-argument",
        () => a.pool.createPool({ name: "other", disks: [file] }),
      ],
      [
        "other disk",
        "invalid-argument",
        () => a.pool.createPool({ name: "bad-pool", disks: ["/x"] }),
      ],
      ["not loaded", "not-found", () => a.pool.destroyPool({ name: "never" })],
      ["not loaded", "not-found", () => a.pool.exportPool({ name: "never" })],
      ["grow", "unimplemented", () => a.pool.growPool({ name: "bad-pool" })],
    ];
    await rejectEach(cases);
    await a.pool.exportPool({ name: "bad-pool" });
    await assert.rejects(a.pool.createPool({ name: "other", disks: [file] }), (error: unknown) => {
      assert.ok(isKind(error, "invalid-argument"));
      assert.match(error.message, /bad-pool/, "the message names the pool found on the disk");
      return true;
    });
  });

  test("answers each bad replica request with its own code", async () => {
    await a.pool.createPool({ name: "bad-rep", disks: [disk("bad-rep")] });
    const make = (fields: { id?: string; name?: string; pool?: string; size?: bigint }) =>
      a.replica.createReplica({
        ...{ uuid: fields.id ?? uuid(4), name: fields.name ?? uuid(4) },
        ...{ pooluuid: fields.pool ?? "bad-rep", size: fields.size ?? SIZE },
      });
    await make({});
    const cases: Case[] = [
      ["uuid taken", "already-exists", () => make({ name: "other" })],
      ["name taken", "already-exists", () => make({ id: uuid(5) })],
      ["bad uuid", "invalid-argument", () => make({ id: "r1" })],
      ["size 0", "invalid-argument", () => make({ id: uuid(6), name: "r6", size: 0n })],
      ["too large", "invalid-argument", () => make({ id: uuid(6), name: "r6", size: 1n << 40n })],
      ["full", "resource-exhausted", () => make({ id: uuid(6), name: "r6", size: 200n << 20n })],
      ["no pool", "failed-precondition", () => make({ id: uuid(6), name: "r6", pool: "never" })],
      ["no replica", "not-found", () => a.replica.destroyReplica({ uuid: uuid(99) })],
      ["no replica", "not-found", () => a.replica.shareReplica({ uuid: uuid(99), share: 1 })],
      ["protocol", "invalid-argument", () => a.replica.shareReplica({ uuid: uuid(4), share: 0 })],
      [
        "bad host",
        "invalid-argument",
        () => a.replica.shareReplica({ uuid: uuid(4), share: 1, allowedHosts: ["me"] }),
      ],
      [
        "pool missing",
        "failed-precondition",
        () =>
          a.replica.destroyReplica({ uuid: uuid(4), pool: { case: "poolName", value: "never" } }),
      ],
      [
        "other pool",
        "aborted",
        () =>
          a.replica.destroyReplica({ uuid: uuid(4), pool: { case: "poolName", value: "pool-a" } }),
      ],
    ];
    await rejectEach(cases);
    const children = [`bdev:///${uuid(4)}?uuid=${uuid(4)}`];
    await a.nexus.createNexus({ name: "busy", uuid: uuid(12), size: SIZE, children });
    const busy = { kind: "failed-precondition", message: /in use by/ };
    await assert.rejects(a.replica.destroyReplica({ uuid: uuid(4) }), busy);
    await assert.rejects(a.pool.exportPool({ name: "bad-rep" }), busy);
    await a.nexus.destroyNexus({ uuid: uuid(12) });
    await a.replica.destroyReplica({ uuid: uuid(4) });
    await a.pool.destroyPool({ name: "bad-rep" });
  });

  test("answers each bad nexus and bdev request with its own code", async () => {
    const { bdev } = await a.bdev.create({ uri: "malloc:///m0?size_mb=64" });
    assert.equal(bdev?.numBlocks, 131072n);
    await a.bdev.create({ uri: "malloc:///m1?size_mb=64&blk_size=4096" });
    const make = (fields: {
      id?: string;
      size?: bigint;
      children?: string[];
      maxCntlId?: number;
    }) =>
      a.nexus.createNexus({
        ...{ name: fields.id ?? uuid(13), uuid: fields.id ?? uuid(13), size: fields.size ?? SIZE },
        ...{
          children: fields.children ?? ["bdev:///m0"],
          minCntlId: 2,
          maxCntlId: fields.maxCntlId ?? 9,
        },
      });
    await make({});
    const cases: Case[] = [
      ["exists", "already-exists", () => make({})],
      ["bad uuid", "invalid-argument", () => make({ id: "n1" })],
      ["size 0", "invalid-argument", () => make({ id: uuid(14), size: 0n })],
      ["no child", "invalid-argument", () => make({ id: uuid(14), children: [] })],
      [
        "no such child",
        "invalid-argument",
        () => make({ id: uuid(14), children: ["bdev:///none"] }),
      ],
      ["cntlids", "invalid-argument", () => make({ id: uuid(14), maxCntlId: 1 })],
      ["unknown", "not-found", () => a.nexus.destroyNexus({ uuid: uuid(98) })],
      ["unknown", "not-found", () => a.nexus.publishNexus({ uuid: uuid(98), share: 1 })],
      ["protocol", "invalid-argument", () => a.nexus.publishNexus({ uuid: uuid(13), share: 0 })],
      [
        "key",
        "invalid-argument",
        () => a.nexus.publishNexus({ uuid: uuid(13), share: 1, key: "k" }),
      ],
      ["not published", "invalid-argument", () => a.nexus.getNvmeAnaState({ uuid: uuid(13) })],
      [
        "block sizes",
        "invalid-argument",
        () => a.nexus.addChildNexus({ uuid: uuid(13), uri: "bdev:///m1", norebuild: true }),
      ],
      [
        "last child",
        "failed-precondition",
        () => a.nexus.removeChildNexus({ uuid: uuid(13), uri: "bdev:///m0" }),
      ],
      [
        "last healthy",
        "failed-precondition",
        () => a.nexus.faultNexusChild({ uuid: uuid(13), uri: "bdev:///m0" }),
      ],
      [
        "no rebuild",
        "not-found",
        () => a.nexus.getRebuildState({ nexusUuid: uuid(13), uri: "bdev:///m0" }),
      ],
      [
        "bdev in use",
        "failed-precondition",
        () => a.bdev.destroy({ uri: "malloc:///m0?size_mb=64" }),
      ],
      ["bdev taken", "already-exists", () => a.bdev.create({ uri: "malloc:///m0?size_mb=64" })],
      ["bdev missing", "not-found", () => a.bdev.share({ name: "none", protocol: 1 })],
      ["bdev missing", "not-found", () => a.bdev.list({ name: "none" })],
      ["bdev uri", "invalid-argument", () => a.bdev.create({ uri: "malloc:///m2" })],
    ];
    await rejectEach(cases);
    const shut = await a.nexus.shutdownNexus({ uuid: uuid(13) });
    assert.equal(shut.nexus?.state, NexusState.NEXUS_SHUTDOWN);
    await a.nexus.shutdownNexus({ uuid: uuid(13) });
    await a.nexus.destroyNexus({ uuid: uuid(13) });
    const shared = await a.bdev.share({ name: "m0", protocol: 1 });
    assert.equal(
      shared.bdev?.shareUri,
      `nvmf://${a.settings.address}:8420/nqn.2019-05.io.openebs:m0`,
    );
    await a.bdev.unshare({ name: "m0" });
    await a.bdev.destroy({ uri: "malloc:///m0?size_mb=64" });
  });
});
