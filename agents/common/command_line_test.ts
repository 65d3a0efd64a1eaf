import assert from "node:assert/strict";
import { test } from "node:test";
import { readCommandLine } from "./command_line.ts";

const program = {
  usage: "Usage: thing [--fast] [--name=NAME]",
  options: { fast: { type: "boolean" }, name: { type: "string" } },
} as const;

test("readCommandLine() gives the options", () => {
  const { parsed } = readCommandLine(program, ["--fast", "--name=a"]);
  assert.deepEqual({ ...parsed?.values }, { fast: true, name: "a" });
});

test("readCommandLine() ends with the usage at --help, whatever else is there", () => {
  for (const args of [["--help"], ["-h"], ["--bogus", "--help"]]) {
    assert.deepEqual(readCommandLine(program, args).end, { code: 0, text: `${program.usage}\n` });
  }
});

test("readCommandLine() says what is wrong in one line, then the usage", () => {
  for (const [args, line] of [
    [["--bogus"], "Cannot start: Unknown option '--bogus'"],
    [["--name"], "Cannot start: Option '--name <value>' argument missing"],
    [["word"], "Cannot start: Unexpected argument 'word'"],
  ] as const) {
    const { end } = readCommandLine(program, args);
    assert.deepEqual(end, { code: 2, text: `${line}\n${program.usage}\n` });
  }
});

test("readCommandLine() takes as many words as the program does", () => {
  const words = { ...program, positionalsMax: 1 };
  assert.deepEqual(readCommandLine(words, ["up"]).parsed?.positionals, ["up"]);
  assert.match(
    readCommandLine(words, ["up", "down"]).end?.text ?? "",
    /Unexpected argument 'down'/,
  );
});
