/** The decisions of a plan that a node in a test root doesn't reach: nftables, hugepages, kept arguments. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFacts } from "./facts.ts";
import { declaresChain } from "./firewall.ts";
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
  "port.9502": "free",
  "port.10199": "free",
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

test("planNode() names the package that a missing nvme-tcp is in", () => {
  const text = (id: string, like: string, kernel: string) =>
    plan({ "os.id": id, "os.like": like, kernel, nvme_tcp: "missing" }).text("nvme-tcp");
  assert.match(
    text("ubuntu", "debian", "6.8.0-1008-aws"),
    /: apt-get install linux-modules-extra-6\.8\.0-1008-aws$/,
  );
  assert.match(
    text("pop", "ubuntu debian", "6.9.3-generic"),
    / linux-modules-extra-6\.9\.3-generic$/,
  );
  assert.match(text("debian", "", "6.1.0-18-cloud-amd64"), /install linux-image-amd64 .* and boot/);
  assert.match(
    text("rocky", "rhel fedora", "5.14.0-362.el9.x86_64"),
    /: dnf install kernel-modules-extra-5\.14\.0-362\.el9\.x86_64$/,
  );
});

test("planNode() says which command makes a half-written boot menu again, or runs it", () => {
  const debian = { "grub.torn": "/boot/grub/grub.cfg" };
  const text = plan(debian).text("boot menu");
  assert.match(text, /^\/boot\/grub\/grub\.cfg is half written, .*: run update-grub$/);
  assert.equal(plan(debian).status("boot menu"), "manual");
  const isolated = plan(debian, { isolateCpus: [2] });
  assert.equal(isolated.status("boot menu"), undefined);
  assert.ok(isolated.names.includes("32-boot-arguments"));
  const rocky = {
    "os.id": "rocky",
    "os.like": "rhel",
    "tool.update-grub": "",
    "tool.grubby": "yes",
  };
  const config = "/boot/grub2/grub.cfg";
  const torn = plan({ ...rocky, "grub.cfg": config, "grub.torn": config }, { isolateCpus: [2] });
  assert.match(torn.text("boot menu"), /: run grub2-mkconfig -o \/boot\/grub2\/grub\.cfg$/);
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
  "file./etc/nftables.conf": base64(
    "flush ruleset\ntable inet filter { # ours\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n",
  ),
};

test("planNode() opens nftables to the network that was named, now and at boot", () => {
  assert.equal(plan(nft).status("firewall"), "warn");
  const { actions } = plan(nft, { openFirewall: "fd00::/8" });
  const rule =
    'insert rule inet filter input ip6 saddr fd00::/8 tcp dport { 10124, 8420, 4421, 9502, 10199 } accept comment "mayastor-node-prep fd00::/8"';
  const file = actions.find(({ name }) => name === "38-nftables-boot-fd00___8");
  assert.equal(file?.kind === "line" ? file.line : "", rule);
  assert.equal(file?.kind === "line" ? file.path : "", "/etc/nftables.conf");
  const live = actions.find(({ name }) => name === "40-firewall-fd00___8");
  assert.ok(live?.kind === "run" && live.command.endsWith(`nft '${rule}'`));
});

test("planNode() leaves a chain that nftables.conf doesn't make to a person", () => {
  for (const place of ["ip filter INPUT", "inet other input", "inet filter forward"]) {
    const { status, text, names } = plan(
      { ...nft, "firewall.chain": place },
      { openFirewall: "10.0.0.0/24" },
    );
    assert.deepEqual(
      names.filter((name) => name.startsWith("38-")),
      [],
      place,
    );
    assert.ok(names.includes("40-firewall-10.0.0.0_24"), "the running rules are opened");
    assert.equal(status("firewall at boot"), "manual");
    assert.match(text("firewall at boot"), new RegExp(`insert rule ${place} ip saddr 10`));
  }
});

test("declaresChain() reads a table without a family, comments and text in quotes", () => {
  const file = `table filter {\n  chain INPUT { # chain other {\n    comment "}"\n  }\n  chain last {}\n}\ntable inet x {\n  set s { type ipv4_addr; }\n}\n`;
  assert.ok(declaresChain(file, "ip filter INPUT"));
  assert.ok(declaresChain(file, "ip filter last"));
  for (const place of ["ip filter other", "inet filter INPUT", "inet x INPUT", "inet x s"]) {
    assert.ok(!declaresChain(file, place), place);
  }
});

test("planNode() names rules that it cannot see through", () => {
  const { status } = plan({ "firewall.legacy": "yes", "firewall.zones": "trusted " });
  assert.equal(status("iptables"), "manual");
  assert.equal(status("firewall zones"), "warn");
});

test("planNode() tells networks apart that contain each other's text", () => {
  const ufw = {
    firewall: "ufw",
    "firewall.rule.1": "10124,8420,4421,9502,10199/tcp   ALLOW   110.0.0.0/24",
  };
  assert.equal(plan(ufw, { openFirewall: "10.0.0.0/24" }).status("firewall"), "change");
  assert.equal(plan(ufw, { openFirewall: "110.0.0.0/24" }).status("firewall"), "ok");
});

test("planNode() takes another network's rule in nftables for that network's alone", () => {
  const open = {
    ...nft,
    "firewall.rule.1": "ip saddr 110.0.0.0/24 tcp dport { 4421, 8420, 9502, 10124, 10199 } accept",
  };
  assert.equal(plan(open, { openFirewall: "10.0.0.0/24" }).status("firewall"), "change");
});

test("planNode() refuses to write a file again that somebody changed", () => {
  const { status, text } = plan({
    "journal.12-multipath": "changed",
    "file./etc/modprobe.d/mayastor.conf": base64("options nvme_core multipath=Y io_timeout=60\n"),
  });
  assert.equal(status("changed file"), "fail");
  assert.match(text("changed file"), /mayastor\.conf was changed since .*move the change/);
});

const rocky = { "os.id": "rocky", "os.like": "rhel", "tool.grubby": "yes", multipath: "N" };
const grubbyOf = (extra: Readonly<Record<string, string>>) => {
  const step = plan({ ...rocky, ...extra }, { isolateCpus: [2] }).actions.find(
    ({ name }) => name === "32-boot-arguments",
  );
  return step?.kind === "run" ? step : assert.fail("no grubby step");
};

test("planNode() gives back the boot arguments that the operator had set", () => {
  const own = grubbyOf({ "boot.args.1": "ro nvme_core.multipath=N" }).revert;
  assert.match(own, /--remove-args="isolcpus" && /);
  assert.match(own, /--args="nvme_core\.multipath=N"$/);
  assert.doesNotMatch(own, /--args="isolcpus/);
  const mixed = grubbyOf({ "boot.args.1": "ro isolcpus=1", "boot.args.2": "ro" }).revert;
  assert.match(mixed, /isolcpus: the kernels had different values before/);
});

test("planNode() keeps out of GRUB's environment block, which every boot writes, unless arguments are in it", () => {
  assert.ok(!grubbyOf({}).touches.includes("/boot/grub2/grubenv"));
  assert.ok(grubbyOf({ "boot.grubenv": "yes" }).touches.includes("/boot/grub2/grubenv"));
});

test("planNode() takes a rule for another network or a longer port number as closed", () => {
  const rules = {
    ...nft,
    "firewall.rule.1": "ip saddr 10.9.0.0/24 tcp dport { 4421, 8420, 9502, 10124, 10199 } accept",
    "firewall.rule.2": "tcp dport { 44210, 18420, 101240 } accept",
  };
  assert.equal(plan(rules, { openFirewall: "10.0.0.0/24" }).status("firewall"), "change");
  assert.equal(plan(rules).status("firewall"), "ok");
});

test("planNode() says when a node has less than an io-engine asks for", () => {
  assert.equal(plan({ "fs.ext4": "yes" }).status("resources"), "ok");
  assert.equal(plan({ "fs.ext4": "yes" }).status("file systems"), "ok");
  const small = plan({ "cpu.possible": "0", "memory.kib": "524288", "fs.xfs": "yes" });
  assert.equal(small.status("resources"), "warn");
  assert.match(small.text("resources"), /^1 CPU of 2, 512 MiB of memory of 1024/);
  assert.match(small.text("file systems"), /no ext4 module: volumes can be raw block and xfs only/);
});

test("planNode() tells reserved hugepages from free ones", () => {
  const used = { "hugepages.total": "1024", "hugepages.free": "100" };
  assert.equal(plan(used, { hugepages: 1024 }).status("hugepages free"), "warn");
  const engine = { ...used, "port.10124": "/bin/io-engine -g 1" };
  assert.equal(plan(engine, { hugepages: 1024 }).status("hugepages free"), undefined);
  const free = { ...used, "hugepages.free": "1024" };
  assert.equal(plan(free, { hugepages: 1024 }).status("hugepages free"), undefined);
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

test("planNode() takes each port for its own program alone", () => {
  const held = (port: number, owner: string) =>
    plan({ [`port.${port}`]: owner }).text(`port ${port}`);
  assert.equal(
    held(9502, "/usr/bin/node metrics-exporter-pool -p5m"),
    "held by the metrics exporter",
  );
  assert.equal(held(10199, "csi-node --csi-socket=/csi/csi.sock"), "held by csi-node");
  assert.match(held(9502, "io-engine -g 10.0.0.1"), /^in use by io-engine/);
  assert.match(held(10199, "nginx"), /^in use by nginx/);
});
