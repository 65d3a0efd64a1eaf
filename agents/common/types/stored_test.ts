/** Stored documents: the documented examples read and are written again unchanged; operations commit as published. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { encodeJson } from "../store/json.ts";
import { NexusInfoSchema, RegistryConfigSchema } from "./cluster.ts";
import { commitNexus, NexusSpecSchema } from "./nexus.ts";
import { cordon, drain, markDrained, NodeSpecSchema, uncordon } from "./node.ts";
import { PoolSpecSchema } from "./pool.ts";
import { commitReplica, poolOf, poolUuidOf, ReplicaSpecSchema } from "./replica.ts";
import { decodeStored } from "./stored.ts";
import { commitVolume, type VolumeSpec, VolumeSpecSchema } from "./volume.ts";

const VOLUME = "bf207797-b23d-447a-8d3f-98d378acfa8a";
const NEXUS = "069feb5e-ec65-4e97-b094-99262dfc9f44";
const REPLICA = "8929e13f-99c0-4830-bcc2-d4b12a541b97";

/** As the user documentation shows them in etcd. */
const DOCUMENTED_VOLUME = `{"uuid":"${VOLUME}","size":1073741824,"labels":{"local":"true"},"num_replicas":3,"status":{"Created":"Online"},"policy":{"self_heal":true},"topology":{"node":{"Explicit":{"allowed_nodes":["worker-1","worker-2","master","worker-0"],"preferred_nodes":["worker-2","master","worker-0","worker-1"]}},"pool":{"Labelled":{"exclusion":{},"inclusion":{"openebs.io/created-by":"operator-diskpool"}}}},"last_nexus_id":"${NEXUS}","operation":null,"thin":false,"target":{"node":"worker-0","nexus":"${NEXUS}","protocol":"nvmf","active":true,"config":{"controllerIdRange":{"start":1,"end":65519},"reservationKey":1,"reservationType":"ExclusiveAccess","preemptPolicy":"Holder"},"frontend":{"host_acl":[]}},"publish_context":null,"volume_group":null}`;
const DOCUMENTED_REPLICA = `{"name":"${REPLICA}","uuid":"${REPLICA}","size":1073741824,"pool":"pool-1","share":"nvmf","thin":false,"status":{"Created":"online"},"managed":true,"owners":{"volume":"${VOLUME}"},"operation":null}`;
const DOCUMENTED_POOL = `{"node":"worker-0","id":"pool-0","disks":["/dev/nvme0n1"],"status":{"Created":"Online"},"labels":{"openebs.io/created-by":"operator-diskpool"},"operation":null}`;
const DOCUMENTED_NEXUS = `{"uuid":"${NEXUS}","name":"${VOLUME}","node":"worker-0","children":[{"Replica":{"uuid":"${REPLICA}","share_uri":"nvmf://10.20.30.57:8420/nqn.2019-05.io.openebs:${REPLICA}?uuid=${REPLICA}"}}],"size":1073741824,"spec_status":{"Created":"Online"},"share":"nvmf","managed":true,"owner":"${VOLUME}","operation":null}`;

describe("decodeStored()", () => {
  test("reads the documented volume and writes it again, with what later releases added", () => {
    const spec = decodeStored(VolumeSpecSchema, DOCUMENTED_VOLUME, "key");
    assert.equal(spec.num_replicas, 3);
    assert.equal(spec.affinity_group, null);
    const again = JSON.parse(encodeJson(spec));
    const added = { affinity_group: null, publication: null };
    assert.deepEqual(again, { ...JSON.parse(DOCUMENTED_VOLUME), ...added });
  });

  test("reads the documented replica, pool, nexus and node", () => {
    const replica = decodeStored(ReplicaSpecSchema, DOCUMENTED_REPLICA, "key");
    assert.deepEqual(replica.owners, { volume: VOLUME, disown_all: false });
    assert.deepEqual(replica.allowed_hosts, []);
    assert.equal(poolOf(replica), "pool-1");
    const pool = decodeStored(PoolSpecSchema, DOCUMENTED_POOL, "key");
    assert.equal(encodeJson(pool), DOCUMENTED_POOL);
    const nexus = decodeStored(NexusSpecSchema, DOCUMENTED_NEXUS, "key");
    assert.deepEqual(nexus.status_info, { shutdown_failed: false });
    assert.equal(nexus.nvmf_config, null);
    const node = `{"id":"worker-0","endpoint":"10.20.30.56:10124","labels":{}}`;
    assert.deepEqual(decodeStored(NodeSpecSchema, node, "key").draining_volumes, []);
  });

  test("reads a pool given by name and uuid", () => {
    const value = DOCUMENTED_REPLICA.replace(`"pool-1"`, `["pool-1","${NEXUS}"]`);
    const replica = decodeStored(ReplicaSpecSchema, value, "key");
    assert.deepEqual([poolOf(replica), poolUuidOf(replica)], ["pool-1", NEXUS]);
  });

  test("reads NexusInfo and the registry configuration", () => {
    const info = `{"children":[{"healthy":true,"uuid":"${REPLICA}"}],"clean_shutdown":false}`;
    assert.equal(encodeJson(decodeStored(NexusInfoSchema, info, "key")), info);
    const config = `{"id":"db98f8bb-4afc-45d0-85b9-24c99cc443f2","registration":"Automatic","mayastor_compat_v1":true}`;
    assert.equal(encodeJson(decodeStored(RegistryConfigSchema, config, "key")), config);
  });

  test("names the key and the field it refuses", () => {
    const bad = DOCUMENTED_VOLUME.replace(`"num_replicas":3`, `"num_replicas":"3"`);
    assert.throws(
      () => decodeStored(VolumeSpecSchema, bad, "/the/key"),
      /\/the\/key.*num_replicas/s,
    );
  });

  test("keeps a 64-bit reservation key exactly", () => {
    const key = "18446744073709551615";
    const value = DOCUMENTED_VOLUME.replace(`"reservationKey":1`, `"reservationKey":${key}`);
    const spec = decodeStored(VolumeSpecSchema, value, "key");
    assert.ok(encodeJson(spec).includes(`"reservationKey":${key}`));
  });

  test("reads every published volume operation", () => {
    const target = JSON.parse(DOCUMENTED_VOLUME).target;
    const operations = [
      "Create",
      "Destroy",
      { Share: "nvmf" },
      "Unshare",
      { SetReplica: 2 },
      { Publish: ["worker-0", NEXUS, "nvmf"] },
      { Publish2: { config: target, publish_context: { a: "b" } } },
      { Republish: { config: target } },
      "Unpublish",
      { RemoveUnusedReplica: REPLICA },
    ];
    for (const operation of operations) {
      for (const result of [null, true, false]) {
        const value = { ...JSON.parse(DOCUMENTED_VOLUME), operation: { operation, result } };
        const spec = decodeStored(VolumeSpecSchema, JSON.stringify(value), "key");
        assert.deepEqual(JSON.parse(encodeJson(spec)).operation, { operation, result });
      }
    }
  });
});

