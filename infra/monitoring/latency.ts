/**
 * PromQL over the exporter's latency histograms.
 * Why in one place: a server that takes native histograms has `x`, any other has `x_bucket`; a query asks for both,
 * and the native one, being finer, wins where there are both.
 */

/** Of the histograms' names; the exporter publishes all of them. */
export const LATENCY_METRICS = ["volume", "replica", "diskpool"].flatMap((on) =>
  ["read", "write", "unmap"].map((kind) => `${on}_${kind}_latency_seconds`),
);

/** The latency in seconds below which `part` of the requests stay, one series per `by`. */
export function quantile({
  part,
  metric,
  by,
  selector = "",
  range,
}: {
  part: number;
  metric: string;
  by: string;
  selector?: string;
  range: string;
}): string {
  const of = (name: string, labels: string) =>
    `histogram_quantile(${part}, sum by (${labels}) (rate(${name}${selector}[${range}])))`;
  return `(${of(metric, by)} or ${of(`${metric}_bucket`, `${by}, le`)})`;
}
