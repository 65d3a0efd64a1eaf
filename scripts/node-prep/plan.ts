/**
 * What a node lacks and what would mend it: pure decisions over facts, so that a dry run shows just what
 * an apply does and the check afterwards is the same code again.
 *
 * Invariants: an action is planned only for what isn't as wanted (a second run plans nothing); a node with
 * a failed check is not changed; nothing here ever writes to a disk that could hold data.
 */
import { type Action, JOURNAL } from "./actions.ts";
import { planBoot } from "./boot.ts";
import {
  type Check,
  check,
  familyOf,
  fileAction,
  isPending,
  type Plan,
  WRITTEN_BY,
} from "./checks.ts";
import { type Facts, parseCpuList } from "./facts.ts";
import { planFirewall } from "./firewall.ts";
import { ENGINE, runsEngine } from "./in_use.ts";
import { PORTS, type Wanted } from "./options.ts";

export const HUGEPAGES_LIVE = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
export const HUGEPAGES_FILE = "/etc/sysctl.d/90-mayastor-hugepages.conf";
export const MODULES_FILE = "/etc/modules-load.d/mayastor.conf";
export const MODPROBE_FILE = "/etc/modprobe.d/mayastor.conf";

/**
 * The kernel counts no use of nvme_tcp for a connected controller: a mounted multipath volume doesn't keep the
 * module, and unloading it deletes every controller, ours or not, with what was still to be written.
 */
export const UNLOAD = `for transport in /sys/class/nvme/*/transport; do
  if [ -e "$transport" ] && [ "$(cat "$transport")" = tcp ]; then
    echo "NVMe/TCP controllers are connected: nvme-tcp is unloaded at the next reboot" >&3
    exit 0
  fi
done
modprobe -r -q nvme_tcp || true`;

/** The documented minimum. */
const KERNEL_MIN = [5, 13] as const;
/** The documented minimum for an io-engine alone. */
const CPUS_MIN = 2;
const MEMORY_MIN_MIB = 1024;
/** Above this share of the memory the node itself has no room left. */
const HUGEPAGES_SHARE_MAX = 0.9;

/** Everything about a node. */
export function planNode(facts: Facts, wanted: Wanted): Plan {
  const parts = [
    planSystem(facts),
    planModules(facts),
    planHugepages(facts, wanted),
    planBoot(facts, wanted),
    planPorts(facts),
    planFirewall(facts, wanted),
    planDisks(facts),
    planPackages(facts, wanted),
  ];
  const actions = parts.flatMap((part) => part.actions);
  return {
    checks: [...parts.flatMap(({ checks }) => checks), ...conflicts(facts, actions)],
    actions,
  };
}

/** Files of ours that would be written again although somebody changed them since. */
function conflicts({ journal }: Facts, actions: readonly Action[]): Check[] {
  return actions.flatMap((action) =>
    action.kind === "file" && journal.get(action.name) === "changed"
      ? [
          {
            name: "changed file",
            status: "fail" as const,
            text: `${action.path} was changed since node-prep wrote it: move the change to a file of its own, then put back ${JOURNAL}/${action.name}/before (or remove the file where there is none)`,
          },
        ]
      : [],
  );
}

function planSystem(facts: Facts): Plan {
  const { os, kernel, arch } = facts;
  const name = `${os.id || "unknown"} ${os.version}`.trim();
  const family = familyOf(facts);
  const [major = 0, minor = 0] = kernel.split(/[.-]/).map(Number);
  const old = major < KERNEL_MIN[0] || (major === KERNEL_MIN[0] && minor < KERNEL_MIN[1]);
  const cpu: Check =
    arch === "aarch64"
      ? { name: "cpu", status: "ok", text: arch }
      : arch !== "x86_64"
        ? { name: "cpu", status: "fail", text: `${arch}: only x86_64 and aarch64 are supported` }
        : facts.cpuFlags.has("sse4_2")
          ? { name: "cpu", status: "ok", text: "x86_64 with SSE4.2" }
          : { name: "cpu", status: "fail", text: "no SSE4.2: io-engine cannot run on this CPU" };
  return {
    checks: [
      {
        name: "system",
        status: family === "other" ? "warn" : "ok",
        text: family === "other" ? `${name}: not tried; Debian, Ubuntu and RHEL kinds are` : name,
      },
      {
        name: "kernel",
        status: old ? "warn" : "ok",
        text: old ? `${kernel} is older than ${KERNEL_MIN.join(".")}` : kernel,
      },
      cpu,
      ...planResources(facts),
    ],
    actions: [],
  };
}

