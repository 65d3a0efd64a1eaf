/**
 * Progress of many hosts at once: a table redrawn in place on a terminal, plain lines elsewhere.
 *
 * Invariant: on something that is no terminal every line is whole and names its host, so that a log of
 * parallel hosts can be read and searched. The table is never taller than the terminal, where a cursor cannot
 * go back to what scrolled away: of more hosts than lines those that said something last are shown.
 */

export interface TableOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

export class LiveTable {
  readonly #rows = new Map<string, string>();
  readonly #output: TableOutput;
  readonly #live: boolean;
  /** When a host last said something, in changes. */
  readonly #changed = new Map<string, number>();
  #changes = 0;
  #drawn = 0;

  constructor(names: readonly string[], output: TableOutput, { plain }: { plain: boolean }) {
    for (const name of names) this.#rows.set(name, "waiting");
    this.#output = output;
    this.#live = output.isTTY === true && !plain;
    this.#draw();
  }

  /** Says what a host is doing now. */
  set(name: string, text: string): void {
    if (this.#rows.get(name) === text) return;
    this.#rows.set(name, text);
    this.#changed.set(name, ++this.#changes);
    if (this.#live) this.#draw();
    else this.#output.write(`${name}: ${text}\n`);
  }

  #draw(): void {
    if (!this.#live) return;
    const width = Math.max(...[...this.#rows.keys()].map((name) => name.length));
    const columns = this.#output.columns ?? 80;
    const fit = (line: string) => line.slice(0, columns - 1);
    const shown = this.#shown();
    const lines = [...this.#rows]
      .filter(([name]) => shown.has(name))
      .map(([name, text]) => fit(`${name.padEnd(width)}  ${text}`));
    if (shown.size < this.#rows.size) lines.push(fit(`and ${this.#rows.size - shown.size} more`));
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    this.#output.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join("")}`);
    this.#drawn = lines.length;
  }

  /** The hosts there is room for, with a line for the cursor below them. */
  #shown(): ReadonlySet<string> {
    const names = [...this.#rows.keys()];
    const lines = Math.max(2, (this.#output.rows ?? 24) - 1);
    if (names.length <= lines) return new Set(names);
    const when = (name: string) => this.#changed.get(name) ?? 0;
    return new Set(names.toSorted((a, b) => when(b) - when(a)).slice(0, lines - 1));
  }
}
