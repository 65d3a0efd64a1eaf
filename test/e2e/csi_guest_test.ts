import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { untilOnline, untilStatus } from "../support/cluster.ts";
import type { Call, CsiClient, Outcome } from "../support/csi/client.ts";
import { startCsiCluster } from "../support/csi/cluster.ts";
import {
  block,
  CsiGuest,
  contextInGuest,
  mount,
  publish,
  stage,
  stagingOf,
  succeeded,
  targetOf,
  unpublish,
  unstage,
} from "../support/vm/csi_guest.ts";
import { untilWritten } from "../support/vm/vm.ts";

const MIB = 1024 * 1024;
const EXT4 = "ec4e66fb-3b33-4439-b504-d49aba53da26";
const XFS = "9b1f04e3-1c0a-4b0e-9a53-6f5d2c1b7a10";
/** Its mounts have a device number of their own, so all that finds them is the name of their device. */
const BTRFS = "c0d2a3f4-9b77-4e0d-8a51-2f6b7c8d9e01";
/** The guest plays the application on this storage node: its nexus is on the host's 127.0.0.1. */
const NODE = "node-1";

function publishToNode(
  controller: CsiClient,
  volumeId: string,
  volumeContext: Readonly<Record<string, string>> & { readonly fsType: string },
): Promise<Outcome> {
  const volumeCapability = mount(volumeContext.fsType);
  return controller.call("ControllerPublishVolume", {
    ...{ volumeId, nodeId: NODE, volumeCapability, volumeContext },
  });
}

/** Makes the volume and publishes it to the node; the context as the guest needs it. */
async function provision(
  controller: CsiClient,
  {
    uuid,
    bytes,
    fsType,
    ioTimeout,
  }: { uuid: string; bytes: number; fsType: string; ioTimeout: string },
): Promise<Record<string, string>> {
  const parameters = { repl: "3", protocol: "nvmf", ioTimeout, fsType };
  const created = await controller.call("CreateVolume", {
    name: `pvc-${uuid}`,
    capacityRange: { requiredBytes: String(bytes) },
    volumeCapabilities: [mount(fsType)],
    parameters,
  });
  succeeded([created]);
  const published = await publishToNode(controller, uuid, parameters);
  const context = contextInGuest(published);
  assert.match(
    context["uri"] ?? "",
    new RegExp(`^nvmf://10\\.0\\.2\\.2:4421/nqn\\.2019-05\\.io\\.openebs:${uuid}\\?hostnqn=`),
  );
  return context;
}

