/**
 * A virtual machine with a stock Debian kernel, for tests that need a real NVMe/TCP initiator.
 * QEMU emulates in software: function and failover only, never figures. The host's 127.0.0.1 is
 * 10.0.2.2 in the guest; every program of the host runs in the guest under its own path.
 * Invariants: one QEMU process a Vm, ended by close(); its folder is removed with it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type KernelChoice, prepareKernel } from "./kernel.ts";

export interface GuestResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface VmOptions {
  /** Otherwise that of the environment: see kernel.ts. */
  readonly kernel?: KernelChoice;
  readonly memoryMiB?: number;
  readonly cpus?: number;
  readonly modules?: readonly string[];
  readonly bootSeconds?: number;
}

/**
 * A guest's script that ends when `count` more writes of a namespace such as `nvme0n1` completed.
 * Older kernels count the I/O of a multipath namespace at its paths (nvme0c0n1) only.
 */
export const untilWritten = (device: string, count: number): string => {
  const paths = `/sys/class/nvme/nvme*/${device.replace(/n(\d+)$/, "c*n$1")}/stat`;
  return `written() { cat /sys/block/${device}/stat ${paths} 2>/dev/null | awk '{ n += $5 } END { print n + 0 }'; }
   want=$(($(written) + ${count}))
   for i in $(seq 200); do [ $(written) -ge $want ] && break; sleep 0.2; done; [ $(written) -ge $want ]`;
};

export class Vm {
  readonly kernelVersion: string;
  readonly #folder: string;
  readonly #qemu: ChildProcess;
  readonly #control: number;
  #jobs = 0;

  private constructor(folder: string, qemu: ChildProcess, control: number, kernelVersion: string) {
    this.#folder = folder;
    this.#qemu = qemu;
    this.#control = control;
    this.kernelVersion = kernelVersion;
  }

  /** Boots a guest and waits until it takes commands. @throws with the console's tail if it does not. */
  static async boot(options: VmOptions = {}): Promise<Vm> {
    const kernel = prepareKernel(options.kernel);
    const folder = mkdtempSync(path.join(os.tmpdir(), "mayastor-vm-"));
    const spool = path.join(folder, "spool");
    mkdirSync(spool);
    cpSync(path.join(import.meta.dirname, "guest_main.sh"), path.join(spool, "guest_main.sh"));
    const modules = options.modules ?? ["nvme-tcp"];
    writeFileSync(path.join(spool, "options"), `VM_MODULES="${modules.join(" ")}"\n`);
    execFileSync("mkfifo", [path.join(folder, "control.in"), path.join(folder, "control.out")]);
    const console = path.join(folder, "console.log");
    const share = (dir: string, tag: string, readOnly: boolean) => [
      "-virtfs",
      `local,path=${dir},mount_tag=${tag},security_model=none${readOnly ? ",readonly=on,multidevs=remap" : ""}`,
    ];
    const args = [
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ...["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
      ...["-smp", String(options.cpus ?? 2), "-m", String(options.memoryMiB ?? 1024)],
      ...["-kernel", kernel.vmlinux, "-initrd", kernel.initrd],
      "-append",
      "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check cryptomgr.notests apparmor=0 audit=0 i8042.noaux i8042.nokbd random.trust_cpu=on rcupdate.rcu_expedited=1",
      ...["-serial", `file:${console}`],
      ...share("/", "host", true),
      ...share(kernel.layer, "kernel", true),
      ...share(spool, "spool", false),
      ...["-device", "virtio-serial-pci"],
      ...["-chardev", `pipe,id=control,path=${path.join(folder, "control")}`],
      ...["-device", "virtserialport,chardev=control,nr=1"],
      ...["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"],
      ...[
        "-netdev",
        "user,id=n0,net=10.0.2.0/24,host=10.0.2.2",
        "-device",
        "virtio-net-pci,netdev=n0,romfile=",
      ],
    ];
    const log = openSync(path.join(folder, "qemu.log"), "w");
    const qemu = spawn("qemu-system-x86_64", args, { stdio: ["ignore", log, log] });
    const control = openSync(path.join(folder, "control.in"), "r+"); // r+: does not wait for a reader
    const vm = new Vm(folder, qemu, control, kernel.version);
    const deadline = Date.now() + (options.bootSeconds ?? 180) * 1000;
    while (!existsSync(path.join(spool, "ready"))) {
      if (qemu.exitCode !== null || Date.now() > deadline) {
        const tail = (file: string) =>
          existsSync(file) ? readFileSync(file, "utf8").slice(-2000) : "";
        const said = `${tail(console)}\n${tail(path.join(folder, "qemu.log"))}`;
        await vm.close();
        throw new Error(`The VM did not come up. Its console and QEMU said:\n${said}`);
      }
      await sleep(100);
    }
    return vm;
  }

  /** Runs a bash script in the guest. Resolves with its exit code; 124 when it ran out of time. */
  async run(script: string, timeoutSeconds = 120): Promise<GuestResult> {
    const job = `job${++this.#jobs}`;
    const folder = path.join(this.#folder, "spool", job);
    mkdirSync(folder);
    writeFileSync(path.join(folder, "cmd"), script);
    writeSync(this.#control, `${job}\n`);
    const text = (name: string) =>
      existsSync(path.join(folder, name)) ? readFileSync(path.join(folder, name), "utf8") : "";
    const deadline = Date.now() + timeoutSeconds * 1000;
    while (!existsSync(path.join(folder, "rc"))) {
      if (this.#qemu.exitCode !== null)
        throw new Error(`The VM ended during: ${script}\n${this.consoleTail()}`);
      if (Date.now() > deadline)
        return {
          code: 124,
          stdout: text("out"),
          stderr: `${text("err")}\nout of time after ${timeoutSeconds} s\n${this.consoleTail()}`,
        };
      await sleep(50);
    }
    return { code: Number(text("rc")), stdout: text("out"), stderr: text("err") };
  }

  consoleTail(): string {
    return readFileSync(path.join(this.#folder, "console.log"), "utf8").slice(-3000);
  }

  async close(): Promise<void> {
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) {
      const gone = new Promise((resolve) => this.#qemu.once("exit", resolve));
      this.#qemu.kill("SIGKILL");
      await gone;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
