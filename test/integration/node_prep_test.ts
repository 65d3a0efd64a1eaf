/**
 * scripts/node-prep against a real sshd whose sessions live in roots made here: dry run, idempotence,
 * undo byte by byte and around what others changed, hosts in parallel, labels, bad input.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { RunScript } from "../../scripts/lib/ssh.ts";
import { type Action, applyScript } from "../../scripts/node-prep/actions.ts";
import type { Wanted } from "../../scripts/node-prep/options.ts";
import {
  assertSameTree,
  ends,
  MUCH,
  NFTABLES,
  NOTHING,
  nodePrep,
  reach,
  task,
  WANTED,
} from "../support/node_prep.ts";
import { mergeSshConfigs, missing, type SshNode, startSshNode } from "../support/ssh_node.ts";
import { UBUNTU_KERNEL } from "../support/ssh_node_tree.ts";

const skip = missing() ?? false;
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
  assert.match(
    debian.read("etc/ufw/user.rules"),
    /allow 10124,8420,4421,9502,10199 10\.0\.0\.0\/24/,
  );
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

test("an Ubuntu cloud image: nvme-tcp is a package of its own, and its drop-in's arguments stay", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "ubuntu");
  const before = node.tree();
  const { checks } = await ends("failed", node, "apply");
  assert.equal(
    checks.find(({ name }) => name === "nvme-tcp")?.text,
    "no nvme-tcp module for kernel 6.8.0-31-generic: apt-get install linux-modules-extra-6.8.0-31-generic",
  );
  assertSameTree(node, before, "after a failed check");

  // What that package brings.
  node.write(
    `lib/modules/${UBUNTU_KERNEL}/modules.dep`,
    "kernel/drivers/nvme/host/nvme-tcp.ko.zst: kernel/drivers/nvme/host/nvme-fabrics.ko.zst\n",
  );
  await ends("reboot", node, "apply");
  assert.match(
    node.read("boot/grub/grub.cfg"),
    / ro console=tty1 console=ttyS0 isolcpus=2,3 nvme_core\.multipath=Y\n/,
  );
  assert.match(node.read("etc/ufw/user.rules"), /allow 10124,8420,4421,9502,10199 10\.0\.0\.0\/24/);
  assert.deepEqual((await ends("reboot", node, "apply")).changes, []);
  await ends("undone", node, "undo");
  assertSameTree(node, before, "after undo");
});

test("a grub.cfg that anybody's update-grub left half written is made again", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const before = node.tree();
  await ends("reboot", node, "apply");
  const whole = node.read("boot/grub/grub.cfg");
  // The kernels' lines are all there; sections behind them are not.
  node.write("boot/grub/grub.cfg", whole.slice(0, whole.indexOf("### END /etc/grub.d/30")));
  const { changes } = await ends("reboot", node, "apply");
  assert.deepEqual(changes, ["update-grub with isolcpus=2,3 nvme_core.multipath=Y"]);
  assert.equal(node.read("boot/grub/grub.cfg"), whole);
  await ends("undone", node, "undo");
  assertSameTree(node, before, "after undo");
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
    [["--host=a", "--open-firewall=10.0.0.5/24"], /the network 10\.0\.0\.0\/24/],
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

test("undo keeps nvme-tcp, and with it every mounted volume, while controllers are connected", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  await ends("reboot", node, "apply");
  fs.mkdirSync(path.join(node.root, "sys/class/nvme/nvme0"), { recursive: true });
  node.write("sys/class/nvme/nvme0/transport", "tcp\n");
  const { checks } = await ends("undone", node, "undo");
  assert.ok(fs.existsSync(path.join(node.root, "sys/class/nvme/nvme0")), "the controller is there");
  assert.ok(fs.existsSync(path.join(node.root, "sys/module/nvme_tcp")), "and the module");
  assert.match(
    checks.find(({ status }) => status === "manual")?.text ?? "",
    /kept 14-nvme-tcp NVMe\/TCP controllers are connected: .* next reboot/,
  );
});

const ADMIN = "add rule inet filter input tcp dport 9100 accept";

/** Its firewall is nftables, whose file makes the chain that drops. */
async function startNftNode(t: TestContext, file = NFTABLES): Promise<SshNode> {
  const node = await startSshNode(t, "debian");
  node.write("opt/fake/firewall", "nft\n");
  node.write("opt/fake/nft", NFTABLES);
  node.write("etc/nftables.conf", file);
  return node;
}

