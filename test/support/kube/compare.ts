/**
 * Is everything that a manifest says in what the API server kept?
 *
 * Invariants: the server may add (defaults, status, its own metadata) but not change or drop; amounts are compared as
 * amounts, because the server writes `1000m` as `1`; what JSON of the server cannot hold (empty lists, maps and texts
 * of optional fields) counts as the same as nothing.
 */
import type { KubeObject } from "./api.ts";

const SUFFIXES: Readonly<Record<string, number>> = {
  "": 1,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** `500m`, `2Gi` as a number; null for other text. */
export function amount(value: unknown): number | null {
  if (typeof value === "number") return value;
  if (typeof value !== "string") return null;
  const [, digits, suffix = ""] = /^(\d+(?:\.\d+)?)([kMGTm]|[KMGT]i)?$/.exec(value) ?? [];
  const scale = SUFFIXES[suffix];
  return digits === undefined || scale === undefined ? null : Number(digits) * scale;
}

const isEmpty = (value: unknown): boolean =>
  value === "" ||
  value === null ||
  (typeof value === "object" && value !== null && Object.values(value).every(isEmpty));

/** Fields whose values are amounts, by the end of their path. */
const AMOUNTS = /\.(limits|requests|capacity|sizeLimit)(\.|$)/;

/** What `found` lacks or says otherwise, as `path: wanted …, found …`; empty when it has it all. */
export function missing(wanted: unknown, found: unknown, at = ""): readonly string[] {
  if (found === undefined && isEmpty(wanted)) return [];
  if (Array.isArray(wanted)) {
    if (!Array.isArray(found) || found.length !== wanted.length)
      return [difference(wanted, found, at)];
    return wanted.flatMap((item, index) => missing(item, found[index], `${at}[${index}]`));
  }
  if (typeof wanted === "object" && wanted !== null) {
    if (typeof found !== "object" || found === null) return [difference(wanted, found, at)];
    const fields = new Map(Object.entries(found));
    return Object.entries(wanted).flatMap(([key, value]) =>
      missing(value, fields.get(key), `${at}.${key}`),
    );
  }
  if (wanted === found) return [];
  if (AMOUNTS.test(at) && amount(wanted) !== null && amount(wanted) === amount(found)) return [];
  return [difference(wanted, found, at)];
}

function difference(wanted: unknown, found: unknown, at: string): string {
  return `${at}: wanted ${JSON.stringify(wanted)}, found ${JSON.stringify(found)}`;
}

/**
 * Whether the server answers `creationTimestamp: null` in a StatefulSet's claim templates, as before Kubernetes 1.34.
 * kubectl compares that list as a whole: each `apply` then says "configured" and sends what changes nothing.
 */
export function hasDatedTemplates(found: KubeObject | null): boolean {
  // Proof of the cast: the API server has checked the object against its schema.
  const spec = found?.["spec"] as
    | { volumeClaimTemplates?: readonly { metadata: Readonly<Record<string, unknown>> }[] }
    | undefined;
  return (spec?.volumeClaimTemplates ?? []).some(
    ({ metadata }) => metadata["creationTimestamp"] === null,
  );
}
