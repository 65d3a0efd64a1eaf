/**
 * Kernel arguments for the next boot: isolcpus, and nvme_core.multipath where the running kernel has it off.
 *
 * Why the boot line for multipath too: a node that boots from NVMe loads nvme_core from its initramfs,
 * which doesn't have our modprobe.d file; the kernel's command line reaches it everywhere.
 * Debian and Ubuntu take a drop-in of GRUB's defaults; the RHEL family's boot entries belong to grubby.
 */
import type { Action } from "./actions.ts";
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
import type { Wanted } from "./options.ts";

export const GRUB_FILE = "/etc/default/grub.d/90-mayastor.cfg";
const MULTIPATH = "nvme_core.multipath";
const GRUB_STEP = "32-boot-arguments";
const UPDATE_GRUB = "update-grub";

export function planBoot(facts: Facts, wanted: Wanted): Plan {
  const plan = planArguments(facts, wanted);
  const { grubTorn: torn } = facts;
  if (torn === undefined || plan.actions.some(makesConfig)) return plan;
  const command = torn.startsWith("/boot/grub2/") ? `grub2-mkconfig -o ${torn}` : UPDATE_GRUB;
  const text = `${torn} is half written, and the node may not boot with it: run ${command}`;
  return { ...plan, checks: [...plan.checks, { name: "boot menu", status: "manual", text }] };
}

const makesConfig = (action: Action): boolean =>
  action.kind === "run" && action.command === UPDATE_GRUB;

function planArguments(facts: Facts, wanted: Wanted): Plan {
  const problem = conflictOf(facts, wanted);
  if (problem) return { checks: [problem], actions: [] };
  const cpus = wanted.isolateCpus ?? keptCpus(facts);
  const multipathOff = facts.multipath === "N";
  const args = [
    ...(cpus.length > 0 ? [`isolcpus=${cpus.join(",")}`] : []),
    ...(multipathOff || keepsMultipath(facts) ? [`${MULTIPATH}=Y`] : []),
  ];
  if (args.length === 0) {
    return {
      checks: [{ name: "cpus", status: "ok", text: "none isolated, none asked for" }],
      actions: [],
    };
  }
  const actions = actionsFor(facts, args);
  if (!actions) {
    const text = `neither update-grub nor grubby is here: add ${args.join(" ")} to the kernel's arguments`;
    return { checks: [{ name: "boot", status: "manual", text }], actions: [] };
  }
  const checks: Check[] = [];
  if (cpus.length > 0) {
    const live = new Set(parseCpuList(facts.cpusIsolated));
    const isolated = live.size === cpus.length && cpus.every((cpu) => live.has(cpu));
    checks.push(
      actions.length === 0 && !isolated
        ? { name: "cpus", status: "reboot", text: `${cpus.join(",")} are isolated after a reboot` }
        : check("cpus", actions, `${cpus.join(",")} are isolated`),
    );
    if (cpus.includes(0)) {
      checks.push({
        name: "cpu 0",
        status: "warn",
        text: "most systems keep CPU 0 for themselves",
      });
    }
  } else {
    checks.push(check("boot", actions, args.join(" ")));
  }
  if (multipathOff && actions.length === 0) {
    checks.push({ name: MULTIPATH, status: "reboot", text: "off until a reboot" });
  }
  return { checks, actions };
}

function conflictOf(facts: Facts, { isolateCpus }: Wanted): Check | undefined {
  if (!isolateCpus) return undefined;
  const possible = parseCpuList(facts.cpusPossible);
  const unknown = isolateCpus.filter((cpu) => !possible.includes(cpu));
  const failed = (text: string): Check => ({ name: "cpus", status: "fail", text });
  if (unknown.length > 0) {
    return failed(`cannot isolate CPU ${unknown.join(",")}: the node has ${facts.cpusPossible}`);
  }
  if (possible.every((cpu) => isolateCpus.includes(cpu))) {
    return failed("cannot isolate every CPU: the system itself needs at least one");
  }
  const foreign = facts.isolcpusFiles.filter((file) => file !== GRUB_FILE);
  if (foreign.length > 0 && !facts.journal.has(GRUB_STEP)) {
    const set = isolatedBy(facts.bootArgs[0] ?? "");
    if (set.join() !== isolateCpus.join()) {
      return failed(
        `isolcpus is set in ${foreign.join(", ")}: change it there, or remove it first`,
      );
    }
  }
  return undefined;
}

