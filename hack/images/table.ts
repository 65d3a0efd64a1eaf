/** How built images are shown. */
import type { BuiltImage } from "./archive.ts";

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`.padStart(9);

/** A line per image, then where they are. */
export function imageTable(images: readonly BuiltImage[]): string {
  const wide = Math.max(...images.map(({ reference }) => reference.length));
  const rows = images.map(
    ({ reference, bytes }) => `${reference.padEnd(wide)} ${megabytes(bytes)}`,
  );
  return [...rows, ...new Set(images.map(({ archive }) => archive))].join("\n");
}
