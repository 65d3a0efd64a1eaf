/**
 * scripts/node-prep cut off at every changing command, and inside every write, of apply and undo, on a real shell in a
 * root made here: the next run repairs, undo restores byte by byte.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Action, applyScript, undoScript } from "../../scripts/node-prep/actions.ts";
import { assertSameTree, NFTABLES, nodePrep, reach, task, WANTED } from "../support/node_prep.ts";
import { missing, type SshNode, startSshNode } from "../support/ssh_node.ts";

const skip = missing() ?? false;

/** One change of every kind; few, so that a crash at each of their commands takes seconds. */
const everyKind: readonly Action[] = [
  {
    kind: "file",
    name: "10-edit",
    what: "edit",
    path: "/etc/sysctl.d/10-other.conf",
    content: "kernel.panic = 10\nkernel.panic_on_oops = 1\n",
  },
  {
    kind: "live",
    name: "22-hugepages",
    what: "live",
    path: "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    value: "512",
  },
  {
    kind: "file",
    name: "30-grub-defaults",
    what: "drop-in in a new folder",
    path: "/etc/default/grub.d/90-mayastor.cfg",
    content: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=2"\n',
  },
  {
    kind: "run",
    name: "32-boot-arguments",
    what: "run",
    command: "update-grub",
    revert: "update-grub",
    refresh: "",
    touches: ["/boot/grub/grub.cfg", "/boot/grub/grub.cfg.new", "/boot/loader/entries/*.conf"],
  },
  {
    kind: "line",
    name: "38-nftables-boot",
    what: "line",
    path: "/etc/nftables.conf",
    line: "insert rule inet filter input tcp dport 8420 accept",
    check: 'unshare -n -- nft -c -f "$1"',
  },
  {
    kind: "run",
    name: "40-firewall",
    what: "run, in a file that others write to as well",
    command: "ufw allow proto tcp from 10.0.0.0/24 to any port 8420 comment x",
    revert: "ufw delete allow proto tcp from 10.0.0.0/24 to any port 8420",
    refresh: "ufw reload",
    touches: ["/etc/ufw/user.rules"],
  },
  { kind: "install", name: "50-xfsprogs", what: "install", command: "apt-get install x" },
  { kind: "label", name: "60-label", what: "note", node: "node-1" },
];

interface CrashOptions {
  readonly how?: "crashAt" | "tearAt";
  readonly first?: number;
  readonly step?: number;
}

/** Far above the commands a script has: a loop that never ends its script is a failure, not a hang. */
const CRASHES_MAX = 300;

/**
 * Runs `script` dying at its 1st, 2nd, ... changing command, until it gets through.
 * @param options.first with `step`: only at the first, and each `step` further
 * @returns at how many commands it can die
 */
async function crashEverywhere(
  node: SshNode,
  script: string,
  afterCrash: (count: number) => Promise<void>,
  { how = "crashAt", first = 1, step = 1 }: CrashOptions = {},
): Promise<number> {
  const { signal } = new AbortController();
  for (let count = first; count <= CRASHES_MAX; count += step) {
    node[how](count);
    const { exitCode } = await node.direct(script, { signal });
    node[how](undefined);
    if (exitCode === 0) return count - 1;
    await afterCrash(count);
  }
  throw new Error(`the script still dies at command ${CRASHES_MAX}`);
}

test("interrupted at every command of apply: the next apply repairs, undo restores", {
  skip,
}, async (t) => {
  const { signal } = new AbortController();
  const [apply, undo] = [applyScript(everyKind), undoScript({ keepLabel: false })];
  // Odd crashes are repaired first; even ones are undone as they are. A node for each.
  const everySecond = async (first: 1 | 2): Promise<number> => {
    const node = await startSshNode(t, "debian");
    node.write("etc/nftables.conf", NFTABLES);
    const before = node.tree();
    const finish = async (script: string, when: string) => {
      const { exitCode, lines, errorTail } = await node.direct(script, { signal });
      assert.equal(exitCode, 0, `${when}: ${[...lines, errorTail].join("\n")}`);
    };
    const afterCrash = async (count: number) => {
      if (first === 1) {
        await finish(apply, `apply after a crash at command ${count}`);
        assert.match(node.read("boot/grub/grub.cfg"), /isolcpus=2\n/);
        assert.match(node.read("etc/sysctl.d/10-other.conf"), /panic_on_oops/);
      }
      await finish(undo, `undo after a crash at command ${count}`);
      assertSameTree(node, before, `after a crash at command ${count} and undo`);
    };
    return await crashEverywhere(node, apply, afterCrash, { first, step: 2 });
  };
  const crashes = await Promise.all([everySecond(1), everySecond(2)]);
  assert.ok(Math.min(...crashes) > 60, `only ${crashes.join(" and ")} commands were interrupted`);
});