const open = (network: string): Wanted => ({ ...NOTHING, openFirewall: network });

test("nftables is opened now and at boot, and undo takes out our line alone when others wrote there", {
  skip,
}, async (t) => {
  const node = await startNftNode(t, NFTABLES.trimEnd()); // without an end of its last line
  const before = node.tree();
  const line = (network: string) =>
    `insert rule inet filter input ip saddr ${network} tcp dport { 10124, 8420, 4421, 9502, 10199 } accept comment "mayastor-node-prep ${network}"`;
  await ends("reboot", node, "apply", open("10.0.0.0/24"));
  assert.equal(node.read("etc/nftables.conf"), `${NFTABLES}${line("10.0.0.0/24")}\n`);
  assert.match(node.read("opt/fake/nft"), /ip saddr 10\.0\.0\.0\/24 tcp dport/);
  await ends("undone", node, "undo");
  assertSameTree(node, before, "after undo");
  assert.equal(node.read("opt/fake/nft"), NFTABLES);

  await ends("reboot", node, "apply", open("10.0.0.0/24"));
  node.write("etc/nftables.conf", `${node.read("etc/nftables.conf")}${ADMIN}\n`);
  const { changes } = await ends("reboot", node, "apply", open("10.0.0.0/24"));
  assert.deepEqual(changes, [], "a rule added behind ours is no reason to write the file");
  await ends("reboot", node, "apply", open("10.1.0.0/16"));
  assert.ok(node.read("etc/nftables.conf").endsWith(`${ADMIN}\n${line("10.1.0.0/16")}\n`));
  await ends("undone", node, "undo");
  assert.equal(node.read("etc/nftables.conf"), `${NFTABLES}${ADMIN}\n`);
});

test("a rule that a cut-off apply owes the file doesn't make others' rules ours", {
  skip,
}, async (t) => {
  const node = await startNftNode(t);
  await ends("reboot", node, "apply", open("10.0.0.0/24"));
  fs.rmSync(path.join(node.root, "var/lib/mayastor/node-prep/38-nftables-boot-10.0.0.0_24/done"));
  node.write("etc/nftables.conf", `${NFTABLES}${ADMIN}\n`);
  await ends("reboot", node, "apply", open("10.0.0.0/24"));
  assert.match(node.read("etc/nftables.conf"), /saddr 10\.0\.0\.0\/24/);
  await ends("undone", node, "undo");
  assert.equal(node.read("etc/nftables.conf"), `${NFTABLES}${ADMIN}\n`);
});

test("nftables.conf stays as it is when it could not be loaded with our rule", {
  skip,
}, async (t) => {
  const other = "table inet other {\n\tchain input {\n\t}\n}\n";
  const node = await startNftNode(t, other);
  const { checks } = await ends("reboot", node, "apply", open("10.0.0.0/24"));
  assert.equal(node.read("etc/nftables.conf"), other);
  assert.match(
    checks.find(({ name }) => name === "firewall at boot")?.text ?? "",
    /doesn't make that chain: .*insert rule inet filter input/,
  );
  // And when only nft itself sees why: the file was loadable before, and isn't with the rule.
  const { signal } = new AbortController();
  const action: Action = {
    kind: "line",
    name: "38-nftables-boot",
    what: "line",
    path: "/etc/nftables.conf",
    line: "no such word",
    check: 'unshare -n -- nft -c -f "$1"',
  };
  const { exitCode, lines } = await node.direct(applyScript([action]), { signal });
  assert.equal(exitCode, 1);
  assert.match(lines.join("\n"), /could not be loaded with the line added, so it was left/);
  assert.equal(node.read("etc/nftables.conf"), other);
  await ends("undone", node, "undo");
  assert.equal(node.read("etc/nftables.conf"), other);
});