describe("commit", () => {
  const spec: VolumeSpec = decodeStored(VolumeSpecSchema, DOCUMENTED_VOLUME, "key");

  test("commitVolume() has the published effects", () => {
    assert.equal(commitVolume(spec, "Destroy"), null);
    assert.equal(commitVolume(spec, { SetReplica: 2 })?.num_replicas, 2);
    assert.equal(commitVolume(spec, "Unshare")?.target?.protocol, null);
    const gone = commitVolume(spec, "Unpublish");
    assert.equal(gone?.target?.active, false);
    assert.equal(gone?.target?.nexus, NEXUS, "the last nexus is remembered");
    const old = commitVolume(spec, { Publish: ["worker-1", NEXUS, "nvmf"] });
    assert.equal(old?.target?.config.reservationType, "Reserved");
    assert.equal(old?.last_nexus_id, null);
  });

  test("commitNexus() adds and removes children by URI and persists a shutdown", () => {
    const nexus = decodeStored(NexusSpecSchema, DOCUMENTED_NEXUS, "key");
    const child = { Uri: "nvmf://a:8420/b" };
    const more = commitNexus(nexus, { AddChild: child });
    assert.equal(more?.children.length, 2);
    assert.equal(more && commitNexus(more, { RemoveChild: child })?.children.length, 1);
    assert.deepEqual(commitNexus(nexus, "Shutdown")?.spec_status, { Created: "Shutdown" });
  });

  test("commitReplica() shares with hosts and forgets them with the share", () => {
    const replica = decodeStored(ReplicaSpecSchema, DOCUMENTED_REPLICA, "key");
    const shared = commitReplica(replica, { Share: ["nvmf", ["nqn.a"]] });
    assert.deepEqual(shared?.allowed_hosts, ["nqn.a"]);
    assert.deepEqual(shared && commitReplica(shared, "Unshare")?.allowed_hosts, []);
  });
});

describe("cordon and drain labels", () => {
  const node = decodeStored(NodeSpecSchema, `{"id":"n","endpoint":"e:1","labels":{}}`, "key");
  const state = (spec: typeof node) => spec.cordon_drain_state;

  test("follow the published table", () => {
    const cordoned = cordon(node, "L");
    assert.deepEqual(state(cordoned), { Cordoned: { cordonlabels: ["L"] } });
    assert.deepEqual(state(cordon(cordoned, "M")), { Cordoned: { cordonlabels: ["L", "M"] } });
    const draining = drain(cordoned, "D");
    assert.deepEqual(state(draining), { Draining: { cordonlabels: ["L"], drainlabels: ["D"] } });
    const drained = markDrained(draining);
    assert.deepEqual(state(drain(drained, "E")), {
      Drained: { cordonlabels: ["L"], drainlabels: ["D", "E"] },
    });
    assert.deepEqual(state(uncordon(draining, "D")), { Cordoned: { cordonlabels: ["L"] } });
    assert.equal(state(uncordon(cordoned, "L")), undefined);
    assert.equal("cordon_drain_state" in uncordon(cordoned, "L"), false);
  });

  test("are unique over both lists", () => {
    const both = drain(cordon(node, "L"), "D");
    for (const label of ["L", "D"]) {
      assert.throws(() => cordon(both, label), { kind: "failed-precondition" });
      assert.throws(() => drain(both, label), { kind: "failed-precondition" });
    }
    assert.throws(() => uncordon(both, "X"), { kind: "failed-precondition" });
  });

  test("leaving Draining forgets the volumes that were moved", () => {
    const draining = { ...drain(node, "D"), draining_volumes: [VOLUME] };
    assert.deepEqual(uncordon(draining, "D").draining_volumes, []);
  });
});
