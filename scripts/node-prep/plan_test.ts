/** The decisions of a plan that a node in a test root doesn't reach: nftables, hugepages, kept arguments. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFacts } from "./facts.ts";
import type { Wanted } from "./options.ts";
import { planNode } from "./plan.ts";

const base: Readonly<Record<string, string>> = {
  "os.id": "debian",
  kernel: "6.1.0-18-amd64",
  arch: "x86_64",
  "cpu.flags": "fpu sse4_2",
  "cpu.possible": "0-3",
  "memory.kib": "16384000",
  "hugepages.total": "0",
  nvme_tcp: "loaded",
  "grub.cfg": "/boot/grub/grub.cfg",
  "tool.update-grub": "yes",
  "boot.args.1": "/vmlinuz root=/dev/sda1 ro quiet",
  "port.10124": "free",
  "port.8420": "free",
  "port.4421": "free",
  end: "yes",
};
const nothing: Wanted = {
  hugepages: undefined,
  isolateCpus: undefined,
  openFirewall: undefined,
  installPackages: false,
};

function plan(extra: Readonly<Record<string, string>>, wanted: Partial<Wanted> = {}) {
  const lines = Object.entries({ ...base, ...extra }).map(([key, value]) => `${key}=${value}`);
  const { checks, actions } = planNode(parseFacts(lines), { ...nothing, ...wanted });
  return {
    status: (name: string) => checks.find((one) => one.name === name)?.status,
    text: (name: string) => checks.find((one) => one.name === name)?.text ?? "",
    names: actions.map(({ name }) => name),
    actions,
  };
}

const base64 = (text: string) => Buffer.from(text).toString("base64");

test("parseFacts() refuses a probe that was cut off", () => {
  assert.throws(() => parseFacts(["kernel=6.1"]), /stopped early/);
});

test("planNode() never shrinks hugepages that others reserved", () => {
  const { actions } = plan({ "hugepages.total": "2048" }, { hugepages: 1024 });
  const file = actions.find(({ name }) => name === "20-hugepages-boot");
  assert.match(file?.kind === "file" ? file.content : "", /vm\.nr_hugepages = 2048\n/);
  assert.ok(!actions.some(({ name }) => name === "22-hugepages"));
});

test("planNode() names a sysctl file that would win over ours", () => {
  const { status, text } = plan({ "sysctl./etc/sysctl.conf": "512" }, { hugepages: 1024 });
  assert.equal(status("hugepages at boot"), "manual");
  assert.match(text("hugepages at boot"), /sysctl\.conf sets vm\.nr_hugepages=512/);
});

test("planNode() calls fragmented memory a reboot, not a failure", () => {
  const content = "# Written by Mayastor's node-prep; --undo removes it.\nvm.nr_hugepages = 1024\n";
  const { status } = plan(
    {
      "hugepages.total": "700",
      "file./etc/sysctl.d/90-mayastor-hugepages.conf": base64(content),
      "sysctl./etc/sysctl.d/90-mayastor-hugepages.conf": "1024",
      "journal.22-hugepages": "done",
    },
    { hugepages: 1024 },
  );
  assert.equal(status("hugepages"), "reboot");
});

test("planNode() keeps what an earlier run isolated", () => {
  const dropIn = 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=2,3"\n';
  const { status, actions } = plan({ "file./etc/default/grub.d/90-mayastor.cfg": base64(dropIn) });
  assert.equal(status("cpus"), "change");
  assert.ok(actions.some(({ what }) => what === "update-grub with isolcpus=2,3"));
});

test("planNode() refuses CPUs that another file isolates differently", () => {
  const { status, text } = plan(
    { "isolcpus./etc/default/grub": "yes", "boot.args.1": "ro isolcpus=1" },
    { isolateCpus: [2, 3] },
  );
  assert.equal(status("cpus"), "fail");
  assert.match(text("cpus"), /\/etc\/default\/grub/);
});

test("planNode() repairs a step that was cut off although its files look done", () => {
  const { names } = plan({ "journal.14-nvme-tcp": "pending" });
  assert.ok(names.includes("14-nvme-tcp"));
});

const nft = {
  firewall: "nftables",
  "firewall.chain": "inet filter input",
  "firewall.conf": "/etc/nftables.conf",
  "file./etc/nftables.conf": base64("flush ruleset\ntable inet filter {}"),
};

test("planNode() opens nftables to the network that was named, now and at boot", () => {
  assert.equal(plan(nft).status("firewall"), "warn");
  const { actions } = plan(nft, { openFirewall: "fd00::/8" });
  const rule =
    'insert rule inet filter input ip6 saddr fd00::/8 tcp dport { 10124, 8420, 4421 } accept comment "mayastor-node-prep fd00::/8"';
  const file = actions.find(({ name }) => name === "38-nftables-boot");
  assert.equal(
    file?.kind === "file" ? file.content : "",
    `flush ruleset\ntable inet filter {}\n${rule}\n`,
  );
  const live = actions.find(({ name }) => name === "40-firewall-fd00___8");
  assert.ok(live?.kind === "run" && live.command.endsWith(`nft '${rule}'`));
});

test("planNode() takes a rule for another network or a longer port number as closed", () => {
  const rules = {
    ...nft,
    "firewall.rule.1": "ip saddr 10.9.0.0/24 tcp dport { 4421, 8420, 10124 } accept",
    "firewall.rule.2": "tcp dport { 44210, 18420, 101240 } accept",
  };
  assert.equal(plan(rules, { openFirewall: "10.0.0.0/24" }).status("firewall"), "change");
  assert.equal(plan(rules).status("firewall"), "ok");
});

test("planNode() knows io-engine's own ports from others'", () => {
  assert.equal(plan({ "port.8420": "/usr/bin/io-engine -g 1" }).status("port 8420"), "ok");
  assert.equal(plan({ "port.8420": "nginx: master" }).status("port 8420"), "fail");
});

test("planNode() leaves the arguments to a person where there is no GRUB", () => {
  const lines = Object.entries(base)
    .filter(([key]) => !key.includes("grub"))
    .map(([key, value]) => `${key}=${value}`);
  const { checks } = planNode(parseFacts(lines), { ...nothing, isolateCpus: [2] });
  const boot = checks.find(({ name }) => name === "boot");
  assert.equal(boot?.status, "manual");
  assert.match(boot.text, /isolcpus=2/);
});
