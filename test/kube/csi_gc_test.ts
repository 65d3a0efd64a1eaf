/**
 * csi-controller's garbage collector on a real API server, with real PersistentVolumes, a real api-rest and an engine:
 * as it is deployed, with its own token.
 * What counts: a volume that a PersistentVolume stands for, or may come to stand for, is never deleted.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { ControlPlane } from "../../hack/cluster/kube/control_plane.ts";
import { LocalCluster, until } from "../../hack/cluster/local.ts";
import { snapshotInstalls, synthesize } from "../../infra/snapshots.ts";
import { ownPlace, QUICK_CORE } from "../support/cluster.ts";
import { clearOnSignal } from "../support/interrupts.ts";
import { KubeApi } from "../support/kube/api.ts";
import { CleanupStack } from "../support/kube/cleanup.ts";
import { startControlPlane } from "../support/kube/plane.ts";
import { Program } from "../support/kube/programs.ts";

const NS = "mayastor";
const PVS = "/api/v1/persistentvolumes";
const CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims";
const MIB = 1024 * 1024;
/** The grace period of orphans, the pauses before the first pass succeeds, and what a busy machine adds. */
const ORPHAN_SEC = 60 + 30 + 60;

const uuidOf = (n: number) => `5f0e8c1a-7d11-4b7e-9a6e-0000000000${String(n).padStart(2, "0")}`;
const pvName = (uuid: string) => `pvc-${uuid}`;

