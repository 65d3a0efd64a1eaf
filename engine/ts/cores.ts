/**
 * Core lists and masks, as the `-l` and `-m` options write them.
 *
 * Invariant: the result is sorted, without repeats, and not empty; core ids are what the operating
 * system calls the cores.
 */
import { SvcError } from "#common/errors.ts";

const CORE_MAX = 1023;

function invalid(text: string, want: string): SvcError {
  return new SvcError("invalid-argument", `"${text}" is not a core list: want ${want}`);
}

/** "3,4", "0-1", "0,2-3"; brackets as DPDK takes them are allowed. */
export function parseCoreList(text: string): number[] {
  const want = "core numbers and ranges such as 0-1 or 3,4";
  const cores = new Set<number>();
  for (const part of text.replace(/^\[(.*)\]$/, "$1").split(",")) {
    const match = /^\s*(\d{1,4})(?:-(\d{1,4}))?\s*$/.exec(part);
    if (!match) throw invalid(text, want);
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (first > last || last > CORE_MAX) throw invalid(text, want);
    for (let core = first; core <= last; core++) cores.add(core);
  }
  return [...cores].sort((a, b) => a - b);
}

/** "0x3" -> [0, 1]. */
export function parseCoreMask(text: string): number[] {
  const want = "a hexadecimal mask such as 0x3";
  if (!/^(0x)?[0-9a-fA-F]{1,256}$/.test(text)) throw invalid(text, want);
  const mask = BigInt(text.toLowerCase().startsWith("0x") ? text : `0x${text}`);
  if (mask === 0n) throw invalid(text, want);
  const cores: number[] = [];
  for (let core = 0; mask >> BigInt(core) > 0n; core++) {
    if ((mask >> BigInt(core)) & 1n) cores.push(core);
  }
  return cores;
}
