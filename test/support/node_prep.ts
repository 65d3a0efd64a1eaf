/** node-prep as a test runs it: as a program over ssh, or one host's task without ssh in between. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import {
  type HostResult,
  type HostStatus,
  type HostTask,
  prepareHost,
} from "../../scripts/node-prep/host.ts";
import type { Wanted } from "../../scripts/node-prep/options.ts";
import type { SshNode } from "./ssh_node.ts";

const root = path.resolve(import.meta.dirname, "../..");
export const WANTED = ["--hugepages=512", "--isolate-cpus=2,3", "--open-firewall=10.0.0.0/24"];

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly progress: string;
}

export async function nodePrep(...args: string[]): Promise<Ran> {
  const main = path.join(root, "scripts/node-prep/main.ts");
  try {
    const done = await promisify(execFile)(process.execPath, ["--import", "tsx", main, ...args], {
      cwd: root,
    });
    return { code: 0, out: done.stdout, progress: done.stderr };
  } catch (error) {
    const failed = error as { code: number; stdout: string; stderr: string }; // execFile's own shape
    return { code: failed.code, out: failed.stdout, progress: failed.stderr };
  }
}

export const reach = (node: SshNode) => [`--host=${node.host}`, `--ssh-config=${node.sshConfig}`];

export const NOTHING: Wanted = {
  hugepages: undefined,
  isolateCpus: undefined,
  openFirewall: undefined,
  installPackages: false,
};
export const MUCH: Wanted = {
  ...NOTHING,
  hugepages: 512,
  isolateCpus: [2, 3],
  openFirewall: "10.0.0.0/24",
};

/** One prepareHost without ssh in between. */
export function task(
  node: SshNode,
  mode: HostTask["mode"],
  wanted: Wanted = MUCH,
  more: Partial<HostTask> = {},
): Promise<HostResult> {
  return prepareHost({
    name: "node",
    node: undefined,
    mode,
    wanted,
    kubectl: undefined,
    run: node.direct,
    signal: new AbortController().signal,
    progress: () => {},
    ...more,
  });
}

/** A task that must end so. */
export async function ends(
  status: HostStatus,
  ...args: Parameters<typeof task>
): Promise<HostResult> {
  const result = await task(...args);
  assert.equal(result.status, status, JSON.stringify(result, null, 1));
  return result;
}

export function assertSameTree(node: SshNode, wanted: Map<string, string>, when: string): void {
  const now = node.tree();
  for (const file of new Set([...now.keys(), ...wanted.keys()])) {
    assert.equal(now.get(file), wanted.get(file), `${file} ${when}`);
  }
}

/** A firewall that drops what nobody let in. */
export const NFTABLES =
  "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n";
