/**
 * A lock between processes of this machine: flock(2) on a file, held by a small child process.
 * Why: Node has no flock; the child ends with its standard input, so that a killed holder lets go at once.
 */
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";

/** Waits for the lock; the result gives it back. `onWait` is called when somebody else holds it. */
export async function holdLock(file: string, onWait?: () => void): Promise<() => Promise<void>> {
  mkdirSync(path.dirname(file), { recursive: true });
  const child = spawn("flock", ["--exclusive", file, "sh", "-c", "echo held; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const waiting = onWait === undefined ? null : setTimeout(onWait, 1000);
  try {
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) =>
        reject(new Error(`Cannot lock ${file}: flock ended with ${code}`)),
      );
      child.stdout.once("data", () => resolve());
    });
  } finally {
    if (waiting !== null) clearTimeout(waiting);
  }
  return async () => {
    child.stdin.end();
    await ended;
  };
}
