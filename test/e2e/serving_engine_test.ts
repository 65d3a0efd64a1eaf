import assert from "node:assert/strict";
import { test } from "node:test";
import { startCluster, untilOnline } from "../support/cluster.ts";
import { missingKernel } from "../support/vm/kernel.ts";
import { untilWritten, Vm } from "../support/vm/vm.ts";

const VOLUME = "7e3b8b20-2f5d-4f4e-8c69-8b2b7d09e015";
const MIB = 1024 * 1024;
const NQN = `nqn.2019-05.io.openebs:${VOLUME}`;
/** Newer kernels say so as they give a controller up for good. */
const GIVEN_UP = "Removing controller|I/O error|EXT4-fs error|WARNING:|BUG:";

/**
 * The engine that serves the volume ends and starts again under a mounted file system. Until its target is made
 * again a host is refused, and has to take that for "not yet": kernels since 6.10 remove the disk at once on "never".
 */
test("a stock kernel keeps its disk and its data while the engine that serves it is killed and restarted", {
  skip: missingKernel(),
}, async (t) => {
  // The guest reaches the host's 127.0.0.1 as 10.0.2.2: the nexus must be there.
  const cluster = await startCluster(t, {
    addresses: ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
    diskMiB: 512,
  });
  await cluster.rest.createVolume(VOLUME, { size: 192 * MIB, replicas: 2 });
  const published = await cluster.rest.publish(VOLUME, "node-1");
  const port = new URL((published.state.target?.deviceUri ?? "").replace(/^nvmf/, "http")).port;
  const serving = cluster.nodes[0];
  assert.ok(serving);

  const vm = await Vm.boot();
  t.after(() => vm.close());
  t.diagnostic(`guest kernel ${vm.kernelVersion}`);
  const guest = async (script: string, seconds = 120): Promise<string> => {
    const { code, stdout, stderr } = await vm.run(`set -e\n${script}`, seconds);
    assert.equal(code, 0, `guest: ${script}\n${stdout}\n${stderr}\n${vm.consoleTail()}`);
    return stdout;
  };
  await guest(`nvme connect -t tcp -a 10.0.2.2 -s ${port} -n ${NQN} --ctrl-loss-tmo=600 --reconnect-delay=1 --nr-io-queues=2
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done
    mkfs.ext4 -q -F /dev/nvme0n1 && mkdir -p /mnt/v && mount /dev/nvme0n1 /mnt/v
    head -c 8388608 /dev/urandom >/mnt/v/before && sync /mnt/v/before && sha256sum /mnt/v/before >/run/before`);
  // Round after round, each verified, until it is told that it is enough.
  const fio = vm.run(
    `until [ -e /run/enough ]; do
       fio --name=verify --directory=/mnt/v --size=24M --rw=randrw --bs=4k --iodepth=8 --ioengine=libaio --direct=1 \
         --verify=crc32c --verify_fatal=1 --do_verify=1 --time_based=1 --runtime=15 --verify_backlog=128 \
         --output=/run/fio.txt || exit $?
       cat /run/fio.txt
     done`,
    500,
  );

  /** Ends it, keeps it down for long enough that the host tries and is refused, and sees I/O go on. */
  const restart = async (signal: "SIGKILL" | "SIGTERM", withoutCore: boolean) => {
    await guest(untilWritten("nvme0n1", 60));
    if (withoutCore) await cluster.processes.end("agent-core", "SIGKILL");
    await cluster.endEngine(serving, signal);
    cluster.startEngine(serving);
    if (withoutCore) {
      // The engine listens, and nobody has its target made: it refuses.
      await guest(`refused() { dmesg | grep -c 'Connect Invalid Data Parameter' || true; }
        before=$(refused)
        for i in $(seq 300); do [ $(refused) -gt $((before + 2)) ] && break; sleep 0.1; done
        [ $(refused) -gt $((before + 2)) ] && test -b /dev/nvme0n1`);
      cluster.startCore();
    }
    await guest(
      `for i in $(seq 600); do [ "$(cat /sys/class/nvme/nvme0/state)" = live ] && break; sleep 0.1; done
       test "$(cat /sys/class/nvme/nvme0/state)" = live`,
    );
    await guest(untilWritten("nvme0n1", 60));
  };
  await restart("SIGKILL", false);
  await restart("SIGTERM", false);
  await restart("SIGKILL", true);
  await restart("SIGKILL", false);

  await guest("touch /run/enough");
  const { code, stdout, stderr } = await fio;
  assert.equal(code, 0, `fio: ${stdout}\n${stderr}\n${vm.consoleTail()}`);
  assert.doesNotMatch(stdout, /verify: bad|err= *[1-9]/);
  await untilOnline(cluster, VOLUME, 180);
  await guest(`sha256sum -c /run/before
    umount /mnt/v && fsck.ext4 -fn /dev/nvme0n1
    mount /dev/nvme0n1 /mnt/v && sha256sum -c /run/before && umount /mnt/v`);
  const complaints = await guest(`dmesg | grep -E '${GIVEN_UP}' || true`);
  assert.equal(complaints, "", "the kernel gave nothing up");
  await guest(`nvme disconnect -n ${NQN}; test ! -e /dev/nvme0n1`);
});
