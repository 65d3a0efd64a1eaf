/**
 * Progress of many hosts at once: a table redrawn in place on a terminal, plain lines elsewhere.
 *
 * Invariant: on something that is no terminal every line is whole and names its host, so that a log of
 * parallel hosts can be read and searched.
 */

export interface TableOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export class LiveTable {
  readonly #rows = new Map<string, string>();
  readonly #output: TableOutput;
  readonly #live: boolean;
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
    if (this.#live) this.#draw();
    else this.#output.write(`${name}: ${text}\n`);
  }

  #draw(): void {
    if (!this.#live) return;
    const width = Math.max(...[...this.#rows.keys()].map((name) => name.length));
    const columns = this.#output.columns ?? 80;
    const lines = [...this.#rows].map(([name, text]) =>
      `${name.padEnd(width)}  ${text}`.slice(0, columns - 1),
    );
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    this.#output.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join("")}`);
    this.#drawn = lines.length;
  }
}
