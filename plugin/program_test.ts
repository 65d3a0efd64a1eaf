import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { ManualClock, systemClock } from "#common/clock.ts";
import type { BlockDevice, Node, Pool, PurgeCost, Volume } from "#common/openapi/model.ts";
import { runProgram } from "./program.ts";
import { startFakeRest } from "./testing/fake_rest.ts";

const rest = await startFakeRest();
after(() => rest.close());
beforeEach(() => {
  rest.requests.length = 0;
  for (const key of Object.keys(rest.answers)) delete rest.answers[key];
});

async function mayastor(line: string, { clock = systemClock, signal = never } = {}) {
  let out = "";
  let err = "";
  const code = await runProgram(["-r", rest.url, ...line.split(" ")], {
    terminal: {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
    clock,
    env: {},
    signal,
    version: "1.2.3",
  });
  return { code, out, err };
}
const never = new AbortController().signal;
const lines = (...text: string[]) => `${text.join("\n")}\n`;
const asked = () => rest.requests.map(({ line }) => line);

// ---- the documentation's examples ------------------------------------------------------------------------------

const node = (id: string, grpcEndpoint: string): Node => ({
  id,
  spec: { grpcEndpoint, id },
  state: { grpcEndpoint, id, status: "Online" },
});
const nodes = [
  node("mayastor-2", "10.1.0.7:10124"),
  node("mayastor-1", "10.1.0.6:10124"),
  node("mayastor-3", "10.1.0.8:10124"),
];

function volume(uuid: string, target: string, protocol: "nvmf" | "none"): Volume {
  return {
    spec: {
      num_replicas: 4,
      size: 10_485_761,
      status: "Created",
      uuid,
      policy: { self_heal: true },
      thin: false,
    },
    state: {
      target: {
        children: [],
        deviceUri: "",
        node: target,
        rebuilds: 0,
        protocol,
        size: 10_485_761,
        state: "Online",
        uuid,
      },
      size: 10_485_761,
      status: "Online",
      uuid,
      replica_topology: {},
      usage: { capacity: 10_485_761, allocated: 12_582_912, total_allocated: 50_331_648 },
    },
  };
}
const shared = volume("18e30e83-b106-4e0d-9fb6-2b04e761e18a", "mayastor-1", "nvmf");
const unshared = volume("0c08667c-8b59-4d11-9192-b54e27e0ce0f", "mayastor-2", "none");

const firstPage = "GET /v0/volumes?max_entries=200&starting_token=0";

test("get volumes", async () => {
  rest.answers[firstPage] = { body: { entries: [shared, unshared] } };
  const { code, out } = await mayastor("get volumes");
  assert.equal(
    out,
    lines(
      "ID                                    REPLICAS  TARGET-NODE  ACCESSIBILITY  STATUS  SIZE   THIN-PROVISIONED  ALLOCATED",
      "18e30e83-b106-4e0d-9fb6-2b04e761e18a  4         mayastor-1   nvmf           Online  10MiB  false             12MiB",
      "0c08667c-8b59-4d11-9192-b54e27e0ce0f  4         mayastor-2   <none>         Online  10MiB  false             12MiB",
    ),
  );
  assert.equal(code, 0);
});

test("get volumes reads every page", async () => {
  rest.answers[firstPage] = { body: { entries: [shared], next_token: 200 } };
  rest.answers["GET /v0/volumes?max_entries=200&starting_token=200"] = {
    body: { entries: [unshared] },
  };
  const { out } = await mayastor("-ojson get volumes");
  assert.equal(out, `${JSON.stringify([shared, unshared])}\n`);
});

test("get volume of one that is not published", async () => {
  const { target: _, usage: __, ...state } = shared.state;
  const bare: Volume = { ...shared, state: { ...state, status: "Faulted" } };
  rest.answers[`GET /v0/volumes/${shared.spec.uuid}`] = { body: bare };
  const { out } = await mayastor(`get volume ${shared.spec.uuid}`);
  assert.equal(
    out,
    lines(
      "ID                                    REPLICAS  TARGET-NODE  ACCESSIBILITY  STATUS   SIZE   THIN-PROVISIONED  ALLOCATED",
      "18e30e83-b106-4e0d-9fb6-2b04e761e18a  4         <none>       <none>         Faulted  10MiB  false             <none>",
    ),
  );
});

test("get nodes", async () => {
  rest.answers["GET /v0/nodes"] = { body: nodes };
  const { out } = await mayastor("get nodes");
  assert.equal(
    out,
    lines(
      "ID          GRPC ENDPOINT   STATUS  CORDONED",
      "mayastor-2  10.1.0.7:10124  Online  false",
      "mayastor-1  10.1.0.6:10124  Online  false",
      "mayastor-3  10.1.0.8:10124  Online  false",
    ),
  );
});

test("get node of one that has not registered since", async () => {
  const spec = { grpcEndpoint: "10.1.0.6:10124", id: "mayastor-1" };
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: { id: "mayastor-1", spec } };
  const { out } = await mayastor("get node mayastor-1");
  assert.equal(
    out,
    lines(
      "ID          GRPC ENDPOINT   STATUS   CORDONED",
      "mayastor-1  10.1.0.6:10124  Unknown  false",
    ),
  );
});