/** What io-engine asks for besides; too little is for a person to judge, and doesn't keep a node from being prepared. */
function planResources({ cpusPossible, memoryKib, fileSystems }: Facts): Check[] {
  const cpus = parseCpuList(cpusPossible).length;
  const mib = Math.floor(memoryKib / 1024);
  const few = [
    ...(cpus < CPUS_MIN ? [`${cpus} CPU of ${CPUS_MIN}`] : []),
    ...(mib < MEMORY_MIN_MIB ? [`${mib} MiB of memory of ${MEMORY_MIN_MIB}`] : []),
  ];
  const systems = ["ext4", "xfs"].filter((system) => fileSystems.has(system));
  const checks: Check[] = [
    few.length > 0
      ? {
          name: "resources",
          status: "warn",
          text: `${few.join(", ")} that an io-engine asks for itself`,
        }
      : { name: "resources", status: "ok", text: `${cpus} CPUs, ${mib} MiB of memory` },
    systems.includes("ext4")
      ? { name: "file systems", status: "ok", text: systems.join(", ") }
      : {
          name: "file systems",
          status: "warn",
          text: `no ext4 module: volumes can be ${["raw block", ...systems].join(" and ")} only`,
        },
  ];
  return checks;
}

function planModules(facts: Facts): Plan {
  if (facts.nvmeTcp === "missing") {
    const text = `no nvme-tcp module for kernel ${facts.kernel}: ${modulesFrom(facts)}`;
    return { checks: [{ name: "nvme-tcp", status: "fail", text }], actions: [] };
  }
  const persist = fileAction(facts, {
    name: "10-modules-load",
    path: MODULES_FILE,
    content: `${WRITTEN_BY}nvme-tcp\n`,
  });
  const alwaysOn = facts.multipath === "builtin";
  const multipath = alwaysOn
    ? []
    : fileAction(facts, {
        name: "12-multipath",
        path: MODPROBE_FILE,
        content: `${WRITTEN_BY}options nvme_core multipath=Y\n`,
      });
  const load: Action[] =
    facts.nvmeTcp === "available" || isPending(facts, "14-nvme-tcp")
      ? [
          {
            kind: "run",
            name: "14-nvme-tcp",
            what: "load nvme-tcp",
            command: "modprobe nvme-tcp",
            revert: UNLOAD,
            refresh: UNLOAD,
            touches: [],
          },
        ]
      : [];
  const actions = [...persist, ...multipath, ...load];
  return {
    checks: [
      check("nvme-tcp", [...persist, ...load], `${facts.nvmeTcp}, and at every boot`),
      alwaysOn
        ? { name: "multipath", status: "ok", text: "built into this kernel, always on" }
        : facts.nvmeCoreLoaded && facts.multipath === undefined
          ? {
              name: "multipath",
              status: "warn",
              text: "this kernel is built without NVMe multipath: no high availability",
            }
          : check("multipath", multipath, "nvme_core.multipath=Y at every load"),
    ],
    actions,
  };
}

/** Where the distribution keeps the modules that its kernel's own package leaves out. */
function modulesFrom(facts: Facts): string {
  const { os, kernel } = facts;
  if ([os.id, ...os.like].includes("ubuntu")) {
    return `apt-get install linux-modules-extra-${kernel}`;
  }
  switch (familyOf(facts)) {
    case "debian":
      return "kernels for clouds are built without it: install linux-image-amd64 (or -arm64) and boot that one";
    case "rhel":
      return `dnf install kernel-modules-extra-${kernel}`;
    case "other":
      return "install the package of this kernel's further modules";
  }
}

