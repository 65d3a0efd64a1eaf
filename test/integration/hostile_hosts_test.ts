/**
 * Hosts that take and do not give, each beside one that behaves: floods of connections, of controllers and of queues,
 * writes whose data never comes, reads that nobody takes, halves of PDUs, one byte a second. What must hold: the honest
 * host's worst I/O stays below a second, no volume loses a replica, and the engine's memory comes back.
 * Each for some seconds; MAYASTOR_HOSTILE_SECONDS=60 is the long run (`npm test -- hostile-long`).
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { LocalCluster } from "../../hack/cluster/local.ts";
import { until } from "../../hack/cluster/local.ts";
import { startCluster, untilOnline } from "../support/cluster.ts";
import {
  CONTROLLER_BUSY,
  DISCOVERY_NQN,
  NvmeHost,
  NvmeQueue,
  NvmeRefused,
  parseTarget,
} from "../support/nvme_host.ts";

const SECONDS = Number(process.env["MAYASTOR_HOSTILE_SECONDS"] ?? 4);
const WORST_MS_MAX = 1000;
const RSS_MIB_GROWTH_MAX = 64;
/** By then what was left is found out, and the memory given back: the deadlines are 15 s, pools shrink every 5 s. */
const BACK_SECONDS_MAX = 60;
const LARGE = 131_072;
const root = new URL("../..", import.meta.url).pathname;
const nqn = (name: string) => `nqn.2019-05.io.openebs:node-name:${name}`;

type Where = ReturnType<typeof parseTarget>;

/** What one hostile host has open. */
class Hostile {
  readonly where: Where;
  readonly #open: { close(): void }[] = [];
  refused = 0;
  constructor(where: Where) {
    this.where = where;
  }
  keep<T extends { close(): void }>(thing: T): T {
    this.#open.push(thing);
    return thing;
  }
  async connection(): Promise<NvmeQueue> {
    return this.keep(await NvmeQueue.open(this.where));
  }
  /** With as many queues as it gets, up to `queues`; null: it was refused, as busy. */
  async controller(subsystem: string, hostNqn: string, queues = 0): Promise<NvmeHost | null> {
    try {
      const name = { subsystem, hostNqn, hostId: randomBytes(16) };
      const host = this.keep(await NvmeHost.open(this.where, name));
      for (let i = 0; i < queues; i++) await host.addQueue();
      return host;
    } catch (error) {
      if (!(error instanceof NvmeRefused)) throw error;
      assert.equal(error.status, CONTROLLER_BUSY);
      this.refused++;
      return null;
    }
  }
  close(): void {
    for (const thing of this.#open) thing.close();
  }
}

type Attack = (hostile: Hostile, until: number) => Promise<void>;

const attacks: Record<string, Attack> = {
  async "a flood of connections that say nothing"(hostile, end) {
    while (Date.now() < end) {
      for (let i = 0; i < 50; i++) await hostile.connection();
      await sleep(50);
    }
  },
  async "a flood of discovery controllers"(hostile, end) {
    for (let i = 0; Date.now() < end; i++) await hostile.controller(DISCOVERY_NQN, nqn(`d-${i}`));
    if (SECONDS >= 60) assert.ok(hostile.refused > 0, "there is an end to what is admitted");
  },
  async "a flood of controllers"(hostile, end) {
    while (Date.now() < end) await hostile.controller(hostile.where.subsystem, nqn("flood"));
    assert.ok(hostile.refused > 0, "there is an end to what is admitted");
  },
  async "a flood of queues"(hostile, end) {
    for (let i = 0; Date.now() < end; i++) {
      await hostile.controller(hostile.where.subsystem, nqn(`queues-${i}`), 31);
    }
  },
  async "writes whose data never comes"(hostile, end) {
    const host = await hostile.controller(hostile.where.subsystem, nqn("greedy"), 31);
    for (const queue of host?.queues ?? []) {
      for (let i = 0; i < 127; i++) queue.begin("write", i * 256, LARGE);
    }
    await idleUntil(host, end);
  },
  async "reads whose answers nobody takes"(hostile, end) {
    const host = await hostile.controller(hostile.where.subsystem, nqn("greedy"), 31);
    for (const queue of host?.queues ?? []) {
      queue.socket.pause();
      for (let i = 0; i < 127; i++) queue.begin("read", i * 256, LARGE);
    }
    await idleUntil(host, end);
  },
  async "halves of PDUs, then one byte a second"(hostile, end) {
    const host = await hostile.controller(hostile.where.subsystem, nqn("halves"), 31);
    const queues = host?.queues ?? [];
    for (let i = 0; i < 200; i++) {
      queues.push(await hostile.connection());
    }
    // The beginning of a command with 4 KiB in its capsule.
    for (const queue of queues) queue.send(Buffer.from([4, 0, 72, 72, 0x48, 0x10, 0, 0, 1, 0x40]));
    while (Date.now() < end) {
      await sleep(1000);
      for (const queue of queues) queue.send(Buffer.alloc(1));
      await alive(host);
    }
  },
};

async function alive(host: NvmeHost | null): Promise<void> {
  if (host && !host.admin.ended) await host.admin.keepAlive().catch(() => {}); // it may have been ended
}

async function idleUntil(host: NvmeHost | null, end: number): Promise<void> {
  for (; Date.now() < end; await sleep(1000)) await alive(host);
}

async function rssMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s*(\d+)/.exec(status)?.[1]) / 1024;
}

