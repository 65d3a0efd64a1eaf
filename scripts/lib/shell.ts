/**
 * Quoting for the shell on the far side.
 *
 * Why: ssh joins its arguments and the remote shell parses them again. So nothing is put into the command:
 * a constant command reads a script from its input, and values stand in that script, quoted once for
 * POSIX sh.
 */

/** `text` as one word of POSIX sh, whatever is in it. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** `name=value` lines; the names are our own constants. */
export function assignments(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join("");
}