const pool = (id: string, disk: string, used: number, managed: boolean): Pool => ({
  id,
  ...(managed ? { spec: { disks: [disk], id, node: "kworker1", status: "Created" } } : {}),
  state: {
    capacity: 5_360_320_512,
    disks: [disk],
    id,
    node: "kworker1",
    status: "Online",
    used,
    committed: used,
  },
});

test("get pools", async () => {
  rest.answers["GET /v0/pools"] = {
    body: [
      pool("mayastor-pool-1", "aio:///dev/vdb?uuid=d8a36b4b", 1_111_490_560, true),
      pool("mayastor-pool-3", "aio:///dev/vdc?uuid=f324edb7", 3_258_974_208, false),
      {
        id: "lost",
        spec: { disks: ["/dev/vdd"], id: "lost", node: "kworker9", status: "Creating" },
      } satisfies Pool,
    ],
  };
  const { out } = await mayastor("get pools");
  assert.equal(
    out,
    lines(
      "ID               DISKS                         MANAGED  NODE      STATUS   CAPACITY  ALLOCATED  AVAILABLE  COMMITTED",
      "mayastor-pool-1  aio:///dev/vdb?uuid=d8a36b4b  true     kworker1  Online   5GiB      1GiB       4GiB       1GiB",
      "mayastor-pool-3  aio:///dev/vdc?uuid=f324edb7  false    kworker1  Online   5GiB      3GiB       2GiB       3GiB",
      "lost             /dev/vdd                      true     kworker9  Unknown  0 B       0 B        0 B        <none>",
    ),
  );
});

const REPLICA_1 = "93b1e1e9-ffcd-4c56-971e-294a530ea5cd";
const REPLICA_2 = "88d89a92-40cf-4147-97d4-09e64979f548";
const topology: Volume["state"]["replica_topology"] = {
  [REPLICA_1]: {
    node: "ksnode-2",
    pool: "pool-on-ksnode-2",
    state: "Online",
    "child-status": "Online",
    usage: { capacity: 67_108_864, allocated: 67_108_864 },
  },
  [REPLICA_2]: {
    node: "ksnode-3",
    pool: "pool-on-ksnode-3",
    state: "Online",
    "child-status": "Degraded",
    "child-status-reason": "OutOfSpace",
    usage: { capacity: 67_108_864, allocated: 4_194_304 },
    "rebuild-progress": 42,
  },
};
const replicated = (id: Volume): Volume => ({
  ...id,
  state: { ...id.state, replica_topology: topology },
});

