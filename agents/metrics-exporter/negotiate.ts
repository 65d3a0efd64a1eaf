/**
 * Which format a scraper gets, by its Accept header (RFC 9110, section 12.5.1).
 * Invariant: protobuf only for who names it and likes it at least as much as text; text for everyone else, whatever
 * the header says, as exporters do.
 */
export type Format = "protobuf" | "text";

/** What Prometheus sends has five; more than this is not read. */
const RANGES_MAX = 32;
const PROTOBUF = "application/vnd.google.protobuf";
const WANTED: Readonly<Record<string, string>> = {
  proto: "io.prometheus.client.metricfamily",
  encoding: "delimited",
};

type Range = {
  readonly type: string;
  readonly q: number;
  readonly parameters: Map<string, string>;
};

function parseRange(text: string): Range {
  const [type = "", ...rest] = text.split(";").map((part) => part.trim().toLowerCase());
  const parameters = new Map<string, string>();
  for (const parameter of rest) {
    const equals = parameter.indexOf("=");
    if (equals > 0) {
      const value = parameter.slice(equals + 1).replace(/^"(.*)"$/, "$1");
      parameters.set(parameter.slice(0, equals).trim(), value.trim());
    }
  }
  const weight = parameters.get("q");
  const q = weight === undefined ? 1 : /^(?:0(?:\.\d*)?|1(?:\.0*)?)$/.test(weight) ? +weight : 0;
  return { type, q, parameters };
}

export function chooseFormat(accept: string | undefined): Format {
  const ranges = (accept ?? "").split(",", RANGES_MAX).map(parseRange);
  const best = (is: (range: Range) => boolean) =>
    Math.max(0, ...ranges.filter(is).map(({ q }) => q));
  const protobuf = best(
    ({ type, parameters }) =>
      type === PROTOBUF &&
      Object.entries(WANTED).every(([name, value]) => parameters.get(name) === value),
  );
  const text = best(({ type }) => type === "text/plain" || type === "text/*");
  return protobuf > 0 && protobuf >= text ? "protobuf" : "text";
}
