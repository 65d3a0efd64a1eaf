/** The node preparation of the end-to-end suite, against an Ubuntu node in a root of its own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { missing, startSshNode } from "../../test/support/ssh_node.ts";
import { UBUNTU_KERNEL } from "../../test/support/ssh_node_tree.ts";
import { prepare, undo } from "./node_prep.ts";

test("prepare() and undo() leave an Ubuntu node as it was", {
  skip: missing() ?? false,
}, async (t) => {
  const node = await startSshNode(t, "ubuntu");
  await assert.rejects(
    prepare(node, () => {}),
    /linux-modules-extra-6\.8\.0-31-generic/,
  );
  node.write(
    `lib/modules/${UBUNTU_KERNEL}/modules.dep`,
    "kernel/drivers/nvme/host/nvme-tcp.ko.zst:\n",
  );
  const before = node.tree();
  const said: string[] = [];
  await prepare(node, (line) => said.push(line));
  assert.match(said[0] ?? "", /would load nvme-tcp/);
  assert.match(said[1] ?? "", /: changed 14-nvme-tcp$/m);
  assert.equal(node.read("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "64\n");
  await undo(node);
  assert.deepEqual(node.tree(), before);
});
