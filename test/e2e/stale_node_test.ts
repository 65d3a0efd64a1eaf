import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import type { Call } from "../support/csi/client.ts";
import { startCsiCluster } from "../support/csi/cluster.ts";
import {
  block,
  CsiGuest,
  contextInGuest,
  mount,
  publish,
  stage,
  succeeded,
  targetOf,
  unpublish,
  unstage,
} from "../support/vm/csi_guest.ts";

const MIB = 1024 * 1024;
const FILES = "5f3c9a58-2b0e-4d38-9d0f-1a7e64c0b001";
const RAW = "5f3c9a58-2b0e-4d38-9d0f-1a7e64c0b002";
/** `home` loses its network with both volumes in use; `other` is where they go meanwhile. */
const HOME = "node-1";
const OTHER = "node-9";
const PARAMETERS = { repl: "2", fsType: "ext4" };
const capabilityOf = (uuid: string) => (uuid === RAW ? block : mount("ext4"));

test("a node that was cut off comes back: nothing of its earlier publications reaches the volumes", async (t) => {
  const { cluster, controller, bundles } = await startCsiCluster(t);
  for (const uuid of [FILES, RAW]) {
    succeeded([
      await controller.call("CreateVolume", {
        name: `pvc-${uuid}`,
        capacityRange: { requiredBytes: String(128 * MIB) },
        volumeCapabilities: [capabilityOf(uuid)],
        parameters: PARAMETERS,
      }),
    ]);
  }
  // Every target is on the engine that the guests reach.
  for (const { name } of cluster.nodes.slice(1))
    await cluster.rest.request("PUT", `/nodes/${name}/cordon/elsewhere`);
  const controllerPublish = async (uuid: string, nodeId: string) =>
    contextInGuest(
      await controller.call("ControllerPublishVolume", {
        ...{ volumeId: uuid, nodeId, volumeContext: PARAMETERS },
        volumeCapability: capabilityOf(uuid),
      }),
    );
  const controllerUnpublish = async (nodeId: string) => {
    for (const volumeId of [FILES, RAW])
      succeeded([await controller.call("ControllerUnpublishVolume", { volumeId, nodeId })]);
  };
  /** Publishes both volumes to the node, and to one pod of it. */
  const attach = async (guest: CsiGuest, node: string, pod: string) => {
    await guest.sh(
      `mkdir -p ${[FILES, RAW].map((uuid) => `'${path.dirname(targetOf(uuid, pod))}'`).join(" ")}`,
    );
    const calls: Call[] = [];
    for (const uuid of [FILES, RAW]) {
      const context = await controllerPublish(uuid, node);
      calls.push(stage(uuid, context, capabilityOf(uuid)), publish(uuid, pod, capabilityOf(uuid)));
    }
    succeeded(await guest.call(calls));
  };
  const detach = (guest: CsiGuest, pod: string) =>
    guest.call(
      [FILES, RAW].map((uuid) => unpublish(uuid, pod)).concat([unstage(FILES), unstage(RAW)]),
    );

  const [home, other] = await Promise.all([
    CsiGuest.boot(bundles, HOME),
    CsiGuest.boot(bundles, OTHER),
  ]);
  t.after(() => Promise.all([home.vm.close(), other.vm.close()]));
  t.diagnostic(`guest kernel ${home.vm.kernelVersion}`);
  await attach(home, HOME, "a");
  const homeFiles = targetOf(FILES, "a");
  await home.sh(`for i in $(seq 40); do dd if=/dev/urandom of='${homeFiles}'/old$i bs=64k count=4 status=none; done; sync
    tr '\\0' o </dev/zero | dd of='${targetOf(RAW, "a")}' bs=1M count=64 iflag=fullblock oflag=direct conv=notrunc status=none`);

  // Cut off; its pods go on writing: file system, journal and the raw device's cache are full of what nobody took.
  await home.sh(`ip link set eth0 down
    (for i in $(seq 40); do echo stale >'${homeFiles}'/stale$i; done; rm -f '${homeFiles}'/old1*; sync) >/dev/null 2>&1 &
    (tr '\\0' s </dev/zero | dd of='${targetOf(RAW, "a")}' bs=64k count=128 iflag=fullblock conv=notrunc status=none; sync) >/dev/null 2>&1 &
    for i in $(seq 300); do [ "$(cat /sys/class/nvme/nvme*/state | sort -u)" = connecting ] && break; sleep 0.2; done
    test "$(cat /sys/class/nvme/nvme*/state | sort -u)" = connecting`);
  await controllerUnpublish(HOME);
  await attach(other, OTHER, "n");
  const otherFiles = targetOf(FILES, "n");
  await other.sh(`for i in $(seq 40); do rm -f '${otherFiles}'/old$i; head -c 200000 /dev/zero | tr '\\0' N >'${otherFiles}'/new$i; done; sync
    tr '\\0' n </dev/zero | dd of='${targetOf(RAW, "n")}' bs=1M count=64 iflag=fullblock oflag=direct conv=notrunc status=none`);

  // It is back while another has the volumes. Its kernel keeps trying by itself, and is refused each time.
  const refusals = "dmesg | grep -ciE 'failed reconnect attempt|failed to connect' || true";
  await home.sh(`before=$(${refusals}); ip link set eth0 up
    for i in $(seq 600); do [ $(${refusals}) -ge $((before + 2)) ] && break; sleep 0.2; done
    [ $(${refusals}) -ge $((before + 2)) ]; ! grep -q live /sys/class/nvme/nvme*/state`);
  await other.sh(`echo still >'${otherFiles}'/still; sync`);
  succeeded(await detach(other, "n"));
  await controllerUnpublish(OTHER);

  // The volumes return to it, for a new pod; its plugin has been restarted in between.
  await home.killPlugin();
  await home.startPlugin();
  await attach(home, HOME, "b");
  const seen = await home.sh(`cd '${targetOf(FILES, "b")}'
    echo new=$(ls | grep -c '^new') stale=$(ls | grep -c '^stale') old=$(ls | grep -c '^old') still=$(cat still)
    for i in $(seq 40); do test "$(tr -d N <new$i | wc -c)" = 0; done
    dd if='${targetOf(RAW, "b")}' bs=1M count=64 iflag=direct status=none | tr -d n | wc -c`);
  assert.equal(seen, "new=40 stale=0 old=0 still=still\n0\n");
  await home.sh("sync");
  succeeded(await home.call([unpublish(FILES, "b"), unpublish(RAW, "b")]));
  succeeded(await detach(home, "a"));
  await home.sh("test -z \"$(ls /sys/class/nvme | grep 'nvme[0-9]' || true)\"");

  // The file system is clean after it all, and the raw device still as the other node left it.
  await controllerUnpublish(HOME);
  const device = "/dev/disk-to-check";
  for (const uuid of [FILES, RAW]) {
    const context = await controllerPublish(uuid, HOME);
    await home.sh(`mkdir -p '${path.dirname(targetOf(uuid, "c"))}'`);
    succeeded(await home.call([stage(uuid, context, block), publish(uuid, "c", block)]));
    await home.sh(`ln -sf '${targetOf(uuid, "c")}' ${device}
      ${uuid === FILES ? `fsck.ext4 -fn ${device}` : `test "$(dd if=${device} bs=1M count=64 status=none | tr -d n | wc -c)" = 0`}`);
    succeeded(await home.call([unpublish(uuid, "c"), unstage(uuid)]));
  }
});
