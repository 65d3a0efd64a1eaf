/**
 * A guest in which csi-node runs as on a node, and the calls that a kubelet makes to it.
 * Invariants: the guest's plugin and the volume's target meet over the host's 127.0.0.1, which is 10.0.2.2 in the guest; a
 * killed plugin leaves its socket behind, as a crash does.
 */
import assert from "node:assert/strict";
import type { Call, Outcome } from "../csi/client.ts";
import { Vm } from "./vm.ts";

const SOCKET = "/run/csi/csi.sock";
const KUBELET = "/var/lib/kubelet";
export const stagingOf = (uuid: string) =>
  `${KUBELET}/plugins/kubernetes.io/csi/pv/pvc-${uuid}/globalmount`;
export const targetOf = (uuid: string, pod: string) =>
  `${KUBELET}/pods/${pod}/volumes/kubernetes.io~csi/pvc-${uuid}/mount`;
const writer = { accessMode: { mode: "SINGLE_NODE_WRITER" } };
export const mount = (fsType: string) => ({ ...writer, mount: { fsType } });
export const block = { ...writer, block: {} };

/** The calls, in the form of CsiGuest.call(). */
export const stage = (
  volumeId: string,
  publishContext: Record<string, string>,
  volumeCapability: Call[1],
): Call => [
  "NodeStageVolume",
  { volumeId, publishContext, stagingTargetPath: stagingOf(volumeId), volumeCapability },
];
export const publish = (
  volumeId: string,
  pod: string,
  volumeCapability: Call[1],
  readonly = false,
): Call => [
  "NodePublishVolume",
  {
    ...{ volumeId, volumeCapability, readonly, stagingTargetPath: stagingOf(volumeId) },
    targetPath: targetOf(volumeId, pod),
  },
];
export const unpublish = (volumeId: string, pod: string): Call => [
  "NodeUnpublishVolume",
  { volumeId, targetPath: targetOf(volumeId, pod) },
];
export const unstage = (volumeId: string): Call => [
  "NodeUnstageVolume",
  { volumeId, stagingTargetPath: stagingOf(volumeId) },
];

export function succeeded(outcomes: readonly Outcome[]): void {
  for (const { method, code, message } of outcomes)
    assert.equal(code, "OK", `${method}: ${message}`);
}

/** The context of a ControllerPublishVolume's answer, as the guest needs it. */
export function contextInGuest(published: Outcome): Record<string, string> {
  succeeded([published]);
  const { publishContext } = published.reply as { publishContext: Record<string, string> }; // CSI message
  const { uri = "" } = publishContext;
  return { ...publishContext, uri: uri.replace("//127.0.0.1:", "//10.0.2.2:") };
}

/** A booted guest with the node plugin in it. */
export class CsiGuest {
  readonly #vm: Vm;
  readonly #bundles: string;
  readonly #node: string;
  #files = 0;

  private constructor(vm: Vm, bundles: string, node: string) {
    this.#vm = vm;
    this.#bundles = bundles;
    this.#node = node;
  }

  /** `bundles`: the folder with csi_node.cjs and csi_client.cjs; `node`: the name that the plugin has. */
  static async boot(bundles: string, node: string): Promise<CsiGuest> {
    const guest = new CsiGuest(await Vm.boot(), bundles, node);
    await guest.startPlugin();
    return guest;
  }

  get vm(): Vm {
    return this.#vm;
  }

  async sh(script: string, seconds = 120): Promise<string> {
    const { code, stdout, stderr } = await this.#vm.run(`set -e\n${script}`, seconds);
    const log = code === 0 ? "" : (await this.#vm.run("tail -n 20 /run/csi-node.*.log", 20)).stdout;
    assert.equal(
      code,
      0,
      `guest: ${script}\n${stdout}\n${stderr}\n${log}\n${this.#vm.consoleTail()}`,
    );
    return stdout;
  }

  /** Waits for this start's own word: a crashed plugin leaves its socket behind. */
  async startPlugin(): Promise<void> {
    const options = `-c ${SOCKET} -n ${this.#node} -g 127.0.0.1:10199 --nvme-nr-io-queues=2 --nvme-ctrl-loss-tmo=1980`;
    await this.sh(`log=/run/csi-node.$((++n)).log; while [ -e $log ]; do log=/run/csi-node.$((++n)).log; done
      ${process.execPath} ${this.#bundles}/csi_node.cjs ${options} >$log 2>&1 &
      echo $! >/run/csi-node.pid
      for i in $(seq 300); do grep -q '"msg":"serving"' $log && break; kill -0 $!; sleep 0.2; done
      grep -q '"msg":"serving"' $log`);
  }

  /** As a crash: nothing is cleaned up, the stale socket stays. */
  async killPlugin(): Promise<void> {
    await this.sh("kill -9 $(cat /run/csi-node.pid)");
  }

  async call(calls: readonly Call[]): Promise<Outcome[]> {
    const file = `/run/calls-${++this.#files}.json`;
    const text = await this.sh(
      `cat >${file} <<'JSON'\n${JSON.stringify(calls)}\nJSON\n${process.execPath} ${this.#bundles}/csi_client.cjs unix:${SOCKET} ${file}`,
      300,
    );
    return text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Outcome); // printed by the client
  }
}