/** What an earlier run isolated stays so until --undo, also when a later run doesn't name it. */
function keptCpus(facts: Facts): number[] {
  const dropIn = facts.files.get(GRUB_FILE)?.toString();
  if (dropIn !== undefined) return isolatedBy(dropIn);
  return usesGrubby(facts) && facts.journal.has(GRUB_STEP)
    ? isolatedBy(facts.bootArgs[0] ?? "")
    : [];
}

function keepsMultipath(facts: Facts): boolean {
  if (facts.files.get(GRUB_FILE)?.includes(MULTIPATH) === true) return true;
  return facts.journal.has(GRUB_STEP) && facts.bootArgs.some((line) => line.includes(MULTIPATH));
}

function isolatedBy(line: string): number[] {
  const list = /\bisolcpus=([0-9,-]+)/.exec(line)?.[1];
  return list === undefined ? [] : parseCpuList(list);
}

const usesGrubby = (facts: Facts): boolean =>
  facts.tools.has("grubby") && familyOf(facts) !== "debian" && !facts.os.ostree;

function actionsFor(facts: Facts, args: readonly string[]): Action[] | undefined {
  const atBoot =
    facts.bootArgs.length > 0 &&
    facts.bootArgs.every((line) => args.every((arg) => line.split(/\s+/).includes(arg)));
  const applied = atBoot && !isPending(facts, GRUB_STEP);
  if (usesGrubby(facts)) return applied ? [] : [grubby(facts, args)];
  if (!facts.tools.has("update-grub") || facts.grubConfig === undefined) {
    return atBoot ? [] : undefined;
  }
  const settled = applied && facts.grubTorn === undefined;
  // Set elsewhere already, and the same: nothing of ours is needed.
  if (settled && !facts.files.get(GRUB_FILE) && !facts.journal.has("30-grub-defaults")) return [];
  const dropIn = fileAction(facts, {
    name: "30-grub-defaults",
    path: GRUB_FILE,
    content: `${WRITTEN_BY}GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT ${args.join(" ")}"\n`,
  });
  if (dropIn.length === 0 && settled) return [];
  const update: Action = {
    kind: "run",
    name: GRUB_STEP,
    what: `update-grub with ${args.join(" ")}`,
    command: UPDATE_GRUB,
    revert: UPDATE_GRUB,
    refresh: "",
    // It writes the second beside the first, and leaves it there when it is cut off.
    touches: [facts.grubConfig, `${facts.grubConfig}.new`],
  };
  return [...dropIn, update];
}

function grubby(facts: Facts, args: readonly string[]): Action {
  const keys = args.map((arg) => arg.slice(0, arg.indexOf("="))).join(" ");
  return {
    kind: "run",
    name: GRUB_STEP,
    what: `grubby: ${args.join(" ")}`,
    command: `grubby --update-kernel=ALL --remove-args="${keys}" && grubby --update-kernel=ALL --args="${args.join(" ")}"`,
    revert: ["isolcpus", MULTIPATH].map((key) => earlierArgument(facts, key)).join(" && "),
    refresh: "",
    touches: [
      "/etc/default/grub",
      "/etc/kernel/cmdline",
      // GRUB itself writes there at every boot: only where the kernels' arguments are kept in it.
      ...(facts.bootArgsInGrubenv ? ["/boot/grub2/grubenv"] : []),
      "/boot/grub2/grub.cfg",
      "/boot/loader/entries/*.conf",
    ],
  };
}

/** What gives an argument back as the kernels have it now: the operator's own value, or none. */
function earlierArgument({ bootArgs }: Facts, key: string): string {
  const values = new Set(
    bootArgs.map((line) => line.split(/\s+/).find((word) => word.startsWith(`${key}=`)) ?? ""),
  );
  const [value = ""] = values;
  if (values.size > 1 || !/^[\w.=,:-]*$/.test(value)) {
    return `echo "${key}: the kernels had different values before; set them with grubby" >&3`;
  }
  const remove = `grubby --update-kernel=ALL --remove-args="${key}"`;
  return value === "" ? remove : `${remove} && grubby --update-kernel=ALL --args="${value}"`;
}