interface Honest {
  readonly end: () => Promise<{ count: number; worstMs: number }>;
}

async function startHonest(uri: string, processes: Set<ChildProcess>): Promise<Honest> {
  const child = spawn(process.execPath, ["test/support/honest_host.ts", uri, nqn("honest")], {
    cwd: root,
    stdio: ["pipe", "pipe", "inherit"],
  });
  processes.add(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  assert.equal(first.value, "ready", "the honest host got in");
  return {
    end: async () => {
      child.stdin.end();
      const last = await lines.next();
      assert.ok(!last.done, "the honest host had no error");
      await once(child, "exit");
      processes.delete(child);
      return JSON.parse(last.value) as { count: number; worstMs: number }; // honest_host.ts wrote it
    },
  };
}

describe("hostile hosts", { timeout: 300_000 + SECONDS * 20_000 }, () => {
  const cleanups: (() => unknown)[] = [];
  const processes = new Set<ChildProcess>();
  let cluster: LocalCluster;
  let pid = 0;
  const volumes = { good: "", bad: "" };
  const uris = { good: "", bad: "" };

  after(async () => {
    for (const child of processes) child.kill("SIGKILL");
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });
  before(async () => {
    cluster = await startCluster({ after: (callback) => cleanups.push(callback) }, { engines: 3 });
    const [node] = cluster.nodes;
    assert.ok(node);
    for (const which of ["good", "bad"] as const) {
      const uuid = `7e2f0000-0000-4000-8000-00000000000${which === "good" ? 1 : 2}`;
      await cluster.rest.createVolume(uuid, { size: 128 * 1024 * 1024, replicas: 2 });
      const volume = await cluster.rest.publish(uuid, node.name);
      volumes[which] = uuid;
      uris[which] = volume.state.target?.deviceUri ?? "";
      await untilOnline(cluster, uuid);
    }
    pid = cluster.processes.pid(node.name) ?? 0;
  });

  for (const [what, attack] of Object.entries(attacks)) {
    test(what, async () => {
      const honest = await startHonest(uris.good, processes);
      const before = await rssMib(pid);
      const hostile = new Hostile(parseTarget(uris.bad));
      const [attacked] = await Promise.allSettled([attack(hostile, Date.now() + SECONDS * 1000)]);
      hostile.close();
      // In any case: two honest hosts at once would write over each other.
      const { count, worstMs } = await honest.end();
      if (attacked.status === "rejected") throw attacked.reason;
      assert.ok(
        count > 0 && worstMs <= WORST_MS_MAX,
        `${count} I/Os, the worst took ${worstMs} ms`,
      );
      for (const uuid of Object.values(volumes)) {
        assert.equal((await cluster.rest.volume(uuid)).state.status, "Online");
      }
      let last = 0;
      await until(
        "the engine's memory to come back",
        async () => {
          last = await rssMib(pid);
          return last - before <= RSS_MIB_GROWTH_MAX ? true : null;
        },
        { seconds: BACK_SECONDS_MAX },
      ).catch(() => assert.fail(`the engine had ${before} MiB, and has ${last}`));
    });
  }
});
