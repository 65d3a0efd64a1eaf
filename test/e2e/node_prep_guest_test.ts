import assert from "node:assert/strict";
import { test } from "node:test";
import { UNLOAD } from "../../scripts/node-prep/plan.ts";
import { startCluster } from "../support/cluster.ts";
import { Vm } from "../support/vm/vm.ts";

const VOLUME = "7e3b8b20-2f5d-4f4e-8c69-8b2b7d09e00c";
const MIB = 1024 * 1024;
const NQN = `nqn.2019-05.io.openebs:${VOLUME}`;

/** As undo runs it: what is kept is said on descriptor 3. */
const unload = `cat >/run/unload <<'END'
${UNLOAD}
END
kept=$(sh /run/unload 3>&1 >&2)`;

test("node-prep's undo leaves nvme-tcp to a stock kernel whose mounted volume needs it, and unloads it afterwards", async (t) => {
  const cluster = await startCluster(t, {
    addresses: ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
    diskMiB: 256,
  });
  await cluster.rest.createVolume(VOLUME, { size: 64 * MIB, replicas: 1 });
  const published = await cluster.rest.publish(VOLUME, "node-1");
  const port = new URL((published.state.target?.deviceUri ?? "").replace(/^nvmf/, "http")).port;
  const vm = await Vm.boot({ modules: ["nvme-tcp", "ext4"] });
  t.after(() => vm.close());
  const guest = async (script: string): Promise<string> => {
    const { code, stdout, stderr } = await vm.run(`set -e\n${script}`);
    assert.equal(code, 0, `guest: ${script}\n${stdout}\n${stderr}\n${vm.consoleTail()}`);
    return stdout.trim();
  };
  await guest(`nvme connect -t tcp -a 10.0.2.2 -s ${port} -n ${NQN} --ctrl-loss-tmo=60
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done
    mkfs.ext4 -q /dev/nvme0n1
    mkdir -p /tmp/volume && mount /dev/nvme0n1 /tmp/volume`);
  // Why the command looks for itself: the kernel would let the module go.
  assert.equal(await guest("cat /sys/module/nvme_tcp/refcnt"), "0", "a mounted volume is no use");

  const kept = await guest(`${unload}\necho "$kept"`);
  assert.match(kept, /NVMe\/TCP controllers are connected: .*next reboot/);
  await guest(`test -d /sys/module/nvme_tcp
    dd if=/dev/urandom of=/tmp/volume/data bs=1M count=4 conv=fsync
    echo 3 >/proc/sys/vm/drop_caches
    test "$(stat -c %s /tmp/volume/data)" = 4194304 && cat /tmp/volume/data >/dev/null`);

  const gone = await guest(`umount /tmp/volume
    nvme disconnect -n ${NQN} >/dev/null
    ${unload}
    echo "kept: $kept"
    test ! -d /sys/module/nvme_tcp`);
  assert.equal(gone, "kept:");
});
