/** Where results go and in which form: a table or message for people, JSON or YAML for programs. */
import type { Table } from "./table.ts";
import { formatTable } from "./table.ts";

export const OUTPUT_FORMS = ["none", "yaml", "json"] as const;
export type OutputForm = (typeof OUTPUT_FORMS)[number];

/** The two streams of a terminal; text comes with its line ends. */
export type Terminal = {
  out(text: string): void;
  err(text: string): void;
};

export type Printer = {
  /** The object itself in JSON (one line) or YAML, else what people get. */
  result(value: unknown, forPeople: () => Table | string): Promise<void>;
};

export function makePrinter(terminal: Terminal, form: OutputForm): Printer {
  return {
    async result(value, forPeople) {
      switch (form) {
        case "json":
          terminal.out(`${JSON.stringify(value)}\n`);
          break;
        case "yaml": {
          const { stringify } = await import("../yaml.ts"); // most runs do not need it
          terminal.out(`---\n${stringify(value)}`);
          break;
        }
        case "none": {
          const shown = forPeople();
          terminal.out(typeof shown === "string" ? `${shown}\n` : formatTable(shown));
          break;
        }
      }
    },
  };
}