describe("the volume garbage collector on a real API server", { concurrency: false }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-test-"));
  const cleanup = new CleanupStack();
  cleanup.after(() => LocalCluster.clear(folder));
  clearOnSignal(folder);
  let api: KubeApi;
  let plane: ControlPlane;
  let cluster: LocalCluster;
  let controller: Program;

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
        ...{ folder, engines: 1, diskMiB: 512, coreArgs: QUICK_CORE, ...ownPlace(1) },
      });
      await cluster.start();
      await cluster.createPools();
      controller = await Program.create(cleanup, {
        ...{ plane, processes: cluster.processes, folder, namespace: NS },
        ...{ name: "csi-controller", serviceAccount: "mayastor-csi-controller" },
        main: "agents/csi-controller/main.ts",
        args: ["--rest-endpoint", cluster.rest.url, "--csi-socket", path.join(folder, "csi.sock")],
      });
    },
    { timeout: 300_000 },
  );
  after(() => cleanup.run());

  const makeVolume = async (uuid: string) => {
    await cluster.rest.request("PUT", `/volumes/${uuid}`, {
      ...{ size: 8 * MIB, replicas: 1, thin: false, policy: { self_heal: true } },
    });
  };
  const makePv = async (
    uuid: string,
    { policy = "Retain", name = pvName(uuid), claim = "" } = {},
  ) => {
    await api.must("POST", PVS, {
      body: {
        ...{ apiVersion: "v1", kind: "PersistentVolume", metadata: { name } },
        spec: {
          ...{ capacity: { storage: "8Mi" }, accessModes: ["ReadWriteOnce"] },
          ...{ persistentVolumeReclaimPolicy: policy, storageClassName: "by-hand" },
          ...(claim === "" ? {} : { claimRef: { namespace: "default", name: claim } }),
          csi: { driver: "io.openebs.csi-mayastor", volumeHandle: uuid },
        },
      },
    });
  };
  const makeClaim = async (name: string, uuid: string) => {
    await api.must("POST", CLAIMS, {
      body: {
        ...{ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name } },
        spec: {
          ...{ accessModes: ["ReadWriteOnce"], storageClassName: "by-hand" },
          ...{ resources: { requests: { storage: "8Mi" } }, volumeName: pvName(uuid) },
        },
      },
    });
  };
  const endClaim = async (name: string) => {
    await api.must("DELETE", `${CLAIMS}/${name}`);
  };
  const phaseOf = async (uuid: string) => {
    const status = (await api.find(`${PVS}/${pvName(uuid)}`))?.["status"] as { phase?: string };
    return status?.phase ?? "gone";
  };
  const untilPhase = (uuid: string, phase: string) =>
    until(`${pvName(uuid)} ${phase}`, async () => (await phaseOf(uuid)) === phase, { seconds: 60 });
  /** A PersistentVolume whose claim has come and gone: its end orders the volume away. */
  const makeReleased = async (uuid: string) => {
    const claim = `claim-${uuid.slice(-2)}`;
    await makePv(uuid, { claim });
    await makeClaim(claim, uuid);
    await untilPhase(uuid, "Bound");
    await endClaim(claim);
    await untilPhase(uuid, "Released");
  };
  const volumes = async () =>
    (await cluster.rest.volumes()).entries.map(({ spec }) => spec.uuid).sort();
  const untilVolumes = async (wanted: readonly string[], seconds = 150) => {
    let seen: readonly string[] = [];
    try {
      await until(
        "volumes",
        async () => {
          seen = await volumes();
          return JSON.stringify(seen) === JSON.stringify(wanted.toSorted());
        },
        { seconds },
      );
    } catch (error) {
      assert.deepEqual(seen, wanted.toSorted(), `${String(error)}\n${controller.tail()}`);
    }
  };

  const [orphan, published, retained, deletable, byHand] = [1, 2, 3, 4, 5].map(uuidOf) as [
    ...[string, string, string, string, string], // five were asked for
  ];
  const [late, bound, gone, freed] = [6, 7, 8, 9].map(uuidOf) as [
    ...[string, string, string, string], // four
  ];
  const kept = [published, retained, deletable, byHand];

  test("deletes orphans, however late the API server is there, and nothing else", {
    timeout: 400_000,
  }, async () => {
    for (const uuid of [orphan, ...kept]) await makeVolume(uuid);
    const [node] = cluster.nodes;
    assert.ok(node);
    await cluster.rest.publish(published, node.name);
    await makeReleased(retained);
    await makePv(deletable, { policy: "Delete" });
    await makePv(byHand, { name: "static-volume" });
    controller.recorder.cut();
    controller.start();
    await until(
      "a first try",
      async () => controller.tail(50).includes("cannot be collected yet"),
      {
        seconds: 60,
      },
    );
    assert.equal((await volumes()).length, 5, "nothing is deleted on an incomplete view");
    controller.recorder.mend();
    await until(
      "both lists",
      async () => controller.recorder.answered().some(({ verb }) => verb === "list"),
      {
        seconds: 90,
      },
    );
    // Its PersistentVolume comes within the grace period, as a provisioner's does.
    await makeVolume(late);
    await makeReleased(late);
    await untilVolumes([...kept, late], ORPHAN_SEC);
  });

  test("deletes the volume of a Retain-ed PersistentVolume that was deleted", async () => {
    await api.must("DELETE", `${PVS}/${pvName(retained)}`);
    await untilVolumes([published, deletable, byHand, late]);
  });

  test("spares it while a claim is bound to the PersistentVolume", async () => {
    await makeVolume(bound);
    await makePv(bound, { claim: "claim" });
    await makeClaim("claim", bound);
    await untilPhase(bound, "Bound");
    const { status } = await api.call("DELETE", `${PVS}/${pvName(bound)}`);
    assert.equal(status, 200);
    const pv = await api.find(`${PVS}/${pvName(bound)}`);
    assert.ok(pv?.metadata.deletionTimestamp, "it is being deleted, but a claim protects it");
    // Something later that is certainly seen after it.
    await makeVolume(gone);
    await makeReleased(gone);
    await api.must("DELETE", `${PVS}/${pvName(gone)}`);
    await untilVolumes([published, deletable, byHand, late, bound]);
    await endClaim("claim");
    await untilPhase(bound, "gone");
    await untilVolumes([published, deletable, byHand, late]);
  });

  test("spares it while it is published, and while its PersistentVolume is freed for another claim", async () => {
    const [node] = cluster.nodes;
    assert.ok(node);
    await makeVolume(freed);
    await makeReleased(freed);
    await api.must("PATCH", `${PVS}/${pvName(freed)}`, {
      ...{ body: { spec: { claimRef: null } }, patch: "merge" },
    });
    await untilPhase(freed, "Available");
    await api.must("DELETE", `${PVS}/${pvName(freed)}`);
    await makeVolume(gone);
    await cluster.rest.publish(gone, node.name);
    await makeReleased(gone);
    await api.must("DELETE", `${PVS}/${pvName(gone)}`);
    await until("it is put off", async () =>
      controller.tail(50).includes("deleted once it is not"),
    );
    const spared = [published, deletable, byHand, late, freed];
    assert.deepEqual(await volumes(), [...spared, gone].sort());
    await cluster.rest.unpublish(gone);
    await untilVolumes(spared);
  });

  test("leaves a PersistentVolume with policy Delete, and one made by hand, to others", async () => {
    await api.must("DELETE", `${PVS}/${pvName(deletable)}`);
    await api.must("DELETE", `${PVS}/static-volume`);
    await until("both gone", async () => (await api.list(PVS)).length === 1);
    // Something later that is certainly seen after them.
    await makeVolume(gone);
    await makeReleased(gone);
    await api.must("DELETE", `${PVS}/${pvName(gone)}`);
    await untilVolumes([published, deletable, byHand, late, freed]);
  });

  test("sees what was deleted while it was cut off, though history is lost", {
    timeout: 240_000,
  }, async () => {
    await makeVolume(gone);
    await makeReleased(gone);
    await until("the watch to tell", async () =>
      controller.recorder.answered().some(({ verb }) => verb === "watch"),
    );
    controller.recorder.cut();
    await api.must("DELETE", `${PVS}/${pvName(late)}`);
    // This one is deleted and made again: in the end it is there, so its volume stays.
    await api.must("DELETE", `${PVS}/${pvName(gone)}`);
    await until("it is gone", async () => (await phaseOf(gone)) === "gone");
    await makePv(gone);
    await plane.restartApiServer();
    controller.recorder.mend();
    await untilVolumes([published, deletable, byHand, freed, gone], 200);
    assert.notEqual(await phaseOf(gone), "gone");
  });

  test("was never refused anything and stops in good order", async () => {
    const { calls } = controller.recorder;
    assert.deepEqual(
      calls.filter(({ status }) => status === 401 || status === 403),
      [],
    );
    assert.deepEqual(
      [...new Set(calls.map(({ verb, resource }) => `${verb} ${resource}`))].sort(),
      ["get persistentvolumes", "list persistentvolumes", "watch persistentvolumes"],
    );
    await controller.end();
    assert.match(controller.tail(3), /"stopped"/);
  });
});