test("get volume-replica-topology", async () => {
  rest.answers[`GET /v0/volumes/${shared.spec.uuid}`] = { body: replicated(shared) };
  const { out } = await mayastor(`get volume-replica-topology ${shared.spec.uuid}`);
  assert.equal(
    out,
    lines(
      "ID                                    NODE      POOL              STATUS  CAPACITY  ALLOCATED  CHILD-STATUS  CHILD-STATUS-REASON  REBUILD",
      "93b1e1e9-ffcd-4c56-971e-294a530ea5cd  ksnode-2  pool-on-ksnode-2  Online  64MiB     64MiB      Online        <none>               <none>",
      "88d89a92-40cf-4147-97d4-09e64979f548  ksnode-3  pool-on-ksnode-3  Online  64MiB     4MiB       Degraded      OutOfSpace           42%",
    ),
  );
  const json = await mayastor(`get volume-replica-topology ${shared.spec.uuid} -o json`);
  assert.deepEqual(JSON.parse(json.out), topology);
});

test("get volume-replica-topologies", async () => {
  const unknown = { ...topology, [shared.spec.uuid]: { state: "Unknown" as const } };
  const third = { ...unshared, state: { ...unshared.state, replica_topology: unknown } };
  rest.answers[firstPage] = { body: { entries: [replicated(shared), third] } };
  const { out } = await mayastor("get volume-replica-topologies");
  const first = out.split("\n").map((line) => line.slice(0, 74));
  assert.deepEqual(first, [
    "VOLUME-ID                             ID                                  ",
    "18e30e83-b106-4e0d-9fb6-2b04e761e18a  93b1e1e9-ffcd-4c56-971e-294a530ea5cd",
    "└─                                    88d89a92-40cf-4147-97d4-09e64979f548",
    "0c08667c-8b59-4d11-9192-b54e27e0ce0f  93b1e1e9-ffcd-4c56-971e-294a530ea5cd",
    "├─                                    88d89a92-40cf-4147-97d4-09e64979f548",
    "└─                                    18e30e83-b106-4e0d-9fb6-2b04e761e18a",
    "",
  ]);
});

const device = (devname: string, available: boolean, links: string[]): BlockDevice => ({
  available,
  devlinks: links,
  devmajor: 252,
  devminor: 16,
  devname,
  devpath: `/devices/virtio/${devname.slice(5)}`,
  devtype: "disk",
  filesystem: { fstype: "ext4", label: "", mountpoint: "/data", uuid: "f-1" },
  model: "QEMU",
  partition: { name: "", number: 1, parent: "vdb", scheme: "gpt", typeid: "t-1", uuid: "" },
  size: 20_971_520,
});

test("get block-devices: a pool's device is not available", async () => {
  rest.answers["GET /v0/nodes/kworker1/pools"] = {
    body: [pool("p", "aio:///dev/disk/by-id/x?uuid=1", 0, true)],
  };
  const devices = [device("/dev/vdb", true, ["/dev/disk/by-id/x"]), device("/dev/vdc", true, [])];
  rest.answers["GET /v0/nodes/kworker1/block_devices?all=false"] = { body: devices };
  const { out } = await mayastor("get block-devices kworker1");
  assert.equal(
    out,
    lines(
      "DEVNAME   DEVTYPE  SIZE   AVAILABLE  MODEL  DEVPATH              MAJOR  MINOR  DEVLINKS",
      '/dev/vdb  disk     10GiB  no         QEMU   /devices/virtio/vdb  252    16     "/dev/disk/by-id/x"',
      "/dev/vdc  disk     10GiB  yes        QEMU   /devices/virtio/vdc  252    16",
    ),
  );
});

test("get block-devices --all shows what is on them, each under its head", async () => {
  rest.answers["GET /v0/nodes/kworker1/pools"] = { body: [] };
  rest.answers["GET /v0/nodes/kworker1/block_devices?all=true"] = {
    body: [device("/dev/vdb", false, [])],
  };
  const { out } = await mayastor("get block-devices kworker1 --all");
  assert.equal(
    out,
    lines(
      "DEVNAME   DEVTYPE  SIZE   AVAILABLE  MODEL  DEVPATH              FSTYPE  FSUUID  MOUNTPOINT  PARTTYPE  MAJOR  MINOR  DEVLINKS",
      "/dev/vdb  disk     10GiB  no         QEMU   /devices/virtio/vdb  ext4    f-1     /data       gpt:t-1   252    16",
    ),
  );
});

