/**
 * Alerts on what the documented metrics tell; each says what to look at next.
 * Invariant: only metrics that the exporter or the kubelet publishes are used.
 */
import { quantile } from "./latency.ts";
import type { AlertRule } from "./types.ts";

/** Pool metrics as published; `status` is 0 Unknown, 1 Online, 2 Degraded, 3 Faulted. */
export const POOL_METRICS = {
  total: "disk_pool_total_size_bytes",
  used: "disk_pool_used_size_bytes",
  committed: "disk_pool_committed_size_bytes",
  status: "disk_pool_status",
} as const;

/** 1 while the io-engine beside the exporter answers, 0 while it does not; then its other metrics are gone. */
export const ENGINE_REACHABLE = "mayastor_exporter_engine_reachable";

/** The kubelet's figures of mounted volumes, from the node plugin's NodeGetVolumeStats. */
export const VOLUME_METRICS = {
  available: "kubelet_volume_stats_available_bytes",
  capacity: "kubelet_volume_stats_capacity_bytes",
  used: "kubelet_volume_stats_used_bytes",
  inodes: "kubelet_volume_stats_inodes",
  inodesFree: "kubelet_volume_stats_inodes_free",
  inodesUsed: "kubelet_volume_stats_inodes_used",
} as const;

const POOL = "Pool {{ $labels.name }} on node {{ $labels.node }}";
const CLAIM = "Claim {{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }}";
/** Above what any healthy disk or network takes, well below the initiator's time-outs. */
const SLOW_SEC = 1;

/** One in a hundred requests is slow: a disk that is failing, or a volume that waits for one. */
function slowRules(): AlertRule[] {
  const rule = (
    { alert, metric, by, range }: { alert: string; metric: string; by: string; range: string },
    annotations: AlertRule["annotations"],
  ): AlertRule => ({
    alert,
    expr: `${quantile({ part: 0.99, metric, by, range })} > ${SLOW_SEC}`,
    for: "10m",
    labels: { severity: "warning" },
    annotations,
  });
  return (["read", "write"] as const).flatMap((kind) => {
    const name = `${kind === "read" ? "Reads" : "Writes"}Slow`;
    const metric = `_${kind}_latency_seconds`;
    return [
      rule(
        {
          alert: `MayastorPool${name}`,
          metric: `diskpool${metric}`,
          by: "node, name",
          range: "5m",
        },
        {
          summary: `${POOL}: one in a hundred ${kind}s takes more than ${SLOW_SEC} s`,
          description:
            "The disk is overloaded or failing, and slows down every volume with a replica there. See the disk in the node's kernel log.",
        },
      ),
      rule(
        {
          alert: `MayastorVolume${name}`,
          metric: `volume${metric}`,
          by: "node, pv_name",
          range: "5m",
        },
        {
          summary: `Volume {{ $labels.pv_name }} on node {{ $labels.node }}: one in a hundred ${kind}s takes more than ${SLOW_SEC} s`,
          description:
            "The dashboard Mayastor / Latency shows which replica or pool it waits for; none means the network between the nodes.",
        },
      ),
    ];
  });
}

/** `service` is the Service that the exporter is scraped through. */
export function alertRules({ service }: { service: string }): readonly AlertRule[] {
  const { total, used, committed, status } = POOL_METRICS;
  const { available, capacity } = VOLUME_METRICS;
  return [
    {
      alert: "MayastorEngineDown",
      expr: `${ENGINE_REACHABLE} == 0`,
      for: "5m",
      labels: { severity: "critical" },
      annotations: {
        summary: "The io-engine of node {{ $labels.node }} does not answer",
        description:
          "Replicas and targets on that node serve no I/O, and alerts on its pools are silent meanwhile. See the io-engine container of its pod: restarts and log.",
      },
    },
    {
      alert: "MayastorPoolFaulted",
      expr: `${status} == 3`,
      for: "1m",
      labels: { severity: "critical" },
      annotations: {
        summary: `${POOL} is faulted`,
        description:
          "Its replicas serve no I/O and volumes rebuild elsewhere if they can. See `kubectl mayastor get pools` and the disk in the node's kernel log.",
      },
    },
    {
      alert: "MayastorPoolNotOnline",
      expr: `${status} == 0 or ${status} == 2`,
      for: "5m",
      labels: { severity: "warning" },
      annotations: {
        summary: `${POOL} is not online`,
        description: "See `kubectl mayastor get pools` and the io-engine log of that node.",
      },
    },
    {
      alert: "MayastorPoolNearlyFull",
      expr: `${used} / ${total} > 0.9`,
      for: "10m",
      labels: { severity: "warning" },
      annotations: {
        summary: `${POOL} is more than 90 % full`,
        description:
          "Thin volumes on a full pool are moved, or degrade when no other pool has room. Add a pool or delete volumes.",
      },
    },
    {
      alert: "MayastorPoolOvercommitted",
      expr: `${committed} / ${total} > 2`,
      for: "30m",
      labels: { severity: "info" },
      annotations: {
        summary: `${POOL} has promised more than twice its size`,
        description: "New thin volumes are refused above agents.core.capacity.thin.poolCommitment.",
      },
    },
    {
      alert: "MayastorMetricsMissing",
      expr: `up{service="${service}"} == 0`,
      for: "10m",
      labels: { severity: "warning" },
      annotations: {
        summary: "No metrics from {{ $labels.instance }}",
        description:
          "The metrics exporter of that node cannot be reached: the node, its io-engine pod or that container is down.",
      },
    },
    {
      alert: "MayastorVolumeNearlyFull",
      expr: `${available} / ${capacity} < 0.05`,
      for: "10m",
      labels: { severity: "warning" },
      annotations: {
        summary: `${CLAIM} has less than 5 % free`,
        description: "The application gets `no space left on device` when it is full.",
      },
    },
    ...slowRules(),
  ];
}
