/**
 * scripts/node-prep against a real sshd whose sessions live in roots made here: dry run, idempotence,
 * undo byte by byte, interruption at every changing command, hosts in parallel, bad input.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { type Action, applyScript, undoScript } from "../../scripts/node-prep/actions.ts";
import { type HostTask, prepareHost } from "../../scripts/node-prep/host.ts";
import { mergeSshConfigs, missing, type SshNode, startSshNode } from "../support/ssh_node.ts";

const skip = missing() ?? false;
const root = path.resolve(import.meta.dirname, "../..");
const WANTED = ["--hugepages=512", "--isolate-cpus=2,3", "--open-firewall=10.0.0.0/24"];

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly progress: string;
}

async function nodePrep(...args: string[]): Promise<Ran> {
  const main = path.join(root, "scripts/node-prep/main.ts");
  try {
    const done = await promisify(execFile)(process.execPath, ["--import", "tsx", main, ...args], {
      cwd: root,
    });
    return { code: 0, out: done.stdout, progress: done.stderr };
  } catch (error) {
    const failed = error as { code: number; stdout: string; stderr: string }; // execFile's own shape
    return { code: failed.code, out: failed.stdout, progress: failed.stderr };
  }
}

const reach = (node: SshNode) => [`--host=${node.host}`, `--ssh-config=${node.sshConfig}`];

/** One prepareHost without ssh in between. */
function task(node: SshNode, mode: HostTask["mode"]): Promise<{ status: string; error?: unknown }> {
  return prepareHost({
    name: "node",
    node: undefined,
    mode,
    wanted: {
      hugepages: 512,
      isolateCpus: [2, 3],
      openFirewall: "10.0.0.0/24",
      installPackages: false,
    },
    kubectl: undefined,
    run: node.direct,
    signal: new AbortController().signal,
    progress: () => {},
  });
}

function assertSameTree(node: SshNode, wanted: Map<string, string>, when: string): void {
  const now = node.tree();
  for (const file of new Set([...now.keys(), ...wanted.keys()])) {
    assert.equal(now.get(file), wanted.get(file), `${file} ${when}`);
  }
}