test("get block-devices shows devices of a newer server, which leaves out what is not on them", async () => {
  rest.answers["GET /v0/nodes/kworker1/pools"] = { body: [] };
  const { filesystem: _f, partition: _p, ...bare } = device("/dev/vdb", true, []);
  const body = [{ ...bare, connection_type: "virtio", is_rotational: true }];
  rest.answers["GET /v0/nodes/kworker1/block_devices?all=true"] = { body };
  const { out, err } = await mayastor("get block-devices kworker1 --all");
  assert.equal(err, "");
  assert.equal(
    out,
    lines(
      "DEVNAME   DEVTYPE  SIZE   AVAILABLE  MODEL  DEVPATH              FSTYPE  FSUUID  MOUNTPOINT  PARTTYPE  MAJOR  MINOR  DEVLINKS",
      "/dev/vdb  disk     10GiB  yes        QEMU   /devices/virtio/vdb                                        252    16",
    ),
  );
});

// ---- cordon and drain ------------------------------------------------------------------------------------------

type State = NonNullable<NonNullable<Node["spec"]>["cordondrainstate"]>;
const marked = (cordondrainstate: State): Node => ({
  ...node("mayastor-1", "10.1.0.6:10124"),
  spec: { grpcEndpoint: "10.1.0.6:10124", id: "mayastor-1", cordondrainstate },
});
const cordoned = (...cordonlabels: string[]) => marked({ cordonedstate: { cordonlabels } });
const draining = (...drainlabels: string[]) =>
  marked({ drainingstate: { cordonlabels: ["c"], drainlabels } });
const drained = (...drainlabels: string[]) =>
  marked({ drainedstate: { cordonlabels: [], drainlabels } });
const plainNode = node("mayastor-1", "10.1.0.6:10124");

test("get cordon nodes and get drain nodes list only what is marked", async () => {
  rest.answers["GET /v0/nodes"] = { body: [...nodes, cordoned("a", "b"), draining("d")] };
  const cordon = await mayastor("get cordon nodes");
  assert.equal(
    cordon.out,
    lines(
      "ID          GRPC ENDPOINT   STATUS  CORDONED  CORDON LABELS",
      "mayastor-1  10.1.0.6:10124  Online  true      a, b",
      "mayastor-1  10.1.0.6:10124  Online  true      c, d",
    ),
  );
  const drain = await mayastor("get drain nodes");
  assert.equal(
    drain.out,
    lines(
      "ID          GRPC ENDPOINT   STATUS  CORDONED  DRAIN STATE  DRAIN LABELS",
      "mayastor-1  10.1.0.6:10124  Online  true      Draining     d",
    ),
  );
});

test("get drain node prints an array of one in JSON", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: drained("d") };
  const { out } = await mayastor("get drain node mayastor-1 -o json");
  assert.deepEqual(JSON.parse(out), [drained("d")]);
});

test("cordon adds a label once", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = [{ body: plainNode }, { body: cordoned("x y") }];
  rest.answers["PUT /v0/nodes/mayastor-1/cordon/x"] = { body: cordoned("x") };
  assert.deepEqual(await mayastor("cordon node mayastor-1 x"), {
    code: 0,
    out: "Node mayastor-1 cordoned successfully\n",
    err: "",
  });
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: cordoned("x") };
  rest.requests.length = 0;
  assert.equal((await mayastor("cordon node mayastor-1 x")).code, 0);
  assert.deepEqual(asked(), ["GET /v0/nodes/mayastor-1"]);
});

test("cordon of a node without a spec says that it is not registered", async () => {
  rest.answers["GET /v0/nodes/ghost"] = { body: { id: "ghost" } };
  assert.deepEqual(await mayastor("cordon node ghost x"), {
    code: 1,
    out: "",
    err: "Node ghost is not registered\n",
  });
});

