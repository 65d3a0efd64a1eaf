import assert from "node:assert/strict";
import { test } from "node:test";
import { startCluster, untilOnline, untilStatus } from "../support/cluster.ts";
import { untilWritten, Vm } from "../support/vm/vm.ts";

const VOLUME = "7e3b8b20-2f5d-4f4e-8c69-8b2b7d09e004";
const MIB = 1024 * 1024;
const NQN = `nqn.2019-05.io.openebs:${VOLUME}`;

test("a stock Debian kernel discovers, connects, makes ext4 and passes fio while a replica is lost and rebuilt", async (t) => {
  // The guest reaches the host's 127.0.0.1 as 10.0.2.2: the nexus must be there.
  const cluster = await startCluster(t, {
    addresses: ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
    diskMiB: 640,
  });
  await cluster.rest.createVolume(VOLUME, { size: 320 * MIB, replicas: 3 });
  const published = await cluster.rest.publish(VOLUME, "node-1");
  const port = new URL((published.state.target?.deviceUri ?? "").replace(/^nvmf/, "http")).port;

  const vm = await Vm.boot();
  t.after(() => vm.close());
  t.diagnostic(`guest kernel ${vm.kernelVersion}`);
  const guest = async (script: string, seconds = 120): Promise<string> => {
    const { code, stdout, stderr } = await vm.run(`set -e\n${script}`, seconds);
    assert.equal(code, 0, `guest: ${script}\n${stdout}\n${stderr}\n${vm.consoleTail()}`);
    return stdout;
  };

  const discovered = await guest(`nvme discover -t tcp -a 10.0.2.2 -s ${port}`);
  assert.match(discovered, new RegExp(NQN), "the nexus is in the discovery log");
  const treqs = new Set([...discovered.matchAll(/^treq:\s+(.*?)\s*$/gm)].map(([, value]) => value));
  assert.deepEqual([...treqs], ["not specified"], "connect-all asks for TLS where it is another");

  await guest(`nvme connect -t tcp -a 10.0.2.2 -s ${port} -n ${NQN} --ctrl-loss-tmo=60 --nr-io-queues=2
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done
    test -b /dev/nvme0n1`);
  const identity = await guest(
    "nvme id-ctrl /dev/nvme0 | head -12; nvme list-subsys; cat /sys/block/nvme0n1/wwid",
  );
  assert.match(identity, /Mayastor NVMe controller/);
  assert.match(identity, /uuid\./, "the namespace has a UUID");

  await guest("mkfs.ext4 -q -F /dev/nvme0n1 && mkdir -p /mnt/v && mount /dev/nvme0n1 /mnt/v", 180);
  const fio = vm.run(
    `fio --name=verify --directory=/mnt/v --size=48M --rw=randrw --bs=4k --iodepth=8 --ioengine=libaio --direct=1 \
      --verify=crc32c --verify_fatal=1 --do_verify=1 --time_based=1 --runtime=45 --verify_backlog=256 --output=/tmp/fio.txt
     rc=$?; tail -40 /tmp/fio.txt; exit $rc`,
    300,
  );
  await guest(untilWritten("nvme0n1", 200)); // fio is at it
  const victim = cluster.nodes[2];
  assert.ok(victim);
  await cluster.endEngine(victim, "SIGKILL");
  await untilStatus(cluster, VOLUME, "Degraded");
  await guest(untilWritten("nvme0n1", 100)); // and goes on while the replica misses its writes
  cluster.startEngine(victim);
  await untilOnline(cluster, VOLUME, 180);
  const { code, stdout, stderr } = await fio;
  assert.equal(code, 0, `fio: ${stdout}\n${stderr}\n${vm.consoleTail()}`);
  assert.doesNotMatch(stdout, /verify: bad|err= *[1-9]/);

  await guest("umount /mnt/v && fsck.ext4 -fn /dev/nvme0n1", 180);
  await guest(`nvme disconnect -n ${NQN}; test ! -e /dev/nvme0n1`);
});
