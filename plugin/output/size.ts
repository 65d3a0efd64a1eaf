/** Sizes as people read them: binary units, at most one decimal, no space. */
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** 10737418240 to "10GiB", 1610612736 to "1.5GiB", 0 to "0 B" (as published). */
export function formatSize(bytes: number): string {
  if (bytes === 0) return "0 B";
  let value = bytes;
  let unit = 0;
  // 1023.95 and up would round to 1024.0: that is one of the next unit.
  while (Math.abs(value) >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(1).replace(/\.0$/, "")}${UNITS[unit] ?? ""}`;
}