test("two nodes at once: dry run, apply, again, undo byte by byte", { skip }, async (t) => {
  const nodes = await Promise.all([startSshNode(t, "debian"), startSshNode(t, "rocky")]);
  const [debian, rocky] = nodes;
  const config = mergeSshConfigs(nodes, `${debian.sshConfig}.all`);
  const all = [...nodes.map(({ host }) => `--host=${host}`), `--ssh-config=${config}`];
  const before = nodes.map((node) => node.tree());

  const dry = await nodePrep(...all, ...WANTED);
  assert.equal(dry.code, 0, dry.out);
  assert.match(dry.out, /would write \/etc\/default\/grub\.d\/90-mayastor\.cfg/);
  assert.match(dry.out, /would grubby: isolcpus=2,3/);
  assert.match(
    dry.out,
    /empty: \/dev\/disk\/by-id\/ata-EMPTY_1 .*; not empty: sda partitioned, sdc data/,
  );
  nodes.forEach((node, index) => {
    assertSameTree(node, before[index] ?? new Map(), "after a dry run");
  });

  const applied = await nodePrep(...all, ...WANTED, "--apply");
  assert.equal(applied.code, 0, applied.out);
  assert.match(debian.read("boot/grub/grub.cfg"), /quiet isolcpus=2,3 nvme_core\.multipath=Y\n/);
  assert.match(
    rocky.read("boot/loader/entries/1-5.14.conf"),
    / isolcpus=2,3 nvme_core\.multipath=Y\n/,
  );
  assert.match(debian.read("etc/ufw/user.rules"), /allow 10124,8420,4421 10\.0\.0\.0\/24/);
  assert.match(
    rocky.read("etc/firewalld/zones/public.xml"),
    /address="10\.0\.0\.0\/24" port port="4421"/,
  );
  for (const node of nodes) {
    assert.match(node.read("etc/modules-load.d/mayastor.conf"), /^nvme-tcp$/m);
    assert.match(node.read("etc/modprobe.d/mayastor.conf"), /^options nvme_core multipath=Y$/m);
    assert.match(node.read("etc/sysctl.d/90-mayastor-hugepages.conf"), /^vm\.nr_hugepages = 512$/m);
    assert.equal(node.read("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "512\n");
    assert.ok(fs.existsSync(path.join(node.root, "sys/module/nvme_tcp")));
    // Not a terminal: every line names its node.
    assert.match(applied.progress, new RegExp(`^${node.host}: changed 10-modules-load$`, "m"));
  }

  const done = nodes.map((node) => node.tree());
  const again = await nodePrep(...all, ...WANTED, "--apply");
  assert.equal(again.code, 0, again.out);
  assert.match(again.progress, /: 0 changes; counts after a reboot$/m);
  nodes.forEach((node, index) => {
    assertSameTree(node, done[index] ?? new Map(), "after the second run");
  });

  const undone = await nodePrep(...all, "--undo", "--apply");
  assert.equal(undone.code, 0, undone.out);
  nodes.forEach((node, index) => {
    assertSameTree(node, before[index] ?? new Map(), "after undo");
  });
});

test("after the reboot the node is ready, and undo leaves what others changed", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  assert.equal((await task(node, "apply")).status, "reboot");
  node.write("sys/devices/system/cpu/isolated", "2-3\n");
  node.write("sys/module/nvme_core/parameters/multipath", "Y\n");
  assert.equal((await task(node, "apply")).status, "ready");

  node.write("etc/modprobe.d/mayastor.conf", "options nvme_core multipath=Y io_timeout=60\n");
  const result = await task(node, "undo");
  assert.equal(result.status, "failed");
  assert.match(String(result.error), /mayastor\.conf was changed since/);
  assert.match(node.read("etc/modprobe.d/mayastor.conf"), /io_timeout=60/);
  assert.ok(!fs.existsSync(path.join(node.root, "etc/default/grub.d")), "the rest is undone");
});

test("a node whose check fails isn't changed", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  node.write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse sse2\n");
  const table = node.read("proc/net/tcp");
  node.write("proc/net/tcp", `${table}   1: 00000000:20E4 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n`);
  const before = node.tree();
  const { code, out } = await nodePrep(
    ...reach(node),
    "--hugepages=9000",
    "--isolate-cpus=0-3",
    "--apply",
  );
  assert.equal(code, 1);
  assert.match(out, /fail +cpu +no SSE4\.2/);
  assert.match(out, /fail +port 8420 +in use by/);
  assert.match(out, /fail +hugepages +9000 pages are 18000 MiB; the node has 16000 MiB/);
  assert.match(out, /fail +cpus +cannot isolate every CPU/);
  assert.match(out, /nothing was changed/);
  assertSameTree(node, before, "after a failed check");
});

test("bad input and unreachable hosts are refused in words", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  const cases: [string[], RegExp][] = [
    [[], /no host is given/],
    [["--host=-oProxyCommand=x"], /Cannot use host/],
    [["--host=a;reboot"], /Cannot use host/],
    [["--host=a", "--host=a"], /given twice/],
    [["--host=a", "--hugepages=-1"], /Cannot use --hugepages/],
    [["--host=a", "--isolate-cpus=3-1"], /Cannot use CPU list/],
    [["--host=a", "--open-firewall=everyone"], /Cannot open the firewall/],
    [["--host=a", "--kubeconfig=x"], /give --kubectl too/],
    [["--host=a", "--hosts-file=/no/such/file"], /Cannot read --hosts-file/],
    [["--host=a", "--wipe"], /Unknown option/],
    [["--talos", "--apply"], /Cannot apply to Talos/],
  ];
  const ran = await Promise.all(cases.map(([args]) => nodePrep(...args)));
  ran.forEach(({ code, progress }, index) => {
    const [args, message] = cases[index] ?? [[], /./];
    assert.equal(code, 2, args.join(" "));
    assert.match(progress, message);
  });
  // A good node is prepared although another one cannot be reached.
  const { code, out } = await nodePrep(...reach(node), "--host=127.0.0.1:1", "--parallel=2");
  assert.equal(code, 1);
  assert.match(out, /127\.0\.0\.1:1: failed\n +error: Cannot look: ssh failed: .*refused/);
  assert.match(out, /would write \/etc\/modules-load\.d\/mayastor\.conf/);
});

