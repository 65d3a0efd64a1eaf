import assert from "node:assert/strict";
import { test } from "node:test";
import { buildZone, type Endpoints, lookUp, type Service } from "./dns_records.ts";
import { parseQuestion, respond, UDP_BYTES_MAX } from "./dns_wire.ts";

const services: readonly Service[] = [
  {
    metadata: { name: "core", namespace: "mayastor" },
    spec: { clusterIP: "10.96.3.4", ports: [{ name: "grpc", port: 50051, protocol: "TCP" }] },
  },
  {
    metadata: { name: "etcd-headless", namespace: "mayastor" },
    spec: { clusterIP: "None", ports: [{ name: "client", port: 2379 }] },
  },
  {
    metadata: { name: "outside", namespace: "mayastor" },
    spec: { type: "ExternalName", externalName: "core.mayastor.svc.cluster.local" },
  },
];
const endpoints: readonly Endpoints[] = [
  {
    metadata: { name: "etcd-headless", namespace: "mayastor" },
    subsets: [
      {
        addresses: [{ ip: "10.244.1.2", hostname: "etcd-0" }, { ip: "10.244.2.2" }],
        ports: [{ name: "client", port: 2379 }],
      },
    ],
  },
];
const zone = buildZone(services, endpoints, "cluster.local");

test("buildZone() gives a Service its address, port and reverse name", () => {
  assert.deepEqual(lookUp(zone, "Core.mayastor.svc.cluster.local.", "A"), {
    found: "records",
    records: [{ type: "A", address: "10.96.3.4", name: "core.mayastor.svc.cluster.local" }],
  });
  const port = lookUp(zone, "_grpc._tcp.core.mayastor.svc.cluster.local", "SRV");
  assert.equal(port.found === "records" && port.records[0]?.type, "SRV");
  const reverse = lookUp(zone, "4.3.96.10.in-addr.arpa", "PTR");
  assert.deepEqual(reverse.found === "records" && reverse.records.map((r) => "target" in r), [
    true,
  ]);
});

test("buildZone() gives each pod of a headless Service a name, by host name or address", () => {
  const of = (name: string) => {
    const answer = lookUp(zone, `${name}.mayastor.svc.cluster.local`, "A");
    return answer.found === "records"
      ? answer.records.map((record) => (record.type === "A" ? record.address : record.type))
      : answer.found;
  };
  assert.deepEqual(of("etcd-headless"), ["10.244.1.2", "10.244.2.2"]);
  assert.deepEqual(of("etcd-0.etcd-headless"), ["10.244.1.2"]);
  assert.deepEqual(of("10-244-2-2.etcd-headless"), ["10.244.2.2"]);
  assert.deepEqual(of("etcd-1.etcd-headless"), "nothing");
  assert.deepEqual(of("outside"), ["CNAME", "10.96.3.4"]);
});

test("lookUp() tells a name without such records from one that does not exist", () => {
  assert.equal(lookUp(zone, "core.mayastor.svc.cluster.local", "AAAA").found, "name-only");
  assert.equal(lookUp(zone, "mayastor.svc.cluster.local", "A").found, "name-only");
  assert.equal(lookUp(zone, "core.other.svc.cluster.local", "A").found, "nothing");
  assert.equal(lookUp(zone, "example.org", "A").found, "nothing");
});

function query(name: string, type: number): Buffer {
  const labels = name.split(".").map((label) => String.fromCharCode(label.length) + label);
  const header = Buffer.from([0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, Buffer.from(`${labels.join("")}\0`), Buffer.from([0, type, 0, 1])]);
}
const ask = (message: Buffer, bytesMax = UDP_BYTES_MAX) =>
  respond(message, (name, type) => lookUp(zone, name, type), bytesMax);

test("respond() repeats id and question and carries the address", () => {
  const message = query("core.mayastor.svc.cluster.local", 1);
  const answer = ask(message);
  assert.ok(answer);
  assert.equal(answer.readUInt16BE(0), 0xabcd);
  assert.equal(answer.readUInt16BE(2) & 0x800f, 0x8000); // a response, no error
  assert.equal(answer.readUInt16BE(6), 1);
  assert.deepEqual([...answer.subarray(-4)], [10, 96, 3, 4]);
  assert.deepEqual(parseQuestion(answer)?.name, "core.mayastor.svc.cluster.local");
});

test("respond() says NXDOMAIN for an unknown name and marks an answer that does not fit", () => {
  assert.equal((ask(query("example.org", 1))?.readUInt16BE(2) ?? 0) & 0xf, 3);
  const cut = ask(query("etcd-headless.mayastor.svc.cluster.local", 1), 80);
  assert.ok(cut);
  assert.equal(cut.readUInt16BE(2) & 0x0200, 0x0200);
  assert.equal(cut.readUInt16BE(6), 0);
});

test("respond() takes any bytes: each prefix of a query, and each byte of it changed", () => {
  const message = query("etcd-0.etcd-headless.mayastor.svc.cluster.local", 33);
  for (let length = 0; length < message.length; length++) {
    const answer = ask(message.subarray(0, length));
    if (length < 12) assert.equal(answer, null);
    else assert.equal((answer?.readUInt16BE(2) ?? 0) & 0xf, 1);
  }
  for (let at = 0; at < message.length; at++) {
    const bent = Buffer.from(message);
    bent[at] = 0xff;
    assert.doesNotThrow(() => ask(bent));
  }
});