test("uncordon tells which labels remain", async () => {
  const line = "DELETE /v0/nodes/mayastor-1/cordon/x";
  rest.answers[line] = { body: plainNode };
  assert.equal(
    (await mayastor("uncordon node mayastor-1 x")).out,
    "Node mayastor-1 successfully uncordoned\n",
  );
  rest.answers[line] = { body: draining("d", "e") };
  assert.equal(
    (await mayastor("uncordon node mayastor-1 x")).out,
    'Cordon label successfully removed. Remaining cordon labels ["c", "d", "e"]\n',
  );
});

/** A clock on which sleeping takes no time. */
class FastClock extends ManualClock {
  override async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal && ms > 5_000) return new Promise(() => {}); // the deadline of a request: never
    await this.advance(ms);
  }
}

test("drain waits until the node is drained", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = [
    { body: plainNode },
    { body: draining("d") },
    { body: draining("d") },
    { body: drained("d") },
  ];
  rest.answers["PUT /v0/nodes/mayastor-1/drain/d"] = { body: draining("d") };
  const { code, out } = await mayastor("drain node mayastor-1 d", { clock: new FastClock() });
  assert.equal(out, "Node mayastor-1 successfully drained\n");
  assert.equal(code, 0);
  assert.equal(asked().filter((line) => line.startsWith("PUT")).length, 1);
});

test("drain joins one that runs, and tells when it was cancelled", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = [{ body: draining("d") }, { body: cordoned("c") }];
  const { code, err } = await mayastor("drain node mayastor-1 d", { clock: new FastClock() });
  assert.equal(err, "Node mayastor-1 drain has been cancelled\n");
  assert.equal(code, 1);
  assert.ok(asked().every((line) => line.startsWith("GET")));
});

test("drain gives up after --drain-timeout", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: draining("d") };
  const { code, err } = await mayastor("drain node mayastor-1 d --drain-timeout 5s", {
    clock: new FastClock(),
  });
  assert.equal(err, "Node mayastor-1 drain command timed out\n");
  assert.equal(code, 1);
});

test("drain says that it goes on when it is interrupted between or during its looks", async () => {
  const interrupted = new AbortController();
  class InterruptingClock extends FastClock {
    override async sleep(ms: number, signal?: AbortSignal): Promise<void> {
      if (ms === 2_000) interrupted.abort(new Error("interrupted")); // the pause between two looks
      return super.sleep(ms, signal);
    }
  }
  const look = "GET /v0/nodes/mayastor-1";
  const expected = lines(
    "The drain of node mayastor-1 goes on; uncordon the node to cancel it",
    "Interrupted",
  );
  rest.answers[look] = { body: draining("d") };
  const between = { signal: interrupted.signal, clock: new InterruptingClock() };
  assert.deepEqual(await mayastor("drain node mayastor-1 d", between), {
    ...{ code: 1, out: "", err: expected },
  });
  const later = new AbortController();
  const abort = () => later.abort(new Error("interrupted"));
  rest.answers[look] = [{ body: draining("d") }, { body: null, instead: abort }];
  const during = { signal: later.signal, clock: new FastClock() };
  assert.equal((await mayastor("drain node mayastor-1 d", during)).err, expected);
});

test("an interrupt ends a command that waits for an answer", { timeout: 30_000 }, async () => {
  const id = unshared.spec.uuid;
  for (const [line, request] of [
    [`scale volume ${id} 3`, `PUT /v0/volumes/${id}/replica_count/3`],
    ["get volumes", firstPage],
    ["drain node mayastor-1 d", "GET /v0/nodes/mayastor-1"],
  ] as const) {
    const interrupted = new AbortController();
    rest.answers[request] = { body: null, instead: () => interrupted.abort(new Error("^C")) };
    const { signal } = interrupted;
    const { code, out, err } = await mayastor(line, { signal, clock: new ManualClock() });
    assert.deepEqual([code, out], [1, ""], line);
    assert.match(err, /^Failed to .*\. Error error in request: .*: interrupted\n$/);
  }
});