test("the Talos patch has the same preparation", async () => {
  const { code, out } = await nodePrep("--talos", ...WANTED);
  assert.equal(code, 0);
  for (const part of [
    /vm\.nr_hugepages: "512"/,
    /- name: nvme_tcp/,
    /openebs\.io\/engine: mayastor/,
    /- isolcpus=2,3/,
    /subnet: 10\.0\.0\.0\/24/,
    /namespaces:\n +- mayastor/,
  ]) {
    assert.match(out, part);
  }
});

/** One change of every kind; few, so that a crash at each of their commands takes seconds. */
const everyKind: readonly Action[] = [
  {
    kind: "file",
    name: "10-edit",
    what: "edit",
    path: "/etc/sysctl.d/10-other.conf",
    content: "kernel.panic = 10\nkernel.panic_on_oops = 1\n",
  },
  {
    kind: "live",
    name: "22-hugepages",
    what: "live",
    path: "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    value: "512",
  },
  {
    kind: "file",
    name: "30-grub-defaults",
    what: "drop-in in a new folder",
    path: "/etc/default/grub.d/90-mayastor.cfg",
    content: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=2"\n',
  },
  {
    kind: "run",
    name: "32-boot-arguments",
    what: "run",
    command: "update-grub",
    revert: "update-grub",
    refresh: "",
    touches: ["/boot/grub/grub.cfg", "/boot/loader/entries/*.conf"],
  },
  { kind: "label", name: "60-label", what: "note", node: "node-1" },
];

/** Far above the commands a script has: a loop that never ends its script is a failure, not a hang. */
const CRASHES_MAX = 300;

/** Runs `script` dying at its 1st, 2nd, ... changing command, until it gets through. */
async function crashEverywhere(
  node: SshNode,
  script: string,
  afterCrash: (count: number) => Promise<void>,
): Promise<number> {
  const { signal } = new AbortController();
  for (let count = 1; count <= CRASHES_MAX; count++) {
    node.crashAt(count);
    const { exitCode } = await node.direct(script, { signal });
    node.crashAt(undefined);
    if (exitCode === 0) return count - 1;
    await afterCrash(count);
  }
  throw new Error(`the script still dies at command ${CRASHES_MAX}`);
}

test("interrupted at every command of apply: the next apply repairs, undo restores", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const { signal } = new AbortController();
  const [apply, undo] = [applyScript(everyKind), undoScript()];
  const before = node.tree();
  const finish = async (script: string, when: string) => {
    const { exitCode, lines, errorTail } = await node.direct(script, { signal });
    assert.equal(exitCode, 0, `${when}: ${[...lines, errorTail].join("\n")}`);
  };
  const crashes = await crashEverywhere(node, apply, async (count) => {
    // Odd crashes are repaired first; even ones are undone as they are.
    if (count % 2 === 1) {
      await finish(apply, `apply after a crash at command ${count}`);
      assert.match(node.read("boot/grub/grub.cfg"), /isolcpus=2\n/);
      assert.match(node.read("etc/sysctl.d/10-other.conf"), /panic_on_oops/);
    }
    await finish(undo, `undo after a crash at command ${count}`);
    assertSameTree(node, before, `after a crash at command ${count} and undo`);
  });
  assert.ok(crashes > 30, `only ${crashes} commands were interrupted`);
});

test("interrupted at every command of undo: the next undo finishes it", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  const { signal } = new AbortController();
  const before = node.tree();
  assert.equal((await node.direct(applyScript(everyKind), { signal })).exitCode, 0);
  // Undo dies one command later each time; what is left shrinks until one gets through.
  const crashes = await crashEverywhere(node, undoScript(), async () => {});
  assert.ok(crashes > 3, `only ${crashes} commands were interrupted`);
  assertSameTree(node, before, "after interrupted undos");
});

test("a whole preparation cut off midway is repaired by the next run", { skip }, async (t) => {
  const node = await startSshNode(t, "rocky");
  const before = node.tree();
  for (const count of [5, 40, 75]) {
    node.crashAt(count);
    const cut = await nodePrep(...reach(node), ...WANTED, "--apply");
    node.crashAt(undefined);
    assert.equal(cut.code, 1, cut.out);
    assert.match(cut.out, /ssh failed|ended with code/);
    assert.equal((await task(node, "apply")).status, "reboot", `repaired after ${count}`);
    assert.equal((await task(node, "undo")).status, "undone");
    assertSameTree(node, before, `after a cut at command ${count} and undo`);
  }
});