function planHugepages(facts: Facts, { hugepages: pages }: Wanted): Plan {
  const name = "hugepages";
  if (pages === undefined) {
    const text = `${facts.hugepages?.total ?? 0} of 2 MiB reserved; none asked for`;
    return { checks: [{ name, status: "ok", text }], actions: [] };
  }
  if (!facts.hugepages) {
    return one({ name, status: "fail", text: "this kernel has no 2 MiB hugepages" });
  }
  const { total } = facts.hugepages;
  // Never shrink what another program reserved, now or at boot.
  const elsewhere = [...facts.sysctlPages].filter(([file]) => file !== HUGEPAGES_FILE);
  const atBoot = Math.max(0, ...facts.sysctlPages.values());
  const want = Math.max(total, pages, atBoot);
  const mib = want * 2;
  const memoryMib = Math.floor(facts.memoryKib / 1024);
  if (mib > memoryMib * HUGEPAGES_SHARE_MAX) {
    const text = `${want} pages are ${mib} MiB; the node has ${memoryMib} MiB`;
    return one({ name, status: "fail", text });
  }
  // Files apply in the order of their names, /etc/sysctl.conf last: a smaller number there would win.
  const stronger = elsewhere.find(
    ([file, other]) =>
      other < want && (file === "/etc/sysctl.conf" || basename(file) > basename(HUGEPAGES_FILE)),
  );
  const persist = fileAction(facts, {
    name: "20-hugepages-boot",
    path: HUGEPAGES_FILE,
    content: `${WRITTEN_BY}vm.nr_hugepages = ${want}\n`,
  });
  const tried = facts.journal.get("22-hugepages") === "done";
  const now: Action[] =
    total < want || isPending(facts, "22-hugepages")
      ? [
          {
            kind: "live",
            name: "22-hugepages",
            what: `reserve ${want} hugepages now (restart kubelet afterwards)`,
            path: HUGEPAGES_LIVE,
            value: String(want),
          },
        ]
      : [];
  const checks: Check[] = [
    tried && total < want && persist.length === 0
      ? { name, status: "reboot", text: `${total} of ${want}: memory is fragmented` }
      : check(name, [...persist, ...now], `${total} reserved, ${want} at boot`),
  ];
  // They are to be io-engine's alone; what it has taken itself counts.
  const { free } = facts.hugepages;
  if (now.length === 0 && free < pages && !runsEngine(facts)) {
    const text = `${free} of ${total} are free: other programs use the rest, and io-engine is to have ${pages} for itself`;
    checks.push({ name: "hugepages free", status: "warn", text });
  }
  if (stronger) {
    const text = `${stronger[0]} sets vm.nr_hugepages=${stronger[1]}, which wins at boot: change it there`;
    checks.push({ name: "hugepages at boot", status: "manual", text });
  }
  return { checks, actions: [...persist, ...now] };
}

/** Whose port it may be, by the command line that holds it. */
const OWNERS: Readonly<Record<(typeof PORTS)[number], { who: string; is: RegExp }>> = {
  10124: { who: "io-engine", is: ENGINE },
  8420: { who: "io-engine", is: ENGINE },
  4421: { who: "io-engine", is: ENGINE },
  9502: { who: "the metrics exporter", is: /\bmetrics-exporter(-pool)?\b/ },
  10199: { who: "csi-node", is: /\bcsi-node\b/ },
};

function planPorts(facts: Facts): Plan {
  const checks = PORTS.map((port): Check => {
    const name = `port ${port}`;
    const owner = facts.ports.get(port) ?? "unknown";
    if (owner === "free") return { name, status: "ok", text: "free" };
    const { who, is } = OWNERS[port];
    if (is.test(owner)) return { name, status: "ok", text: `held by ${who}` };
    return { name, status: "fail", text: `in use by ${owner.trim() || "unknown"}` };
  });
  return { checks, actions: [] };
}

function planDisks({ disks }: Facts): Plan {
  const empty = disks.filter(({ state }) => state === "empty");
  const rest = disks
    .filter(({ state }) => state !== "empty")
    .map(({ name, state }) => `${name} ${state}`)
    .join(", ");
  const found = empty.map(({ path, sizeMib }) => `${path} (${sizeText(sizeMib)})`).join(", ");
  const others = rest === "" ? "" : `; not empty: ${rest}`;
  return one(
    empty.length > 0 || disks.some(({ state }) => state === "pool")
      ? { name: "disks", status: "ok", text: `empty: ${found || "none"}${others}` }
      : { name: "disks", status: "warn", text: `no empty disk for a pool${others}` },
  );
}

const sizeText = (mib: number): string =>
  mib >= 10240 ? `${Math.round(mib / 1024)} GiB` : `${mib} MiB`;

function planPackages(facts: Facts, { installPackages }: Wanted): Plan {
  const name = "xfsprogs";
  const tool = facts.packageTool;
  if (facts.xfsprogs) return one({ name, status: "ok", text: "installed" });
  if (!installPackages || facts.os.ostree || tool === undefined) {
    return one({ name, status: "warn", text: "not installed: needed for xfs volumes only" });
  }
  // A fresh node has no lists of packages yet, or is updating itself; one broken source doesn't matter here.
  const apt = "apt-get -o DPkg::Lock::Timeout=300";
  const command =
    tool === "apt-get"
      ? `${apt} update; DEBIAN_FRONTEND=noninteractive ${apt} install -y --no-install-recommends xfsprogs`
      : `${tool} install -y xfsprogs`;
  const what = "install xfsprogs (undo leaves it)";
  const action: Action = { kind: "install", name: "50-xfsprogs", what, command };
  return { checks: [check(name, [action], "")], actions: [action] };
}

const one = (only: Check): Plan => ({ checks: [only], actions: [] });
const basename = (file: string): string => file.slice(file.lastIndexOf("/") + 1);
