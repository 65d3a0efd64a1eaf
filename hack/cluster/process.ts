/**
 * Long-running programs of a local cluster: started detached with their output in a log file, recorded
 * in the cluster's folder, so that whatever a killed run left behind can be found and ended later.
 * Invariants: a process is only ever signalled when its id AND its start time are the recorded ones; a record
 * is only believed in a folder that nobody else may write to.
 */
import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ownFolder } from "./folder.ts";

interface Recorded {
  readonly name: string;
  readonly pid: number;
  /** Clock ticks since boot, field 22 of /proc/PID/stat: tells a reused id from ours. */
  readonly startTicks: string;
}

/** When a process started, in clock ticks since boot; null when it has ended. */
export function startTicks(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? null : (fields[19] ?? null); // a zombie has ended
  } catch {
    return null;
  }
}

const isAlive = (process: Recorded): boolean => startTicks(process.pid) === process.startTicks;

function signal(target: Recorded, name: NodeJS.Signals): void {
  if (!isAlive(target)) return;
  try {
    process.kill(target.pid, name);
  } catch {
    // ended between the look and the signal
  }
}

/** The programs of one folder. */
export class ProcessTable {
  readonly #folder: string;
  #recorded: Recorded[] = [];

  /** @throws when somebody else owns the folder or may write to it */
  constructor(folder: string) {
    this.#folder = folder;
    ownFolder(folder);
    mkdirSync(path.join(folder, "log"), { recursive: true });
    if (existsSync(this.#file)) {
      this.#recorded = (JSON.parse(readFileSync(this.#file, "utf8")) as Recorded[]).filter(isAlive); // our own file
    }
  }

  get #file(): string {
    return path.join(this.#folder, "processes.json");
  }

  #save(): void {
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#recorded, null, 1));
    renameSync(`${this.#file}.new`, this.#file);
  }

  get names(): string[] {
    return this.#recorded.filter(isAlive).map((recorded) => recorded.name);
  }

  /** Those that ended without being told to. */
  get ended(): string[] {
    return this.#recorded.filter((recorded) => !isAlive(recorded)).map(({ name }) => name);
  }

  isAlive(name: string): boolean {
    return this.#recorded.some((recorded) => recorded.name === name && isAlive(recorded));
  }

  pid(name: string): number | null {
    return (
      this.#recorded.find((recorded) => recorded.name === name && isAlive(recorded))?.pid ?? null
    );
  }

  logFile(name: string): string {
    return path.join(this.#folder, "log", `${name}.log`);
  }

  /** The end of a program's output, for error messages. */
  logTail(name: string, lines = 15): string {
    const file = this.logFile(name);
    return existsSync(file)
      ? readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n")
      : "(no output)";
  }

  start(
    name: string,
    command: readonly string[],
    options: { cwd: string; env?: Record<string, string> },
  ): void {
    if (this.isAlive(name)) throw new Error(`Cannot start ${name}: it is running already`);
    const [program, ...args] = command;
    if (program === undefined) throw new Error(`Cannot start ${name}: no command`);
    const log = openSync(this.logFile(name), "a");
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      detached: true,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    child.unref();
    child.once("error", (error) => console.error(`Cannot start ${name}: ${error.message}`));
    const pid = child.pid;
    const ticks = pid === undefined ? null : startTicks(pid);
    if (pid === undefined || ticks === null)
      throw new Error(`Cannot start ${name}: ${command.join(" ")}`);
    this.#recorded = [
      ...this.#recorded.filter((r) => r.name !== name),
      { name, pid, startTicks: ticks },
    ];
    this.#save();
  }

  /** Sends a signal and waits until the program is gone; SIGKILL after `graceMs`. */
  async end(name: string, how: NodeJS.Signals = "SIGTERM", graceMs = 15_000): Promise<void> {
    const target = this.#recorded.find((recorded) => recorded.name === name);
    if (!target) return;
    signal(target, how);
    const deadline = Date.now() + graceMs;
    while (isAlive(target)) {
      if (Date.now() > deadline) signal(target, "SIGKILL");
      await sleep(20);
    }
    this.#recorded = this.#recorded.filter((recorded) => recorded !== target);
    this.#save();
  }

  /** Ends all, the newest first. */
  async endAll(how: NodeJS.Signals = "SIGTERM"): Promise<void> {
    for (const { name } of this.#recorded.toReversed()) await this.end(name, how);
  }

  /** SIGKILL to all at once; their end is not waited for. */
  killAll(): void {
    for (const recorded of this.#recorded) signal(recorded, "SIGKILL");
  }
}
