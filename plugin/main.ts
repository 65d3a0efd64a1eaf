#!/usr/bin/env node
/** kubectl-mayastor: volumes, pools and nodes from the command line, through REST v0. */
import { systemClock } from "#common/clock.ts";
import { errorMessage } from "#common/errors.ts";
import manifest from "../package.json" with { type: "json" };
import { runProgram } from "./program.ts";

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort(new Error("interrupted")));

// `kubectl-mayastor get volumes | head` closes the pipe early: no reason for a stack trace.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

runProgram(process.argv.slice(2), {
  terminal: {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  },
  clock: systemClock,
  env: process.env,
  signal: interrupted.signal,
  version: manifest.version,
}).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${errorMessage(error)}\n`);
    process.exitCode = 1;
  },
);
