/**
 * Amounts in the form in which the API server keeps them: no fraction, the largest suffix that fits.
 *
 * Why: `kubectl apply` compares texts; `1000m`, kept as `1`, would be applied again each time.
 * Invariant: the amount stays the same; what is not understood stays as it is, for the API server to judge.
 * Source: Kubernetes reference, "Quantity".
 */

const DECIMAL = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"] as const;
const BINARY = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] as const;
const FORM = /^(\d+)(?:\.(\d+))?([numkMGTPE]|[KMGTPE]i)?$/;

/** Divides as often as nothing is lost. */
function promote(amount: bigint, step: bigint, suffixes: readonly string[]): string {
  let [rest, level] = [amount, 0];
  while (rest !== 0n && rest % step === 0n && level < suffixes.length - 1) {
    rest /= step;
    level += 1;
  }
  return rest === 0n ? "0" : `${rest}${suffixes[level]}`;
}

export function canonicalQuantity(text: string): string {
  const [, whole, fraction = "", suffix = ""] = FORM.exec(text) ?? [];
  if (whole === undefined) return text;
  const digits = BigInt(whole + fraction);
  const scale = 10n ** BigInt(fraction.length);
  if (suffix.endsWith("i")) {
    const bytes = digits * 1024n ** BigInt(BINARY.indexOf(suffix as "Ki")); // FORM knows no other
    return bytes % scale === 0n ? promote(bytes / scale, 1024n, BINARY) : text;
  }
  const nanos = digits * 1000n ** BigInt(DECIMAL.indexOf(suffix as "m")); // as above
  return nanos % scale === 0n ? promote(nanos / scale, 1000n, DECIMAL) : text;
}