test("boot arguments that others changed between two runs survive undo", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  await ends("reboot", node, "apply", { ...NOTHING, isolateCpus: [2] });
  const edit = (file: string, from: string, to: string) =>
    node.write(file, node.read(file).replace(from, to));
  edit("etc/default/grub", "quiet", "quiet console=ttyS0");
  edit("boot/grub/grub.cfg", "quiet", "quiet console=ttyS0");
  await ends("reboot", node, "apply", { ...NOTHING, isolateCpus: [2, 3] });
  assert.match(node.read("boot/grub/grub.cfg"), /quiet console=ttyS0 isolcpus=2,3/);
  await ends("undone", node, "undo");
  assert.match(node.read("boot/grub/grub.cfg"), /ro quiet console=ttyS0\n/);
  assert.doesNotMatch(node.read("boot/grub/grub.cfg"), /isolcpus|multipath/);
});

test("rules that others made after a run that was cut off survive undo", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  await ends("reboot", node, "apply");
  // Cut off when ufw had done its work and nobody had written that down.
  const entry = path.join(node.root, "var/lib/mayastor/node-prep/40-firewall-10.0.0.0_24");
  fs.rmSync(path.join(entry, "done"));
  for (const file of fs.readdirSync(path.join(entry, "files"))) {
    fs.rmSync(path.join(entry, "files", file, "after"));
  }
  const rules = node.read("etc/ufw/user.rules");
  const own = "### tuple ### allow 22 192.168.0.0/16";
  node.write("etc/ufw/user.rules", rules.replace("### END", `${own}\n### END`));
  await ends("undone", node, "undo");
  const left = node.read("etc/ufw/user.rules");
  assert.ok(left.includes(own), left);
  assert.ok(!left.includes("10124"), left);
});

test("a file of ours that somebody changed is not written again, and nothing else changes", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  await ends("reboot", node, "apply");
  node.write("etc/modprobe.d/mayastor.conf", "options nvme_core multipath=Y io_timeout=60\n");
  const before = node.tree();
  const { checks } = await ends("failed", node, "apply", { ...MUCH, hugepages: 1024 });
  assert.match(
    checks.find(({ name }) => name === "changed file")?.text ?? "",
    /\/etc\/modprobe\.d\/mayastor\.conf was changed since/,
  );
  assertSameTree(node, before, "after a refused apply");
  // The way out that it names.
  fs.rmSync(path.join(node.root, "etc/modprobe.d/mayastor.conf"));
  await ends("reboot", node, "apply");
  assert.match(node.read("etc/modprobe.d/mayastor.conf"), /^options nvme_core multipath=Y$/m);
});

test("hugepages that others set between two runs are what undo gives back", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const pages = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
  await ends("reboot", node, "apply", { ...NOTHING, hugepages: 256 });
  node.write(pages, "512\n");
  await ends("reboot", node, "apply", { ...NOTHING, hugepages: 1024 });
  assert.equal(node.read(pages), "1024\n");
  await ends("undone", node, "undo");
  assert.equal(node.read(pages), "512\n");
});

test("links stay links: the environment block on the EFI partition is changed and given back", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "rocky8");
  const nftables = path.join(node.root, "etc/sysctl.d/90-mayastor-hugepages.conf");
  fs.writeFileSync(path.join(node.root, "etc/managed.conf"), "# by a configuration tool\n");
  fs.symlinkSync("../managed.conf", nftables);
  const before = node.tree();
  await ends("reboot", node, "apply");
  assert.match(
    node.read("boot/efi/EFI/rocky/grubenv"),
    /^kernelopts=.* isolcpus=2,3 nvme_core\.multipath=Y$/m,
  );
  assert.match(node.read("etc/managed.conf"), /vm\.nr_hugepages = 512/);
  assert.ok(fs.lstatSync(nftables).isSymbolicLink());
  await ends("undone", node, "undo");
  assertSameTree(node, before, "after undo");
});

