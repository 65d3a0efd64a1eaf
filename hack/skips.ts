/**
 * Tests that a step's programs skipped by themselves, with their reasons, read from the files they wrote.
 *
 * Two kinds of file: JSON lines of skip_reporter.ts (node:test), and XML of GoogleTest (GTEST_OUTPUT).
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export interface InnerSkip {
  readonly name: string;
  readonly reason: string;
}

/** All skips of a folder, in the order of its files. What a program that was ended left half written is left out. */
export function readSkips(folder: string): InnerSkip[] {
  return readdirSync(folder)
    .sort()
    .flatMap((file) => {
      const text = readFileSync(path.join(folder, file), "utf8");
      return file.endsWith(".xml") ? fromXml(text) : fromLines(text);
    });
}

const fromLines = (text: string): InnerSkip[] =>
  text
    .split("\n")
    .slice(0, -1) // after the last line's end: nothing, or half a line
    .map((line) => JSON.parse(line) as InnerSkip); // written by skip_reporter.ts

function fromXml(text: string): InnerSkip[] {
  const skips: InnerSkip[] = [];
  for (const [, attributes = "", body = ""] of text.matchAll(
    /<testcase ([^>]*[^/])>(.*?)<\/testcase>/gs,
  )) {
    const skipped = /<skipped(?: message="([^"]*)")?/.exec(body);
    if (!skipped) continue;
    const value = (name: string) =>
      plain(new RegExp(`(?:^| )${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
    // GoogleTest puts the place before the words: "file.cc:89&#x0A;needs ...".
    const words = plain(skipped[1] ?? "").replace(/^\S+:\d+\n/, "");
    skips.push({
      name: `${value("classname")}.${value("name")}`,
      reason: words.trim().replaceAll("\n", " ") || "no reason given",
    });
  }
  return skips;
}

const NAMED: Readonly<Record<string, string>> = {
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  amp: "&",
};
const plain = (text: string): string =>
  text.replaceAll(/&(?:#x([0-9a-fA-F]+)|(\w+));/g, (whole, code?: string, name?: string) =>
    code === undefined
      ? (NAMED[name ?? ""] ?? whole)
      : String.fromCodePoint(Number.parseInt(code, 16)),
  );

/** Lines for a table: each reason once, with the tests it kept from running. */
export function skipLines(skips: readonly InnerSkip[]): string[] {
  const byReason = new Map<string, string[]>();
  for (const { name, reason } of skips) {
    byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  }
  return [...byReason].map(([reason, names]) => `not run: ${names.join("; ")}: ${reason}`);
}
