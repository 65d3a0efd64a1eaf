import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSize } from "./size.ts";
import { formatTable } from "./table.ts";

test("formatSize() uses binary units with at most one decimal", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [1, "1B"],
    [1023, "1023B"],
    [1024, "1KiB"],
    [1536, "1.5KiB"],
    [10_485_761, "10MiB"],
    [1_073_741_823, "1GiB"],
    [1_073_741_824, "1GiB"],
    [10_737_418_240, "10GiB"],
    [374_710_730_752, "349GiB"],
    [371_489_505_280, "346GiB"],
    [2 ** 50 * 1.5, "1.5PiB"],
    [Number.MAX_SAFE_INTEGER, "8PiB"],
  ];
  for (const [bytes, text] of cases) assert.equal(formatSize(bytes), text);
});

test("formatTable() aligns columns to the left, two spaces apart, without trailing spaces", () => {
  const text = formatTable({
    head: ["ID", "STATUS", "X"],
    rows: [
      ["a-long-name", "Online", ""],
      ["└─", "", "y"],
    ],
  });
  assert.equal(
    text,
    ["ID           STATUS  X", "a-long-name  Online", "└─                   y", ""].join("\n"),
  );
});

test("formatTable() prints the head of an empty table", () => {
  assert.equal(formatTable({ head: ["ID", "STATUS"], rows: [] }), "ID  STATUS\n");
});

test("formatTable() counts wide characters as they are drawn", () => {
  const text = formatTable({ head: ["A", "B"], rows: [["池", "x"]] });
  assert.equal(text, "A   B\n池  x\n");
});
