/** How built images are shown. */
import type { BuiltImage } from "./archive.ts";

export function imageTable(images: readonly BuiltImage[]): string {
  const rows = images.map(({ reference, bytes, archive }) => [
    reference,
    `${(bytes / 1e6).toFixed(1)} MB`,
    archive,
  ]);
  const wide = Math.max(...rows.map(([reference = ""]) => reference.length));
  return rows
    .map(([reference = "", size = "", archive = ""]) =>
      [reference.padEnd(wide), size.padStart(9), archive].join("  "),
    )
    .join("\n");
}
