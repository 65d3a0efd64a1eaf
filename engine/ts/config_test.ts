import assert from "node:assert/strict";
import type { NetworkInterfaceInfo } from "node:os";
import { test } from "node:test";
import { loadConfig } from "./config.ts";
import { parseCoreList, parseCoreMask } from "./cores.ts";
import { targetAddress } from "./target_interface.ts";

const nic = (address: string, mac: string): NetworkInterfaceInfo => ({
  address,
  netmask: "255.255.255.0",
  family: "IPv4",
  mac,
  internal: false,
  cidr: `${address}/24`,
});
const interfaces = {
  lo: [nic("127.0.0.1", "00:00:00:00:00:00")],
  eth0: [nic("10.1.0.5", "aa:bb:cc:dd:ee:01")],
  eth1: [nic("10.2.0.5", "aa:bb:cc:dd:ee:02"), nic("10.2.0.6", "aa:bb:cc:dd:ee:02")],
};
const load = (args: string[], env: Record<string, string> = {}) =>
  loadConfig({ args, env, interfaces, cpuCount: 4 });

test("loadConfig() has the published defaults", () => {
  const config = load([]);
  assert.equal(config.grpcAddress, "0.0.0.0:10124");
  assert.equal(config.nodeName, "mayastor-node");
  assert.equal(config.store, null);
  assert.equal(config.registration, null);
  assert.equal(config.heartbeatMs, 5000);
  assert.deepEqual(config.engine.cores, [0]);
  assert.equal(config.engine.targetAddress, "127.0.0.1");
  assert.equal(config.engine.replicaPort, 8420);
  assert.equal(config.engine.nexusPort, 4421);
  assert.equal(config.engine.hostNqn, "nqn.2019-05.io.openebs:node-name:mayastor-node");
  assert.equal(config.engine.anaEnabled, false);
  assert.equal(config.engine.reservationsEnabled, false);
  assert.equal(config.engine.partialRebuild, true);
  assert.equal(config.engine.ioTimeoutMs, 5000);
  assert.deepEqual(config.ignored, []);
});

test("loadConfig() takes what the published manifests pass", () => {
  const env = {
    MY_POD_IP: "10.1.0.9",
    NEXUS_NVMF_ANA_ENABLE: "1",
    NEXUS_NVMF_RESV_ENABLE: "1",
    NVME_TIMEOUT: "110s",
    NVME_TIMEOUT_ADMIN: "30s",
    NVME_KATO: "10s",
    HOSTNAME: "from-env",
  };
  const args = ["-g", "10.1.0.9", "-N", "worker-1", "-R", "https://agent-core:50051", "-y", "/a"];
  const config = load([...args, "-l3,1", "-p", "etcd:2379", "-s", "2048", "-u"], env);
  assert.equal(config.grpcAddress, "10.1.0.9:10124");
  assert.equal(config.nodeName, "worker-1");
  assert.equal(config.engine.targetAddress, "10.1.0.9");
  assert.deepEqual(config.engine.cores, [1, 3]);
  assert.equal(config.engine.anaEnabled, true);
  assert.equal(config.engine.reservationsEnabled, true);
  assert.equal(config.engine.ioTimeoutMs, 110_000);
  assert.equal(config.engine.adminTimeoutMs, 30_000);
  assert.equal(config.engine.keepAliveMs, 10_000);
  assert.deepEqual(config.store, { endpoint: "etcd:2379", timeoutMs: 10_000, attempts: 30 });
  assert.deepEqual(config.ignored, ["--mem-size", "--config"]);
  assert.equal(load([], { HOSTNAME: "from-env" }).nodeName, "from-env");
});

test("loadConfig() keeps the store's timeout within its published limits", () => {
  assert.equal(load(["-p", "e", "--ps-timeout", "1ms"]).store?.timeoutMs, 1_000);
  assert.equal(load(["-p", "e", "--ps-timeout", "5m"]).store?.timeoutMs, 60_000);
});

test("loadConfig() reads microsecond timeouts of the old names", () => {
  assert.equal(load([], { NVME_TIMEOUT_US: "7000000" }).engine.ioTimeoutMs, 7_000);
});

test("loadConfig() does not pin to a core the machine lacks", () => {
  assert.deepEqual(load(["-l", "1,9"]).engine.cores, [1, null]);
});

test("loadConfig() names the option it refuses", () => {
  const bad: [string[], RegExp][] = [
    [["-g", "nonsense"], /--grpc-endpoint/],
    [["-g", "1.2.3.4:99999"], /--grpc-endpoint/],
    [["-m", "0x0"], /--core-mask/],
    [["-l", "4-2"], /--core-list/],
    [["--tgt-crdt", "1,2"], /--tgt-crdt/],
    [["--api-versions", "V7"], /--api-versions/],
    [["--no-such-option"], /no-such-option/],
    [["-T", "eth9"], /eth9/],
  ];
  for (const [args, message] of bad) {
    assert.throws(() => load(args), { kind: "invalid-argument", message }, args.join(" "));
  }
  assert.throws(() => load([], { HOSTNQN: "x" }), { message: /--hostnqn/ });
});

test("parseCoreList() and parseCoreMask() count cores from 0", () => {
  assert.deepEqual(parseCoreList("0-1"), [0, 1]);
  assert.deepEqual(parseCoreList("[3,4,3]"), [3, 4]);
  assert.deepEqual(parseCoreMask("0x18"), [3, 4]);
  assert.deepEqual(parseCoreMask("3"), [0, 1]);
  assert.throws(() => parseCoreList(""), { kind: "invalid-argument" });
});

test("targetAddress() prefers the interface, then the pod's address, then loopback", () => {
  const at = (tgtIface: string | null, podIp: string | null) =>
    targetAddress({ tgtIface, podIp, interfaces });
  assert.equal(at(null, null), "127.0.0.1");
  assert.equal(at(null, "127.0.0.3"), "127.0.0.3");
  assert.equal(at("eth0", "127.0.0.3"), "10.1.0.5");
  assert.equal(at("name:eth0", null), "10.1.0.5");
  assert.equal(at("mac:AA:BB:CC:DD:EE:01", null), "10.1.0.5");
  assert.equal(at("ip:10.2.0.6", null), "10.2.0.6");
  assert.equal(at("subnet:10.1.0.0/16", null), "10.1.0.5");
  assert.throws(() => at("eth1", null), { message: /matches 2 IPv4 addresses/ });
  assert.throws(() => at("subnet:10.9.0.0/16", null), { message: /matches 0/ });
  assert.throws(() => at("subnet:10.9", null), { message: /not a subnet/ });
  assert.throws(() => at(null, "not-an-ip"), { message: /MY_POD_IP/ });
});