/** Debian's or Rocky's boot files, which a command of the system writes in place; and a file that we replace. */
const written: Readonly<Record<"debian" | "rocky", readonly Action[]>> = {
  debian: everyKind.filter(({ name }) =>
    ["10-edit", "30-grub-defaults", "32-boot-arguments", "38-nftables-boot"].includes(name),
  ),
  rocky: [
    {
      kind: "run",
      name: "32-boot-arguments",
      what: "run",
      command: "grubby --update-kernel=ALL --args=isolcpus=2",
      revert: "grubby --update-kernel=ALL --remove-args=isolcpus",
      refresh: "",
      touches: ["/boot/loader/entries/*.conf"],
    },
  ],
};
const BOOTS = {
  debian: {
    file: "boot/grub/grub.cfg",
    complete: /ro quiet isolcpus=2\n[\s\S]*\n### END [\s\S]*\n### END .*\n$/,
    tearsMin: 12,
  },
  rocky: {
    file: "boot/loader/entries/1-5.14.conf",
    complete: /^title .*\nlinux .*\noptions .* isolcpus=2\n$/,
    tearsMin: 4,
  },
} as const;

for (const kind of ["debian", "rocky"] as const) {
  test(`cut off inside every write (${kind}): the next apply repairs, undo restores`, {
    skip,
  }, async (t) => {
    const node = await startSshNode(t, kind);
    node.write("etc/nftables.conf", NFTABLES);
    const { signal } = new AbortController();
    const [apply, undo] = [applyScript(written[kind]), undoScript({ keepLabel: false })];
    const { file, complete, tearsMin } = BOOTS[kind];
    const before = node.tree();
    const finish = async (script: string, when: string) => {
      const { exitCode, lines, errorTail } = await node.direct(script, { signal });
      assert.equal(exitCode, 0, `${when}: ${[...lines, errorTail].join("\n")}`);
    };
    const checkedApply = async (when: string) => {
      await finish(apply, when);
      assert.match(node.read(file), complete, when);
    };
    const tears = await crashEverywhere(
      node,
      apply,
      async (count) => {
        if (count % 2 === 1) await checkedApply(`apply after write ${count} was cut off`);
        await finish(undo, `undo after write ${count} was cut off`);
        assertSameTree(node, before, `after write ${count} was cut off, and undo`);
      },
      { how: "tearAt" },
    );
    assert.ok(tears >= tearsMin, `only ${tears} writes were cut off`);
    assert.match(node.read(file), complete);
    const undone = await crashEverywhere(node, undo, async () => {}, { how: "tearAt" });
    assert.ok(undone > 1, `only ${undone} writes of undo were cut off`);
    assertSameTree(node, before, "after an undo that was cut off in each write");
  });
}

test("interrupted at every command of undo: the next undo finishes it", { skip }, async (t) => {
  const node = await startSshNode(t, "debian");
  node.write("etc/nftables.conf", NFTABLES);
  const { signal } = new AbortController();
  const before = node.tree();
  assert.equal((await node.direct(applyScript(everyKind), { signal })).exitCode, 0);
  // Undo dies one command later each time; what is left shrinks until one gets through.
  const crashes = await crashEverywhere(node, undoScript({ keepLabel: false }), async () => {});
  assert.ok(crashes > 10, `only ${crashes} commands were interrupted`);
  assertSameTree(node, before, "after interrupted undos");
});

test("a whole preparation cut off midway is repaired by the next run", { skip }, async (t) => {
  const node = await startSshNode(t, "rocky");
  const before = node.tree();
  for (const count of [5, 40, 75]) {
    node.crashAt(count);
    const cut = await nodePrep(...reach(node), ...WANTED, "--apply");
    node.crashAt(undefined);
    assert.equal(cut.code, 1, cut.out);
    assert.match(cut.out, /ssh failed|ended with code/);
    assert.equal((await task(node, "apply")).status, "reboot", `repaired after ${count}`);
    assert.equal((await task(node, "undo")).status, "undone");
    assertSameTree(node, before, `after a cut at command ${count} and undo`);
  }
});