test("csi-node on a stock kernel keeps a file system through a lost replica, a crash of its own and a reboot", async (t) => {
  const { cluster, controller, bundles } = await startCsiCluster(t);
  const ext4 = await provision(controller, {
    uuid: EXT4,
    bytes: 128 * MIB,
    fsType: "ext4",
    ioTimeout: "40",
  });
  const xfs = await provision(controller, {
    uuid: XFS,
    bytes: 320 * MIB,
    fsType: "xfs",
    ioTimeout: "8",
  });
  const btrfs = await provision(controller, {
    uuid: BTRFS,
    bytes: 128 * MIB,
    fsType: "btrfs",
    ioTimeout: "40",
  });

  const podFolders = [EXT4, XFS, BTRFS].flatMap((uuid) =>
    ["a", "b"].map((pod) => path.dirname(targetOf(uuid, pod))),
  );

  let guest = await CsiGuest.boot(bundles, NODE);
  t.after(() => guest.vm.close());
  t.diagnostic(`guest kernel ${guest.vm.kernelVersion}`);
  await guest.sh(`mkdir -p ${podFolders.map((name) => `'${name}'`).join(" ")}`);

  // Every call twice: the repeat finds all done.
  const up: Call[] = [
    stage(EXT4, ext4, mount("ext4")),
    stage(XFS, xfs, mount("xfs")),
    publish(EXT4, "a", mount("ext4")),
    publish(EXT4, "b", mount("ext4"), true),
    publish(XFS, "a", mount("xfs")),
    stage(BTRFS, btrfs, mount("btrfs")),
    publish(BTRFS, "a", mount("btrfs")),
    publish(BTRFS, "b", mount("btrfs"), true),
  ];
  const [info, ...raised] = await guest.call([
    ["NodeGetInfo", {}],
    ...up.flatMap((call) => [call, call]),
  ]);
  assert.deepEqual(info?.reply, {
    nodeId: NODE,
    accessibleTopology: {
      segments: { "openebs.io/csi-node": "mayastor", "openebs.io/nodename": NODE },
    },
  });
  succeeded(raised);
  const timeouts = await guest.sh(`for c in /sys/class/nvme/nvme*; do
      echo $(cat $c/subsysnqn) $(cat $c/ctrl_loss_tmo) $(cat $c/reconnect_delay) $(cat $c/nvme*c*n*/queue/io_timeout)
    done`);
  assert.match(timeouts, new RegExp(`${EXT4} 40 10 40000`));
  assert.match(timeouts, new RegExp(`${XFS} 8 1 8000`));
  await guest.sh(`echo kept >'${targetOf(EXT4, "a")}/file'; echo kept >'${targetOf(XFS, "a")}/file'
    echo kept >'${targetOf(BTRFS, "a")}/file'; sync
    for b in '${targetOf(EXT4, "b")}' '${targetOf(BTRFS, "b")}'; do ! touch "$b/refused" 2>/dev/null; done
    test "$(cat '${targetOf(EXT4, "b")}/file')" = kept`);

  // A replica is lost and rebuilt, and the plugin dies and comes back, while fio verifies what it writes.
  const verify = (uuid: string) =>
    `fio --name=verify --directory='${targetOf(uuid, "a")}' --size=8M --rw=randrw --bs=4k --iodepth=4 --ioengine=libaio \
      --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --time_based=1 --runtime=20 --verify_backlog=128 2>&1`;
  const running = [EXT4, XFS].map((uuid) => guest.vm.run(verify(uuid), 240));
  for (const uuid of [EXT4, XFS]) {
    const device = await guest.sh(`basename $(findmnt -n -o SOURCE '${targetOf(uuid, "a")}')`);
    await guest.sh(untilWritten(device.trim(), 50)); // fio is at it
  }
  const victim = cluster.nodes[2];
  assert.ok(victim);
  await cluster.endEngine(victim, "SIGKILL");
  await untilStatus(cluster, EXT4, "Degraded");
  await guest.killPlugin();
  await guest.startPlugin();
  cluster.startEngine(victim);
  await Promise.all([EXT4, XFS].map((uuid) => untilOnline(cluster, uuid, 180)));
  for (const { code, stdout } of await Promise.all(running)) {
    assert.equal(code, 0, `fio: ${stdout}\n${guest.vm.consoleTail()}`);
    assert.doesNotMatch(stdout, /verify: bad|err= *[1-9]/);
  }

  // The target of one volume is away for longer than the volume waits: its device is lost, and so is what is mounted.
  const statsOf = (volumeId: string): Call => [
    "NodeGetVolumeStats",
    { volumeId, volumePath: targetOf(volumeId, "a") },
  ];
  const device = (
    await guest.sh(`basename $(findmnt -n -o SOURCE '${targetOf(XFS, "a")}')`)
  ).trim();
  await cluster.rest.unpublish(XFS);
  await guest.sh(`while [ -e /sys/block/${device} ]; do sleep 0.2; done`);
  const [unattached] = await guest.call([statsOf(XFS)]);
  assert.match(JSON.stringify(unattached?.reply), /"abnormal":true.*not attached/);
  // The guest did not say farewell: the next publication has a name of its own, which an old controller cannot reach.
  const xfsAgain = contextInGuest(
    await publishToNode(controller, XFS, { fsType: "xfs", ioTimeout: "8" }),
  );
  assert.match(xfsAgain["uri"] ?? "", new RegExp(`:${XFS}:1\\?hostnqn=`));
  const [early, ...again] = await guest.call([
    stage(XFS, xfsAgain, mount("xfs")), // the kernel mounts no second xfs of that uuid while the pod has the dead one
    ...[unpublish(XFS, "a"), unpublish(XFS, "a"), stage(XFS, xfsAgain, mount("xfs"))],
    publish(XFS, "a", mount("xfs")),
  ]);
  assert.equal(early?.code, "INTERNAL", early?.message);
  succeeded(again);
  await guest.sh(`test "$(cat '${targetOf(XFS, "a")}/file')" = kept`);

  // The new plugin knows what the old one did; what is still published is not taken away.
  const [stats, btrfsStats, busy, btrfsBusy, ...down] = await guest.call([
    ...[statsOf(EXT4), statsOf(BTRFS)],
    ...[unstage(EXT4), unstage(BTRFS), unpublish(BTRFS, "b"), unpublish(BTRFS, "b")],
    ...[unpublish(EXT4, "b"), unpublish(XFS, "a"), unpublish(XFS, "a"), unstage(XFS), unstage(XFS)],
    ...[stage(XFS, xfsAgain, block), publish(XFS, "a", block), publish(XFS, "a", block)],
  ]);
  assert.equal(stats?.code, "OK", stats?.message);
  const { usage, volumeCondition } = stats.reply as {
    usage: { unit: string; total: string }[];
    volumeCondition: { abnormal?: boolean };
  }; // CSI message
  assert.deepEqual(
    usage.map(({ unit }) => unit),
    ["BYTES", "INODES"],
  );
  assert.ok(Number(usage[0]?.total) > 64 * MIB);
  assert.notEqual(volumeCondition.abnormal, true);
  assert.match(JSON.stringify(btrfsStats?.reply), /"unit":"BYTES".*is reachable/);
  for (const outcome of [busy, btrfsBusy])
    assert.equal(outcome?.code, "INTERNAL", "a published volume is not unstaged");
  succeeded(down);
  await guest.sh(`test -b '${targetOf(XFS, "a")}'; test "$(blkid -p -s TYPE -o value '${targetOf(XFS, "a")}')" = xfs
    sync -f '${targetOf(EXT4, "a")}' '${targetOf(BTRFS, "a")}'`);

  // The node loses power with all volumes in use; the next boot finds its volumes as they were.
  await guest.vm.close();
  guest = await CsiGuest.boot(bundles, NODE);
  await guest.sh(`mkdir -p ${podFolders.map((name) => `'${name}'`).join(" ")}
    mkdir -p '${stagingOf(EXT4)}' '${targetOf(EXT4, "a")}' '${targetOf(BTRFS, "a")}'; touch '${targetOf(XFS, "a")}'`);
  succeeded(
    await guest.call([
      ...[unpublish(EXT4, "a"), unpublish(XFS, "a"), unstage(EXT4), unstage(XFS)], // kubelet's clean-up
      ...[stage(EXT4, ext4, mount("ext4")), publish(EXT4, "a", mount("ext4"))],
      ...[stage(XFS, xfsAgain, mount("xfs")), publish(XFS, "a", mount("xfs"))],
      ...[unpublish(BTRFS, "a"), unstage(BTRFS), stage(BTRFS, btrfs, mount("btrfs"))],
      publish(BTRFS, "a", mount("btrfs")),
    ]),
  );
  await guest.sh(
    [EXT4, XFS, BTRFS]
      .map((uuid) => `test "$(cat '${targetOf(uuid, "a")}/file')" = kept`)
      .join("\n"),
  );
  succeeded(
    await guest.call([
      ...[EXT4, XFS, BTRFS].map((uuid) => unpublish(uuid, "a")),
      ...[EXT4, XFS, BTRFS].map((uuid) => unstage(uuid)),
    ]),
  );
  await guest.sh(`test -z "$(ls /sys/class/nvme /sys/class/nvme-subsystem | grep nvme[0-9] || true)"
    ! ls /dev/nvme?n1 2>/dev/null; ! grep -q nvme /proc/self/mountinfo; ! test -e '${targetOf(EXT4, "a")}'`);

  for (const volumeId of [EXT4, XFS, BTRFS]) {
    succeeded([
      await controller.call("ControllerUnpublishVolume", { volumeId, nodeId: NODE }),
      await controller.call("DeleteVolume", { volumeId }),
    ]);
  }
  assert.deepEqual((await cluster.rest.volumes()).entries, []);
});
