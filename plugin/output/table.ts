/**
 * Tables on a terminal: columns side by side, left-aligned, no borders, two spaces apart.
 *
 * Why our own: the published layout is this simple, and a table library would cost start-up time.
 * Invariant: a line carries no trailing space, so that a transcript is what it looks like.
 */
const GAP = "  ";

/** Cell of an optional value. */
export const NONE = "<none>";

export type Table = { readonly head: readonly string[]; readonly rows: readonly Cells[] };
export type Cells = readonly string[];

/** Columns on a terminal: code points, wide ones counted twice as they are drawn. */
function widthOf(text: string): number {
  let width = 0;
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    const wide =
      (code >= 0x1100 && code <= 0x115f) ||
      (code >= 0x2e80 && code <= 0xa4cf) ||
      (code >= 0xac00 && code <= 0xd7a3) ||
      (code >= 0xf900 && code <= 0xfaff) ||
      (code >= 0xfe30 && code <= 0xfe6f) ||
      (code >= 0xff00 && code <= 0xff60) ||
      (code >= 0x1f300 && code <= 0x1faff);
    width += wide ? 2 : 1;
  }
  return width;
}

/** The table as text, one line a row, the head first; an empty table is its head alone. */
export function formatTable({ head, rows }: Table): string {
  const lines = [head, ...rows];
  const widths = head.map((_, column) =>
    Math.max(...lines.map((cells) => widthOf(cells[column] ?? ""))),
  );
  return lines
    .map((cells) =>
      cells
        .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - widthOf(cell)))
        .join(GAP)
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}