/** A kubectl whose nodes are files of a folder, each with its labels. */
function fakeKubectl(t: TestContext, nodes: readonly string[]) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "mayastor-kubectl-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  for (const name of nodes) fs.writeFileSync(path.join(folder, name), "");
  const answers = { pools: path.join(folder, "pools"), nexuses: path.join(folder, "nexuses") };
  fs.writeFileSync(answers.pools, "");
  fs.writeFileSync(answers.nexuses, "[]");
  const program = path.join(folder, "kubectl.sh");
  const script = `#!/bin/sh
[ "$1" = --context=test ] || { echo "error: no context" >&2; exit 1; }
shift
case "$*" in
  "get diskpools.openebs.io -A "*) cat ${answers.pools}; exit 0 ;;
  "get services -A -l app=api-rest "*) echo "mayastor mayastor-api-rest"; exit 0 ;;
  "get --raw /api/v1/namespaces/mayastor/services/http:mayastor-api-rest:8081/proxy/v0/nodes/"*"/nexuses")
    cat ${answers.nexuses}; exit 0 ;;
esac
file=${folder}/$3
[ -f "$file" ] || { echo "Error from server (NotFound): nodes "$3" not found" >&2; exit 1; }
case "$1 $2 $4" in
  "get node -o") sed -n 's|^openebs.io/engine=||p' "$file" | tr -d '\n' ;;
  "label node "*-) sed -i "\\|^\${4%-}=|d" "$file" ;;
  "label node "*) echo "$4" >>"$file" ;;
  *) exit 1 ;;
esac
`;
  fs.writeFileSync(program, script, { mode: 0o755 });
  const labels = (node: string) => fs.readFileSync(path.join(folder, node), "utf8");
  const remove = (node: string) => fs.rmSync(path.join(folder, node));
  return { kubectl: { program, args: ["--context=test"] }, labels, remove, answers };
}

test("the label is set last, taken away by undo, and a node that left the cluster is undone all the same", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const { kubectl, labels, remove } = fakeKubectl(t, ["debian-1", "worker-2"]);
  const before = node.tree();
  const dry = await ends("would-change", node, "check", NOTHING, { kubectl });
  assert.ok(dry.changes.includes("label node debian-1 openebs.io/engine=mayastor"));
  assert.equal(labels("debian-1"), "");

  await ends("reboot", node, "apply", NOTHING, { kubectl });
  assert.equal(labels("debian-1"), "openebs.io/engine=mayastor\n");
  const again = await ends("reboot", node, "apply", NOTHING, { kubectl });
  assert.deepEqual(again.changes, []);
  await ends("undone", node, "undo", NOTHING, { kubectl });
  assert.equal(labels("debian-1"), "");
  assertSameTree(node, before, "after undo");

  await ends("reboot", node, "apply", NOTHING, { kubectl, node: "worker-2" });
  assert.equal(labels("worker-2"), "openebs.io/engine=mayastor\n");
  remove("worker-2");
  await ends("undone", node, "undo", NOTHING, { kubectl });
  assertSameTree(node, before, "after undo without a node in Kubernetes");

  // Without kubectl the command is for a person; a kubectl that fails is an error in words.
  await ends("reboot", node, "apply", NOTHING, { kubectl, node: "debian-1" });
  const { checks } = await ends("undone", node, "undo", NOTHING);
  assert.equal(
    checks.find(({ name }) => name === "label")?.text,
    "kubectl label node debian-1 openebs.io/engine-",
  );
  const missing = await ends("failed", node, "check", NOTHING, { kubectl, node: "gone" });
  assert.match(missing.error ?? "", /Cannot run kubectl get node gone .*NotFound/);
});