test("an interrupt between two pages asks for no more", async () => {
  const interrupted = new AbortController();
  class Client extends ManualClock {
    #asked = 0;
    override sleep(ms: number, signal?: AbortSignal): Promise<void> {
      // the limit of the second request is about to be set
      if (++this.#asked === 2) interrupted.abort(new Error("^C"));
      return super.sleep(ms, signal);
    }
  }
  rest.answers[firstPage] = { body: { entries: [shared], next_token: 200 } };
  const { signal } = interrupted;
  const { code, err } = await mayastor("get volumes", { signal, clock: new Client() });
  assert.equal(code, 1);
  assert.match(err, /: interrupted\n$/);
  assert.deepEqual(asked(), [firstPage]);
});

test("a server that repeats a page is refused", { timeout: 30_000 }, async () => {
  rest.answers[firstPage] = { body: { entries: [shared], next_token: 0 } };
  const { code, err } = await mayastor("get volumes");
  assert.equal(code, 1);
  assert.match(
    err,
    /Failed to list volumes\. Error error in response: page 0 is followed by page 0/,
  );
  assert.deepEqual(asked(), [firstPage]);
});

// ---- scale, errors, forms --------------------------------------------------------------------------------------

test("scale volume", async () => {
  const id = unshared.spec.uuid;
  rest.answers[`PUT /v0/volumes/${id}/replica_count/3`] = { body: unshared };
  const { out } = await mayastor(`scale volume ${id} 3`);
  assert.equal(out, `Volume ${id} scaled successfully 🚀\n`);
  const json = await mayastor(`scale volume ${id} 3 -o json`);
  assert.equal(json.out, `${JSON.stringify(unshared)}\n`);
});

test("a failure names the resource, the status and the server's own words, with exit code 1", async () => {
  const id = unshared.spec.uuid;
  rest.answers[`GET /v0/volumes/${id}`] = {
    status: 404,
    body: { details: `Volume '${id}' not found`, message: "gone", kind: "NotFound" },
  };
  assert.deepEqual(await mayastor(`get volume ${id}`), {
    code: 1,
    out: "",
    err:
      `Failed to get volume ${id}. Error error in response: status code '404 Not Found', content: ` +
      `'RestJsonError { details: "Volume '${id}' not found", message: "gone", kind: NotFound }'\n`,
  });
});

test("a server that is not there, or not ours, is a failure with its reason", async () => {
  rest.answers["GET /v0/pools"] = { body: "<html>hello</html>" };
  assert.match((await mayastor("get pools")).err, /Failed to list pools.*content is not JSON/);
  rest.answers["GET /v0/pools"] = { body: [{ name: "x" }] };
  assert.match((await mayastor("get pools")).err, /unexpected content: .*id/);
  const { code, err } = await mayastor("get pools -r http://127.0.0.1:1");
  assert.match(err, /^Failed to list pools\. Error error in request: .*ECONNREFUSED/);
  assert.equal(code, 1);
});

test("fields and states of a newer server pass", async () => {
  const newer = {
    ...plainNode,
    spec: { ...plainNode.spec, version: "9.0.0", labels: { zone: "a" } },
    state: { ...plainNode.state, status: "Rebooting" },
  };
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: newer };
  assert.match((await mayastor("get node mayastor-1")).out, /Rebooting/);
});

test("-o yaml prints a document", async () => {
  rest.answers["GET /v0/nodes/mayastor-1"] = { body: plainNode };
  const { out } = await mayastor("get node mayastor-1 -o yaml");
  assert.equal(
    out,
    lines(
      "---",
      "id: mayastor-1",
      "spec:",
      "  grpcEndpoint: 10.1.0.6:10124",
      "  id: mayastor-1",
      "state:",
      "  grpcEndpoint: 10.1.0.6:10124",
      "  id: mayastor-1",
      "  status: Online",
    ),
  );
});

test("a bad command line is refused before anything is asked", async () => {
  for (const line of [
    "get volume not-a-uuid",
    "scale volume 18e30e83-b106-4e0d-9fb6-2b04e761e18a 0",
    "get nodes -o xml",
    "get nodes -t soon",
    "frobnicate",
    "drain node mayastor-1",
  ]) {
    const { code, err } = await mayastor(line);
    assert.equal(code, 1, line);
    assert.match(err, /^error: /, line);
  }
  assert.deepEqual(asked(), []);
});

