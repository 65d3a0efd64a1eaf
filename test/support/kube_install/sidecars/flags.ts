/**
 * Command lines of the CSI project's sidecars, as their Go programs read them: `--name=value`, `--name value`,
 * one dash or two.
 * Invariant: a flag that the real program does not know ends this one too, so that a chart cannot pass a wrong one.
 */

export type FlagKind = "text" | "bool";

const FLAG = /^--?([a-z][a-z0-9-]*)(?:=(.*))?$/s;

/** @throws for an unknown flag, a missing value, or anything that is no flag */
export function parseFlags<Name extends string>(
  args: readonly string[],
  known: Readonly<Record<Name, FlagKind>>,
): Partial<Record<Name, string>> {
  const found: Partial<Record<string, string>> = {};
  const rest = [...args];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    const [, name = "", given] = FLAG.exec(argument) ?? [];
    if (!Object.hasOwn(known, name)) throw new Error(`flag provided but not defined: ${argument}`);
    const kind = known[name as Name]; // one of its keys, as seen above
    const value = given ?? (kind === "bool" ? "true" : rest.shift());
    if (value === undefined) throw new Error(`flag needs an argument: ${argument}`);
    found[name] = value;
  }
  return found as Partial<Record<Name, string>>; // only known names were stored
}

/** `A=true,B=false` */
export function parseGates(text: string): Record<string, boolean> {
  const pairs = text.split(",").filter((pair) => pair !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const [name = "", value = ""] = pair.split("=");
      if (name === "" || !["true", "false"].includes(value))
        throw new Error(`invalid feature gate "${pair}"`);
      return [name, value === "true"];
    }),
  );
}
