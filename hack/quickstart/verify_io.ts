/**
 * The native verify_io tool as an object: a writer that knows which writes were acknowledged, and
 * checks that read everything back. Its JSON lines become typed events.
 * Invariant: a check that did not look at every block that was written has failed, whatever its exit code.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface, type Interface } from "node:readline";

const program = path.resolve(import.meta.dirname, "..", "..", "build", "release", "verify_io");

/** One JSON line of the tool. Numbers are absent where an event does not have them. */
export interface VerifyEvent {
  readonly event: string;
  readonly ok?: boolean;
  readonly iops?: number;
  readonly p50_us?: number;
  readonly p99_us?: number;
  readonly p999_us?: number;
  readonly max_us?: number;
  readonly stall_ms?: number;
  readonly longest_stall_ms?: number;
  readonly writes?: number;
  readonly reads?: number;
  readonly blocks?: number;
  readonly mib?: number;
  readonly hash?: string;
  readonly [field: string]: unknown;
}

export interface Finished {
  readonly code: number;
  readonly events: readonly VerifyEvent[];
  readonly result: VerifyEvent | null;
  readonly stderr: string;
}

/**
 * What keeps the result of `verify_io verify` from being a proof; null when every block that was ever written was
 * read and right.
 */
export function whyNoProof({ code, result }: Pick<Finished, "code" | "result">): string | null {
  if (code !== 0) return `exited with ${code}`;
  if (result?.ok !== true) return "did not say that all is right";
  const { reads, blocks_written: written } = result;
  if (typeof written !== "number" || typeof reads !== "number") return "did not say what it read";
  if (written === 0) return "had nothing to check: its journal knows of no write";
  return reads === written ? null : `checked ${reads} of ${written} blocks`;
}

export class VerifyIo {
  readonly finished: Promise<Finished>;
  readonly events: VerifyEvent[] = [];
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  /** The tool is killed when `signal` is aborted. */
  constructor(
    args: readonly string[],
    { onEvent, signal }: { onEvent?: (event: VerifyEvent) => void; signal?: AbortSignal } = {},
  ) {
    if (!existsSync(program))
      throw new Error(`Cannot run ${program}: not built; run npm run build`);
    signal?.throwIfAborted();
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const kill = () => child.kill("SIGKILL");
    signal?.addEventListener("abort", kill, { once: true });
    child.once("close", () => signal?.removeEventListener("abort", kill));
    this.#child = child;
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const lines = createInterface({ input: child.stdout });
    this.#lines = lines;
    lines.on("line", (text) => {
      const event = JSON.parse(text) as VerifyEvent; // our own tool's output
      this.events.push(event);
      onEvent?.(event);
    });
    const read = new Promise((resolve) => lines.once("close", resolve));
    this.finished = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        void read.then(() => {
          const result = this.events.findLast((event) => event.event === "result") ?? null;
          resolve({ code: code ?? (signal ? 128 : 1), events: this.events, result, stderr });
        });
      });
    });
  }

  /** Writes acknowledged so far, as the last progress line says. */
  get acknowledged(): number {
    return this.events.findLast((event) => event.event === "progress")?.writes ?? 0;
  }

  /**
   * Waits until `count` more writes were acknowledged than when it was called.
   * @throws if the writer ends first or `seconds` pass, saying how far it came
   */
  async acknowledges(count: number, seconds = 60): Promise<void> {
    const from = this.acknowledged;
    const enough = () => this.acknowledged >= from + count;
    const signal = AbortSignal.timeout(seconds * 1000);
    while (!enough()) {
      const ended = await Promise.race([
        this.finished.then(() => true),
        once(this.#lines, "line", { signal }).then(
          () => false,
          () => true,
        ), // a time-out or its end
      ]);
      if (ended && !enough()) {
        throw new Error(
          `The writer acknowledged ${this.acknowledged - from} of ${count} more writes in ${seconds} s or until its end`,
        );
      }
    }
  }

  /** Asks the writer to flush and finish. */
  stop(): void {
    this.#child.kill("SIGTERM");
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /**
   * Runs the tool to its end.
   * @throws with its words when it does not end well, or when its check is no proof; the signal's reason when aborted
   */
  static async run(args: readonly string[], signal?: AbortSignal): Promise<Finished> {
    const finished = await new VerifyIo(args, signal ? { signal } : {}).finished;
    signal?.throwIfAborted();
    const why =
      args[0] === "verify"
        ? whyNoProof(finished)
        : finished.code === 0
          ? null
          : `exited with ${finished.code}`;
    if (why !== null) {
      const mismatches = finished.events.filter((e) => e.event === "mismatch").slice(0, 5);
      const said = [
        ...mismatches.map((e) => JSON.stringify(e)),
        JSON.stringify(finished.result),
        finished.stderr,
      ];
      throw new Error(`verify_io ${args.join(" ")}\n${why}:\n${said.join("\n")}`);
    }
    return finished;
  }
}

/**
 * A digest for each MiB of `bytes` from `offsetBytes` on, to compare replicas byte by byte.
 * @throws if the tool did not read every MiB
 */
export async function digest(
  uri: string,
  bytes: number,
  offsetBytes: number,
  signal?: AbortSignal,
): Promise<string[]> {
  const area = ["--bytes", String(bytes), "--offset-bytes", String(offsetBytes)];
  const finished = await VerifyIo.run(["digest", "--uri", uri, ...area], signal);
  const hashes = finished.events
    .filter((event) => event.event === "digest")
    .map((event) => event.hash);
  if (hashes.length !== Math.ceil(bytes / (1024 * 1024))) {
    throw new Error(`Cannot compare ${uri}: ${hashes.length} digests for ${bytes} bytes`);
  }
  return hashes.map((hash) => {
    if (typeof hash !== "string") throw new Error(`Cannot compare ${uri}: a digest has no hash`);
    return hash;
  });
}

/** The MiB in which two replicas differ; empty when they are identical. */
export function differingMiB(one: readonly string[], other: readonly string[]): number[] {
  const longer = Math.max(one.length, other.length);
  return Array.from({ length: longer }, (_, mib) => mib).filter((mib) => one[mib] !== other[mib]);
}