test("--version and --help", async () => {
  assert.deepEqual(await mayastor("-V"), { code: 0, out: "kubectl-plugin 1.2.3\n", err: "" });
  const help = await mayastor("get --help");
  assert.equal(help.code, 0);
  assert.match(help.out, /volume-replica-topologies/);
});

test("get pools: the reason of a pool that is not healthy is on stderr, the table as published; JSON carries it", async () => {
  const status_reason = {
    code: "import-failed",
    message: "Pool p cannot be imported: damaged.",
    since: "2026-01-01T00:00:00.000Z",
    next_step: "Mend it.",
  };
  const pool: Pool = {
    id: "p",
    spec: { disks: ["/dev/sdb"], id: "p", node: "n", status: "Created" },
    status_reason,
  };
  rest.answers["GET /v0/pools"] = { body: [pool] };
  const people = await mayastor("get pools");
  assert.equal(
    people.err,
    "pool p Unknown: Pool p cannot be imported: damaged. (since 2026-01-01T00:00:00.000Z) Next step: Mend it.\n",
  );
  assert.equal(people.out.split("\n").length, 3);
  const json = await mayastor("get pools -o json");
  assert.deepEqual(JSON.parse(json.out), [pool]);
  assert.equal(json.err, "");
});

const purgeCost: PurgeCost = {
  ...{ kind: "pool", id: "p", pools: ["p"], replicas: 1, unowned: 0, targets: [] },
  volumes: [{ volume: "v1", replicas: ["r1"], wanted: 3, left: 2, last_copy: false }],
  last_copies: 0,
};

test("delete pool --purge shows what it costs, then asks for it", async () => {
  rest.answers["GET /v0/pools/p/purge"] = { body: purgeCost };
  rest.answers["DELETE /v0/pools/p/purge?last_copies=false"] = { body: purgeCost };
  const { code, out } = await mayastor("delete pool p --purge");
  assert.equal(code, 0);
  assert.equal(
    out,
    lines(
      "Purging pool p gives up 1 replica for good:",
      "  volume v1: 2 complete copies of 3 left; healed elsewhere if its policy allows",
      "Pool p purged",
    ),
  );
});

test("delete pool --purge keeps a last copy unless --last-copies is typed; --dry-run changes nothing", async () => {
  const [of] = purgeCost.volumes;
  assert.ok(of);
  const cost = { ...purgeCost, last_copies: 1, volumes: [{ ...of, left: 0, last_copy: true }] };
  rest.answers["GET /v0/pools/p/purge"] = { body: cost };
  rest.answers["DELETE /v0/pools/p/purge?last_copies=true"] = { body: cost };
  const kept = await mayastor("delete pool p --purge");
  assert.equal(kept.code, 1);
  assert.match(kept.out, /LAST COPY/);
  assert.match(kept.err, /--last-copies/);
  await mayastor("delete pool p --purge --last-copies --dry-run");
  assert.deepEqual(new Set(asked()), new Set(["GET /v0/pools/p/purge"]));
  assert.equal((await mayastor("delete pool p --purge --last-copies")).code, 0);
});

test("delete without --purge asks for nothing", async () => {
  for (const what of ["pool p", "node n"]) {
    assert.equal((await mayastor(`delete ${what}`)).code, 1);
  }
  assert.deepEqual(asked(), []);
});

test("delete node --purge", async () => {
  const cost = { ...purgeCost, kind: "node" as const, id: "n", targets: ["v1"] };
  rest.answers["GET /v0/nodes/n/purge"] = { body: cost };
  rest.answers["DELETE /v0/nodes/n/purge?last_copies=false"] = { body: cost };
  const { code, out } = await mayastor("delete node n --purge");
  assert.equal(code, 0);
  assert.match(out, /target of volume v1/);
  assert.match(out, /Node n purged/);
});
