/** Programs accept what the manifests of infra/ pass them, and understand it as it is meant. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseOptions } from "#common/config.ts";
import { etcdHosts } from "#common/store/etcd.ts";
import { coreConfig } from "../../agents/core/options.ts";
import { CONTROLLER_OPTIONS } from "../../agents/csi-controller/options.ts";
import { NODE_OPTIONS } from "../../agents/csi-node/options.ts";
import { OPERATOR_OPTIONS } from "../../agents/diskpool-operator/options.ts";
import { EXPORTER_OPTIONS } from "../../agents/metrics-exporter/options.ts";
import { checkOptions, REST_OPTIONS } from "../../agents/rest/options.ts";
import { loadConfig } from "../../engine/ts/config.ts";
import type { PodSpec } from "../../infra/constructs/kube.ts";
import { snapshotInstalls, synthesize } from "../../infra/snapshots.ts";

type Run = { readonly args: string[]; readonly env: Record<string, string> };

/** What the kubelet fills in for pods on this node. */
const FIELDS: Readonly<Record<string, string>> = {
  "metadata.name": "pod-0",
  "metadata.namespace": "mayastor",
  "status.podIP": "10.1.0.5",
  "spec.nodeName": "node-1",
};

/** The command lines of one container, in every installation that is kept as a snapshot and has it. */
function runs(name: string): ReadonlyMap<string, Run> {
  const found = new Map<string, Run>();
  for (const [profile, install] of snapshotInstalls()) {
    for (const object of [...synthesize(install).values()].flat()) {
      // Only workloads have a template, and infra's own tests check its form.
      const pod = (object["spec"] as { template?: { spec: PodSpec } } | undefined)?.template?.spec;
      const container = pod?.containers.find((one) => one.name === name);
      if (!container) continue;
      const env = Object.fromEntries(
        (container.env ?? []).map((one) => [
          one.name,
          one.value ?? FIELDS[one.valueFrom?.fieldRef?.fieldPath ?? ""] ?? "",
        ]),
      );
      const fill = (arg: string) =>
        arg.replaceAll(/\$\((\w+)\)/g, (_all, variable: string) => env[variable] ?? "");
      found.set(profile, { args: (container.args ?? []).map(fill), env });
    }
  }
  assert.ok(found.has("everything"), `there is a container ${name}`);
  return found;
}

test("agent-core understands its arguments in every profile", () => {
  for (const [profile, { args, env }] of runs("agent-core")) {
    const config = coreConfig(args, env);
    assert.deepEqual(etcdHosts(config.store), ["http://mayastor-etcd:2379"], profile);
    assert.equal(config.grpcAddress, "0.0.0.0:50051");
    assert.equal(config.requestTimeoutMs, 5000);
    assert.equal(config.cachePeriodMs, 30_000);
    assert.equal(config.faultedChildWaitMs, profile === "everything" ? 300_000 : 600_000);
  }
});

test("api-rest understands its arguments in every profile", () => {
  for (const [profile, { args, env }] of runs("api-rest")) {
    const options = parseOptions(REST_OPTIONS, { args, env });
    checkOptions(options);
    assert.deepEqual(options.http, { host: "0.0.0.0", port: 8081 }, profile);
    assert.deepEqual(options.https, { host: "0.0.0.0", port: 8080 });
    assert.equal(options["core-grpc"], "https://mayastor-agent-core:50051");
  }
});

test("io-engine understands its arguments in every profile", () => {
  const address = { address: "10.1.0.5", netmask: "255.255.0.0", family: "IPv4" } as const;
  const interfaces = { eth0: [{ ...address, mac: "", internal: false, cidr: "10.1.0.5/16" }] };
  for (const [profile, { args, env }] of runs("io-engine")) {
    const config = loadConfig({ args, env, interfaces, cpuCount: 8 });
    assert.equal(config.grpcAddress, "10.1.0.5:10124", profile);
    assert.equal(config.nodeName, "node-1");
    assert.equal(config.registration, "https://mayastor-agent-core:50051");
    assert.deepEqual(etcdHosts(config.store?.endpoint ?? ""), ["http://mayastor-etcd:2379"]);
    assert.equal(config.engine.ptplDir, "/var/local/io-engine/ptpl/");
    assert.equal(config.engine.targetAddress, "10.1.0.5");
    assert.equal(config.engine.anaEnabled, true);
    assert.equal(config.engine.reservationsEnabled, true);
    const cores = { everything: [2, 3, 6], "single-node": [1], kind: [0] }[profile] ?? [1, 2];
    assert.deepEqual(config.engine.cores, cores);
  }
});

test("operator-diskpool understands its arguments", () => {
  for (const [profile, { args, env }] of runs("operator-diskpool")) {
    const options = parseOptions(OPERATOR_OPTIONS, { args, env });
    assert.equal(options.endpoint, "http://mayastor-api-rest:8081", profile);
    assert.equal(options.namespace, "mayastor");
    assert.equal(options.interval, 30_000);
    assert.equal(options["request-timeout"], 5000);
  }
});

test("csi-controller understands its arguments", () => {
  for (const [profile, { args, env }] of runs("csi-controller")) {
    const options = parseOptions(CONTROLLER_OPTIONS, { args, env });
    assert.equal(options["rest-endpoint"], "http://mayastor-api-rest:8081", profile);
    assert.equal(options["csi-socket"], "/var/lib/csi/sockets/pluginproxy/csi.sock");
    assert.deepEqual([options["node-selector"]].flat(), [{ "openebs.io/csi-node": "mayastor" }]);
  }
});

test("csi-node understands its arguments", () => {
  for (const [profile, { args, env }] of runs("csi-node")) {
    const options = parseOptions(NODE_OPTIONS, { args, env });
    assert.equal(options["csi-socket"], "/csi/csi.sock", profile);
    assert.equal(options["node-name"], "node-1");
    assert.equal(options["grpc-endpoint"], "10.1.0.5:10199");
    assert.equal(options["nvme-core-io-timeout"], 30);
    assert.equal(options["nvme-ctrl-loss-tmo"], 1980);
    assert.equal(options["nvme-keep-alive-tmo"], null);
  }
});

test("metrics-exporter-pool understands its arguments", () => {
  for (const [profile, { args, env }] of runs("metrics-exporter-pool")) {
    const options = parseOptions(EXPORTER_OPTIONS, { args, env });
    assert.deepEqual(options["metrics-endpoint"], { host: "0.0.0.0", port: 9502 }, profile);
    assert.equal(options["polling-time"], 300_000);
    assert.equal(options["api-versions"], "v1");
    assert.deepEqual([env["MY_NODE_NAME"], env["MY_POD_IP"]], ["node-1", "10.1.0.5"]);
  }
});
