/**
 * operator-diskpool on a real API server, with a real api-rest and engines: as it is deployed, with its own token.
 * Why beside the integration test with an API server double: what the real one makes of our calls (server-side apply,
 * columns, events, rights, restarts, lost history) only the real one tells.
 */
import assert from "node:assert/strict";
import { closeSync, copyFileSync, ftruncateSync, mkdtempSync, openSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { ControlPlane } from "../../hack/cluster/kube/control_plane.ts";
import { LocalCluster, until } from "../../hack/cluster/local.ts";
import { snapshotInstalls, synthesize } from "../../infra/snapshots.ts";
import { ownPlace, QUICK_CORE } from "../support/cluster.ts";
import { clearOnSignal } from "../support/interrupts.ts";
import { KubeApi, type KubeObject, messageOf } from "../support/kube/api.ts";
import { CleanupStack } from "../support/kube/cleanup.ts";
import { kubectl, linesOf, startControlPlane } from "../support/kube/plane.ts";
import { Program } from "../support/kube/programs.ts";
import type { RecordedCall } from "../support/kube/recorder.ts";

const NS = "mayastor";
const POOLS = `/apis/openebs.io/v1alpha1/namespaces/${NS}/diskpools`;
const LEASE = `/apis/coordination.k8s.io/v1/namespaces/${NS}/leases/operator-diskpool`;
const FINALIZER = "openebs.io/diskpool-protection";
const MIB = 1024 * 1024;
const ONLINE = { state: "Online", cr_state: "Created", pool_status: "Online" } as const;
/** A lease's duration, the pause between tries, and what a busy machine adds. */
const TAKEOVER_SEC = 15 + 3 + 12;

type Status = {
  readonly state: string;
  readonly cr_state: string;
  readonly pool_status?: string | null;
  readonly capacity: number;
  readonly used: number;
  readonly available: number;
};
type Lease = { readonly holderIdentity?: string; readonly leaseTransitions?: number };

describe("operator-diskpool on a real API server", { concurrency: false }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  const cleanup = new CleanupStack();
  cleanup.after(() => LocalCluster.clear(folder));
  clearOnSignal(folder);
  let plane: ControlPlane;
  let api: KubeApi;
  let cluster: LocalCluster;
  let operators: readonly [Program, Program];

  before(
    async () => {
      plane = await startControlPlane(cleanup);
      api = new KubeApi(plane.kubeconfig);
      const install = snapshotInstalls().get("minimal");
      assert.ok(install);
      const charts = synthesize(install);
      for (const object of ["00-namespace", "15-rbac"].flatMap((name) => charts.get(name) ?? [])) {
        const at = await api.pathOf(object);
        assert.ok(at !== null);
        await api.must("PATCH", `${at}?fieldManager=installer`, { body: object, patch: "apply" });
      }
      cluster = await LocalCluster.create({
        ...{ folder, engines: 2, diskMiB: 256, coreArgs: QUICK_CORE, ...ownPlace(2) },
      });
      await cluster.start();
      const operator = (name: string) =>
        Program.create(cleanup, {
          ...{ plane, processes: cluster.processes, folder, namespace: NS, name },
          serviceAccount: "mayastor-operator-diskpool",
          main: "agents/diskpool-operator/main.ts",
          args: ["-e", cluster.rest.url, `-n${NS}`, "--request-timeout=5s", "--interval=1s"],
        });
      operators = [await operator("operator-a"), await operator("operator-b")];
      operators[0].start();
    },
    { timeout: 300_000 },
  );
  after(() => cleanup.run());

  const node = (index = 0) => {
    const one = cluster.nodes[index];
    assert.ok(one);
    return one;
  };
  const makeDisk = (name: string): string => {
    const file = path.join(folder, `${name}.img`);
    const disk = openSync(file, "w");
    ftruncateSync(disk, 128 * MIB);
    closeSync(disk);
    return `aio://${file}`;
  };
  const manifest = (name: string, disk: string, on: string) => ({
    apiVersion: "openebs.io/v1alpha1",
    kind: "DiskPool",
    metadata: { name, namespace: NS },
    spec: { node: on, disks: [disk] },
  });
  const apply = async (name: string, disk: string, on = node().name) => {
    const input = JSON.stringify(manifest(name, disk, on));
    const { code, stderr } = await kubectl(plane, ["apply", "-f", "-"], { input });
    assert.equal(code, 0, stderr);
  };
  const find = (name: string) => api.find(`${POOLS}/${name}`);
  const statusOf = (object: KubeObject | null) => (object?.["status"] ?? {}) as Partial<Status>;
  const explain = (error: unknown, seen: unknown) =>
    new Error(
      [
        String(error),
        `last: ${JSON.stringify(seen)}`,
        operators[0].tail(),
        operators[1].tail(),
      ].join("\n"),
    );
  const untilStatus = async (name: string, wanted: Partial<Status>, seconds = 60) => {
    let seen: KubeObject | null = null;
    try {
      return await until(
        `${name} ${JSON.stringify(wanted)}`,
        async () => {
          seen = await find(name);
          const fields = new Map(Object.entries(statusOf(seen)));
          return Object.entries(wanted).every(([key, value]) => fields.get(key) === value) && seen;
        },
        { seconds },
      );
    } catch (error) {
      throw explain(error, seen);
    }
  };
  const untilGone = async (name: string, seconds = 60) => {
    try {
      await until(`${name} gone`, async () => (await find(name)) === null, { seconds });
    } catch (error) {
      throw explain(error, await find(name));
    }
  };
  const eventsOf = async (name: string) =>
    (
      await api.list(`/api/v1/namespaces/${NS}/events?fieldSelector=involvedObject.name=${name}`)
    ).toSorted((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion));
  const untilEvent = async (name: string, action: string) => {
    try {
      return await until(
        `event ${action} of ${name}`,
        async () => (await eventsOf(name)).find((event) => event["action"] === action),
        { seconds: 60 },
      );
    } catch (error) {
      throw explain(error, await eventsOf(name));
    }
  };
  /** While an API server starts it does not know the roles yet, and refuses what it will allow. */
  const duringRestarts = new Set<RecordedCall>();
  const restartApiServer = async () => {
    const seen = operators.map(({ recorder }) => recorder.calls.length);
    await plane.restartApiServer();
    operators.forEach(({ recorder }, index) => {
      for (const call of recorder.calls.slice(seen[index])) duringRestarts.add(call);
    });
  };
  const poolIds = async () => (await cluster.rest.pools()).map(({ id }) => id).sort();
  const lease = async () => ((await api.find(LEASE))?.["spec"] ?? {}) as Lease;

  test("makes the CRD, leads and works with the rights of its account", async () => {
    await until(
      "the lease",
      async () => /^operator-a_/.test((await lease()).holderIdentity ?? ""),
      { seconds: 60 },
    ).catch((error: unknown) => {
      throw explain(error, null);
    });
    const crd = await api.must(
      "GET",
      "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/diskpools.openebs.io",
    );
    const { conditions, storedVersions } = crd["status"] as {
      conditions: { type: string; status: string }[];
      storedVersions: string[];
    };
    const established = conditions.find(({ type }) => type === "Established");
    assert.equal(established?.status, "True");
    assert.ok(!conditions.some(({ type }) => type === "NonStructuralSchema"));
    assert.deepEqual(storedVersions, ["v1alpha1"]);
  });

  test("the API server refuses a DiskPool that the schema refuses, and says what is wrong", async () => {
    const good = manifest("bad", "/dev/vdb", node().name);
    const bad: readonly (readonly [spec: unknown, message: RegExp])[] = [
      [undefined, /spec: Required value/],
      ["pool", /spec.*must be of type object/],
      [{ disks: ["/dev/vdb"] }, /spec\.node: Required value/],
      [{ node: "node-1" }, /spec\.disks: Required value/],
      [{ node: 1, disks: ["/dev/vdb"] }, /spec\.node.*must be of type string/],
      [{ node: "node-1", disks: "/dev/vdb" }, /spec\.disks.*must be of type array/],
      [{ node: "node-1", disks: [7] }, /spec\.disks.*must be of type string/],
    ];
    for (const [spec, message] of bad) {
      const { status, body } = await api.call("POST", POOLS, { body: { ...good, spec } });
      assert.equal(status, 422, JSON.stringify(spec));
      assert.match(messageOf(body), message);
    }
    const state = { ...good, status: { state: "Fine", cr_state: "Created", capacity: -1 } };
    await api.must("POST", POOLS, { body: state }); // a status is not taken with the object ...
    assert.notEqual(statusOf(await find("bad")).state, "Fine");
    const at = `${POOLS}/bad/status`;
    const { status } = await api.call("PATCH", at, { body: { status: state.status } });
    assert.equal(status, 422, "... and by itself only one that is right");
    await api.must("DELETE", `${POOLS}/bad`);
    await untilGone("bad");
  });

  test("creates a pool; kubectl shows it as documented", async () => {
    await apply("pool-on-node-1", `aio://${node().disk}`);
    const object = await untilStatus("pool-on-node-1", ONLINE);
    const { capacity, used, available } = statusOf(object);
    assert.ok(capacity !== undefined && capacity > 200 * MIB && capacity <= 256 * MIB);
    assert.equal(available, capacity - (used ?? 0));
    const shown = await kubectl(plane, ["get", "dsp", "-n", NS]);
    assert.deepEqual(
      linesOf(shown.stdout).map((line) => line.trim().split(/\s+/)),
      [
        ["NAME", "NODE", "STATE", "POOL_STATUS", "CAPACITY", "USED", "AVAILABLE"],
        ...[
          [
            "pool-on-node-1",
            "node-1",
            "Online",
            "Online",
            `${capacity}`,
            `${used}`,
            `${available}`,
          ],
        ],
      ],
    );
    const [pool] = await cluster.rest.pools();
    assert.deepEqual(pool?.spec?.labels, { "openebs.io/created-by": "operator-diskpool" });
  });

  test("owns finalizer and status, and nothing of the spec", async () => {
    const object = await find("pool-on-node-1");
    assert.deepEqual(object?.metadata.finalizers, [FINALIZER]);
    const managers = object.metadata.managedFields ?? [];
    const own = managers.filter(({ manager }) => manager.startsWith("operator-diskpool"));
    assert.deepEqual(
      own.map(({ manager, operation, fieldsV1 = {} }) => [
        ...[manager, operation, Object.keys(fieldsV1).join()],
      ]),
      [
        ["operator-diskpool", "Apply", "f:metadata"],
        ["operator-diskpool-status", "Apply", "f:status"],
      ],
    );
    assert.match(JSON.stringify(own[0]?.fieldsV1), /f:finalizers/);
    const others = managers.filter((one) => !own.includes(one));
    assert.ok(others.some(({ fieldsV1 }) => JSON.stringify(fieldsV1).includes("f:spec")));
  });

  test("posts the documented events, which kubectl shows with the object", async () => {
    const created = await untilEvent("pool-on-node-1", "Create or Import");
    await untilEvent("pool-on-node-1", "Online pool");
    assert.equal(created["reason"], "Created");
    assert.equal(created["type"], "Normal");
    assert.equal(created["reportingComponent"], "dsp-operator");
    assert.equal(created["reportingInstance"], "operator-a");
    assert.match(created.metadata.name, /^pool-on-node-1\.[0-9a-f]+/);
    const described = await kubectl(plane, ["describe", "dsp", "pool-on-node-1", "-n", NS]);
    assert.match(
      described.stdout,
      /Normal\s+Created\s+\S+\s+dsp-operator\s+Created or imported pool/,
    );
    assert.match(described.stdout, /Normal\s+Online\s+/);
  });

  test("writes nothing while nothing changes", async () => {
    const version = (await find("pool-on-node-1"))?.metadata.resourceVersion;
    const { recorder } = operators[0];
    const seen = recorder.calls.length;
    // Four renewals of the lease are far more than one interval.
    await until(
      "some renewals",
      async () => recorder.calls.slice(seen).filter(({ verb }) => verb === "update").length >= 3,
      { seconds: 60 },
    );
    assert.equal((await find("pool-on-node-1"))?.metadata.resourceVersion, version);
    const writes = recorder.calls
      .slice(seen)
      .filter(
        ({ verb, resource }) => !["get", "list", "watch"].includes(verb) && resource !== "leases",
      );
    assert.deepEqual(writes, []);
  });

  test("adopts a pool that exists, and imports one that only its disk knows", async () => {
    const disk = makeDisk("adopted");
    const at = `/nodes/${node(1).name}/pools/adopted`;
    await cluster.rest.request("PUT", at, { disks: [disk] });
    await apply("adopted", disk, node(1).name);
    await untilStatus("adopted", ONLINE);
    assert.deepEqual(
      (await eventsOf("adopted")).map((event) => event["action"]),
      ["Online pool"],
    );
    // A replica, a copy of the disk, and away with pool and object: what remains is the copy.
    const replica = "0e7b3b8e-7a0b-4e38-9d8e-2f6f2b1b6f10";
    await cluster.rest.request("PUT", `${at}/replicas/${replica}`, { size: 16 * MIB, thin: false });
    const copy = path.join(folder, "copy.img");
    copyFileSync(disk.replace("aio://", ""), copy);
    await cluster.rest.request("DELETE", `${at}/replicas/${replica}`);
    await api.must("DELETE", `${POOLS}/adopted`);
    await untilGone("adopted");
    assert.ok(!(await poolIds()).includes("adopted"), "its pool is destroyed");
    await apply("adopted", `aio://${copy}`, node(1).name);
    const { used = 0 } = statusOf(await untilStatus("adopted", ONLINE));
    assert.ok(used >= 16 * MIB, `the replica is still in it: ${used} used`);
    await api.must("DELETE", `${POOLS}/adopted`);
    await untilGone("adopted");
  });

  test("explains a missing disk, an unknown node and a name in use; takes no pool away with them", async () => {
    await apply("no-disk", "/dev/there-is-no-such-disk");
    await apply("no-node", "/dev/vdb", "node-99");
    const disk = makeDisk("taken");
    await cluster.rest.request("PUT", `/nodes/${node().name}/pools/taken`, { disks: [disk] });
    await apply("taken", disk, node(1).name);
    const missing = await untilEvent("no-disk", "Create or import");
    assert.deepEqual([missing["reason"], missing["type"]], ["Missing", "Warning"]);
    assert.match(String(missing["message"]), /there-is-no-such-disk/);
    const unknown = await untilEvent("no-node", "Create or Import Failure");
    assert.match(String(unknown["message"]), /Cannot find io-engine node "node-99"/);
    const taken = await untilEvent("taken", "Create or Import Failure");
    assert.match(String(taken["message"]), /exists on node node-1, not on node-2/);
    await untilStatus("taken", { state: "Error" });
    assert.equal(statusOf(await find("no-disk")).cr_state, "Creating");
    for (const name of ["no-disk", "no-node", "taken"]) {
      await api.must("DELETE", `${POOLS}/${name}`);
      await untilGone(name);
    }
    assert.deepEqual(await poolIds(), ["pool-on-node-1", "taken"]);
  });

  test("never makes an object again that is gone", async () => {
    // The operator is cut off while the object goes; what it still wants to write must not bring it back.
    const { recorder } = operators[0];
    await apply("ghost", "/dev/there-is-no-such-disk");
    await untilEvent("ghost", "Create or import");
    const object = await find("ghost");
    assert.ok(object);
    recorder.cut();
    await api.must("PATCH", `${POOLS}/ghost`, { body: { metadata: { finalizers: null } } });
    await api.must("DELETE", `${POOLS}/ghost`);
    await untilGone("ghost");
    // The same writes as the operator's own, with its token.
    const own = new KubeApi(await plane.kubeconfigFor(NS, "mayastor-operator-diskpool"));
    const identity = {
      ...{ apiVersion: "openebs.io/v1alpha1", kind: "DiskPool" },
      metadata: { name: "ghost", namespace: NS, uid: object.metadata.uid },
    };
    const query = "?fieldManager=operator-diskpool&force=true";
    const status = { state: "Creating", cr_state: "Creating", capacity: 0, used: 0, available: 0 };
    const late = await own.call("PATCH", `${POOLS}/ghost/status${query}`, {
      ...{ body: { ...identity, status }, patch: "apply" },
    });
    assert.ok([403, 404, 409, 422].includes(late.status), `status ${late.status}`);
    const finalizers = { ...identity, metadata: { ...identity.metadata, finalizers: [FINALIZER] } };
    const early = await own.call("PATCH", `${POOLS}/ghost${query}`, {
      ...{ body: finalizers, patch: "apply" },
    });
    assert.ok([403, 404, 409, 422].includes(early.status), `status ${early.status}`);
    recorder.mend();
    assert.equal(await find("ghost"), null);
  });

  test("makes a pool again that was removed through REST", async () => {
    await cluster.rest.request("DELETE", "/pools/pool-on-node-1");
    await untilEvent("pool-on-node-1", "Notfound");
    await untilStatus("pool-on-node-1", ONLINE);
    await until("the pool", async () => (await poolIds()).includes("pool-on-node-1"));
  });

  test("knows nothing of a pool whose node is down, and has it back after", async () => {
    await cluster.endEngine(node(), "SIGKILL");
    const down = { state: "Unknown", cr_state: "Created", pool_status: "Unknown" } as const;
    await untilStatus("pool-on-node-1", { ...down, capacity: 0, used: 0, available: 0 });
    cluster.startEngine(node());
    await untilStatus("pool-on-node-1", ONLINE);
  });

  test("sees what happened while it was cut off and the API server restarted, though history is lost", async () => {
    const { recorder } = operators[0];
    await apply("gone-after", makeDisk("gone-after"), node(1).name);
    await untilStatus("gone-after", ONLINE);
    await until("a watch", async () => recorder.calls.some(({ verb }) => verb === "watch"));
    recorder.cut();
    await api.must("DELETE", `${POOLS}/gone-after`); // marked only: it has the finalizer
    await apply("made-meanwhile", makeDisk("meanwhile"), node(1).name);
    await apply("gone-meanwhile", makeDisk("gone"), node(1).name);
    await api.must("DELETE", `${POOLS}/gone-meanwhile`); // never seen by the operator
    // A new API server knows no versions from before its start.
    await restartApiServer();
    const lists = recorder.calls.filter(({ verb }) => verb === "list").length;
    recorder.mend();
    await untilStatus("made-meanwhile", ONLINE, 90);
    await untilGone("gone-after");
    assert.ok(
      recorder.calls.filter(({ verb }) => verb === "list").length > lists,
      "it listed again",
    );
    assert.deepEqual(await poolIds(), ["made-meanwhile", "pool-on-node-1", "taken"]);
    assert.match((await lease()).holderIdentity ?? "", /^operator-a_/, "it leads as before");
  });

  test("keeps a DiskPool whose pool has replicas, and says why", async () => {
    const replica = "7c1f5b1e-4a53-4c19-a9a5-0b6a4c1a2e55";
    const at = `/nodes/${node(1).name}/pools/made-meanwhile/replicas/${replica}`;
    await cluster.rest.request("PUT", at, { size: 16 * MIB, thin: false });
    await api.must("DELETE", `${POOLS}/made-meanwhile`);
    const event = await untilEvent("made-meanwhile", "Destroy pool");
    assert.match(String(event["message"]), /it has replicas/);
    await untilStatus("made-meanwhile", { cr_state: "Terminating" });
    assert.ok((await poolIds()).includes("made-meanwhile"));
    await cluster.rest.request("DELETE", at); // the next test sees it tried again, within 20 s
  });

  test("of two operators one works; the other takes over when it is killed", {
    timeout: 180_000,
  }, async () => {
    const [first, second] = operators;
    const writesOf = (one: Program) =>
      one.recorder.calls.filter(
        ({ verb, resource }) => !["get", "list", "watch"].includes(verb) && resource !== "leases",
      );
    second.start();
    await until(
      "the second one to wait",
      async () => second.tail(50).includes("another instance leads"),
      {
        seconds: 60,
      },
    );
    await untilGone("made-meanwhile");
    assert.ok(!(await poolIds()).includes("made-meanwhile"));
    assert.ok(!writesOf(second).some(({ resource }) => resource.startsWith("diskpools")));
    const before = (await lease()).leaseTransitions ?? 0;
    await apply("while-two-run", makeDisk("two-run"), node(1).name);
    await untilStatus("while-two-run", ONLINE);
    const killedAt = Date.now();
    await first.end("SIGKILL");
    await apply("after-the-kill", makeDisk("after-kill"), node(1).name);
    await untilStatus("after-the-kill", ONLINE, TAKEOVER_SEC + 30);
    const leader = await lease();
    assert.match(leader.holderIdentity ?? "", /^operator-b_/);
    assert.equal(leader.leaseTransitions, before + 1);
    const took = second.recorder.calls.find(
      ({ verb, resource }) => verb === "update" && resource === "leases",
    );
    assert.ok(took);
    const seconds = (Date.now() - killedAt) / 1000;
    assert.ok(seconds < TAKEOVER_SEC + 30, `${seconds} s`);
    // Each pool was made once, whoever did it.
    for (const name of ["while-two-run", "after-the-kill"]) {
      const made = (await eventsOf(name)).filter((event) => event["reason"] === "Created");
      assert.equal(made.length, 1, name);
    }
    const lines = [first.tail(2000), second.tail(2000)].join("\n").split("\n");
    for (const name of ["while-two-run", "after-the-kill"]) {
      const made = lines.filter((line) => line.includes('"pool created"') && line.includes(name));
      assert.equal(made.length, 1, made.join("\n"));
    }
  });

  test("gives up the lease when it stops, and another starts at once", async () => {
    const [first, second] = operators;
    await second.end("SIGTERM");
    assert.equal((await lease()).holderIdentity, "");
    first.start();
    await until(
      "a new leader",
      async () => /^operator-a_/.test((await lease()).holderIdentity ?? ""),
      {
        seconds: 30,
      },
    );
  });

  test("was never refused anything, and wrote the CRD once", () => {
    const calls = operators
      .flatMap(({ recorder }) => recorder.calls)
      .filter((call) => !duringRestarts.has(call));
    assert.deepEqual(
      calls.filter(({ status }) => status === 401 || status === 403),
      [],
    );
    const crds = calls.filter(
      ({ resource, verb }) => resource === "customresourcedefinitions" && verb !== "get",
    );
    assert.deepEqual(
      crds.map(({ verb }) => verb),
      ["create"],
    );
  });
});