test("undo leaves a node alone that pools or volume targets are on, and takes the label off last", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const { kubectl, labels, answers } = fakeKubectl(t, ["debian-1"]);
  const before = node.tree();
  await ends("reboot", node, "apply", MUCH, { kubectl });
  const applied = node.tree();

  fs.writeFileSync(answers.pools, "pool-a debian-1\npool-b other\n");
  fs.writeFileSync(
    answers.nexuses,
    JSON.stringify([{ uuid: "9f1014e9-7f65-4b31-a8e0-0f9a01ee8c42" }]),
  );
  const refused = await ends("failed", node, "undo", MUCH, { kubectl });
  assert.match(refused.error ?? "", /still needs this node: nothing was changed/);
  assert.deepEqual(
    refused.checks.map(({ text }) => text),
    ["DiskPool pool-a", "volume target 9f1014e9-7f65-4b31-a8e0-0f9a01ee8c42"],
  );
  assertSameTree(node, applied, "after an undo that was refused");
  assert.equal(labels("debian-1"), "openebs.io/engine=mayastor\n");

  // REST that does not answer is not a node without targets.
  fs.rmSync(answers.nexuses);
  fs.writeFileSync(answers.pools, "");
  const unknown = await ends("failed", node, "undo", MUCH, { kubectl });
  assert.match(unknown.error ?? "", /Cannot read the volume targets: .* answered no list/);
  assertSameTree(node, applied, "after an undo that could not look");

  // Cut off after the node's own changes: the label is still there, and the next run takes it off.
  fs.writeFileSync(answers.nexuses, "[]");
  let scripts = 0;
  const run: RunScript = async (script, options) => {
    const result = await node.direct(script, options);
    scripts += 1;
    if (scripts === 2) throw new Error("connection lost");
    return result;
  };
  await ends("failed", node, "undo", MUCH, { kubectl, run });
  assert.equal(labels("debian-1"), "openebs.io/engine=mayastor\n");
  assert.ok(!fs.existsSync(path.join(node.root, "etc/modules-load.d/mayastor.conf")));
  await ends("undone", node, "undo", MUCH, { kubectl });
  assert.equal(labels("debian-1"), "");
  assertSameTree(node, before, "after undo");
});

test("undo without kubectl leaves a node alone while its engine runs", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  await ends("reboot", node, "apply", MUCH);
  const applied = node.tree();
  const run: RunScript = async (script, options) => {
    const result = await node.direct(script, options);
    const lines = result.lines.map((line) =>
      line.startsWith("port.10124=") ? "port.10124=io-engine -g 10.0.0.1" : line,
    );
    return { ...result, lines };
  };
  const refused = await ends("failed", node, "undo", MUCH, { run });
  assert.match(refused.checks[0]?.text ?? "", /io-engine is running/);
  assertSameTree(node, applied, "after an undo that was refused");
});

test("a kernel with multipath built in is as wanted, and gets no option that it does not know", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "rocky");
  fs.rmSync(path.join(node.root, "sys/module/nvme_core/parameters/multipath"));
  node.write("sys/module/nvme_core/parameters/iopolicy", "numa\n");
  const { checks } = await ends("ready", node, "apply", NOTHING);
  const multipath = checks.find(({ name }) => name === "multipath");
  assert.deepEqual(
    [multipath?.status, multipath?.text],
    ["ok", "built into this kernel, always on"],
  );
  assert.ok(!fs.existsSync(path.join(node.root, "etc/modprobe.d/mayastor.conf")));
});

test("an undo with nothing to take back says so once", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  const { code, out } = await nodePrep(...reach(node), "--undo", "--apply");
  assert.equal(code, 0);
  assert.match(out, /^\S+: nothing to undo$/m);
  assert.doesNotMatch(out, /undone/);
});

test("a package that cannot be installed keeps neither the label nor a later run from being done", {
  skip,
}, async (t) => {
  const node = await startSshNode(t, "debian");
  const { kubectl, labels } = fakeKubectl(t, ["debian-1"]);
  // This machine's own mkfs.xfs is in the root: the node has it once apt-get ran.
  const run: RunScript = async (script, options) => {
    const result = await node.direct(script, options);
    const installed = !fs.existsSync(path.join(node.root, "opt/fake/apt-fails"));
    const lines = result.lines.filter((line) => line !== "xfsprogs=yes");
    return { ...result, lines: installed ? ["xfsprogs=yes", ...lines] : lines };
  };
  node.write("opt/fake/apt-fails", "");
  const wanted = { ...NOTHING, installPackages: true };
  const failed = await ends("failed", node, "apply", wanted, { kubectl, run });
  assert.match(failed.error ?? "", /not as wanted afterwards: xfsprogs\nleft 50-xfsprogs /);
  assert.equal(labels("debian-1"), "openebs.io/engine=mayastor\n");
  fs.rmSync(path.join(node.root, "opt/fake/apt-fails"));
  const later = await ends("reboot", node, "apply", wanted, { kubectl, run });
  assert.deepEqual(later.changes, []);
});
