/**
 * Our programs as they are deployed: in a pod's surroundings, with the token of their own service account, every call
 * to the API server written down.
 */
import path from "node:path";
import type { ControlPlane } from "../../../hack/cluster/kube/control_plane.ts";
import type { ProcessTable } from "../../../hack/cluster/process.ts";
import type { Cleanup } from "../cluster.ts";
import { KubeApi } from "./api.ts";
import { inPod } from "./pod.ts";
import { ApiRecorder } from "./recorder.ts";

const ROOT = path.resolve(import.meta.dirname, "..", "..", "..");

export type ProgramOptions = {
  readonly plane: ControlPlane;
  readonly processes: ProcessTable;
  /** Scratch space. */
  readonly folder: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Of the process, and its pod. */
  readonly name: string;
  readonly main: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
};

/** One program, which can be ended and started again under the same account and recorder. */
export class Program {
  readonly recorder: ApiRecorder;
  readonly #options: ProgramOptions;
  readonly #token: string;

  private constructor(options: ProgramOptions, recorder: ApiRecorder, token: string) {
    this.#options = options;
    this.recorder = recorder;
    this.#token = token;
  }

  /** Everything but the process; start() starts it. */
  static async create(t: Cleanup, options: ProgramOptions): Promise<Program> {
    const { plane, namespace, serviceAccount } = options;
    const account = new KubeApi(await plane.kubeconfigFor(namespace, serviceAccount));
    if (account.token === null) throw new Error(`No token for ${serviceAccount}`);
    const recorder = await ApiRecorder.start(account);
    t.after(() => recorder.stop());
    return new Program(options, recorder, account.token);
  }

  get name(): string {
    return this.#options.name;
  }

  start(): void {
    const { folder, namespace, name, main, args, env, processes } = this.#options;
    const { host, port, caPem } = this.recorder;
    const account = { folder: path.join(folder, `${name}-account`), namespace, caPem, host, port };
    const pod = inPod({ ...account, token: this.#token }, [process.execPath, main, ...args]);
    processes.start(name, pod.command, {
      cwd: ROOT,
      env: { ...pod.env, MY_POD_NAME: name, MY_POD_NAMESPACE: namespace, ...env },
    });
  }

  async end(how: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await this.#options.processes.end(this.#options.name, how);
  }

  /** The last words of the program. */
  tail(lines = 20): string {
    return this.#options.processes.logTail(this.#options.name, lines);
  }
}
