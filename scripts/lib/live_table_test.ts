import assert from "node:assert/strict";
import { test } from "node:test";
import { LiveTable } from "./live_table.ts";

const ESC = "\x1b";
const PIECES = new RegExp(`${ESC}\\[\\d*[A-Z]|\n|[^${ESC}\n]+`, "g");
const UP = new RegExp(`^${ESC}\\[(\\d+)A$`);

/** A terminal that shows what was written, as one of its size would: rows above the top are gone. */
class Screen {
  readonly isTTY = true;
  readonly columns: number;
  readonly rows: number;
  readonly #lines: string[] = [""];
  #row = 0;

  constructor(columns: number, rows: number) {
    this.columns = columns;
    this.rows = rows;
  }

  write(text: string): void {
    for (const [part] of text.matchAll(PIECES)) {
      const up = UP.exec(part)?.[1];
      if (up !== undefined) {
        // The cursor stops at the top of the screen.
        this.#row = Math.max(this.#top(), this.#row - Number(up));
      } else if (part === "\x1b[2K") this.#lines[this.#row] = "";
      else if (part === "\n") {
        this.#row++;
        this.#lines[this.#row] ??= "";
      } else {
        assert.ok(part.length < this.columns, `"${part}" would wrap`);
        this.#lines[this.#row] = part;
      }
    }
  }

  #top(): number {
    return Math.max(0, this.#lines.length - this.rows);
  }

  shown(): string[] {
    return this.#lines.slice(this.#top()).filter((line) => line !== "");
  }

  /** With what scrolled away. */
  all(): string[] {
    return this.#lines.filter((line) => line !== "");
  }
}

test("LiveTable redraws each host's line in place", () => {
  const screen = new Screen(40, 24);
  const table = new LiveTable(["a", "bcd"], screen, { plain: false });
  assert.deepEqual(screen.shown(), ["a    waiting", "bcd  waiting"]);
  table.set("bcd", "looking");
  table.set("a", "x".repeat(100));
  table.set("a", "ready");
  assert.deepEqual(screen.all(), ["a    ready", "bcd  looking"]);
});

test("LiveTable keeps to the height of its terminal and says how many hosts it leaves out", () => {
  const screen = new Screen(60, 6);
  const names = Array.from({ length: 20 }, (_, index) => `node-${index}`);
  const table = new LiveTable(names, screen, { plain: false });
  for (const name of names) table.set(name, "looking");
  table.set("node-19", "applying 3 changes");
  table.set("node-3", "failed: no");
  assert.ok(screen.all().length < 6, `nothing scrolled away:\n${screen.all().join("\n")}`);
  assert.ok(
    screen.shown().some((line) => /node-3 +failed: no/.test(line)),
    "the newest is shown",
  );
  assert.ok(screen.shown().some((line) => /node-19 +applying/.test(line)));
  assert.match(screen.shown().at(-1) ?? "", /^and 16 more$/);
});

test("LiveTable writes whole lines with the host's name where there is no terminal", () => {
  let text = "";
  const output = { write: (more: string) => (text += more) };
  const table = new LiveTable(["a", "b"], output, { plain: false });
  table.set("a", "looking");
  table.set("a", "looking");
  table.set("b", "ready");
  assert.equal(text, "a: looking\nb: ready\n");
  const plain = { isTTY: true, columns: 10, write: (more: string) => (text += more) };
  text = "";
  new LiveTable(["a"], plain, { plain: true }).set("a", "a text longer than the terminal is wide");
  assert.equal(text, "a: a text longer than the terminal is wide\n");
});
