import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isStaticProgram } from "./kernel.ts";

/** An ELF header with program headers of these types behind it. */
function program(types: readonly number[]): Buffer {
  const elf = Buffer.alloc(64 + types.length * 56);
  elf.write("\x7fELF", 0, "latin1");
  elf[4] = 2;
  elf[5] = 1;
  elf.writeBigUInt64LE(64n, 0x20);
  elf.writeUInt16LE(56, 0x36);
  elf.writeUInt16LE(types.length, 0x38);
  types.forEach((type, index) => {
    elf.writeUInt32LE(type, 64 + index * 56);
  });
  return elf;
}

test("isStaticProgram() knows a program that needs a loader", () => {
  assert.equal(isStaticProgram(program([1, 1, 4])), true);
  assert.equal(isStaticProgram(program([6, 3, 1])), false);
  assert.equal(isStaticProgram(readFileSync(process.execPath)), false, "Node is linked to libc");
});

test("isStaticProgram() refuses what is no such program", () => {
  assert.throws(() => isStaticProgram(Buffer.from("#!/bin/sh\n")), /Not a 64-bit/);
});
