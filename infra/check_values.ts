/**
 * Rules between values, and requests for what this release cannot do.
 * Why: a value that is silently ignored is found out when it is needed.
 */
import { SvcError } from "#common/errors.ts";
import type { Values } from "./values.ts";

const MEMBERS_MAX = 5;

function refuse(what: string, why: string): never {
  throw new SvcError("invalid-argument", `Cannot use ${what}: ${why}`);
}

function checkMissingFeatures(values: Values): void {
  const { etcd } = values;
  if (values.base.jaeger.enabled) {
    refuse("base.jaeger.enabled=true", "the agents send no traces in this release; leave it false");
  }
  if (etcd.client.secureTransport || etcd.peer.secureTransport) {
    refuse("etcd secureTransport", "etcd runs without TLS in this release; leave it false");
  }
  if (etcd.auth.rbac.create || etcd.auth.rbac.enabled) {
    refuse("etcd.auth.rbac", "clients of etcd have no passwords in this release; leave it false");
  }
  if (etcd.removeMemberOnContainerTermination) {
    refuse("etcd.removeMemberOnContainerTermination=true", "each restart would cost a member");
  }
  if (etcd.service.port !== 2379) refuse("etcd.service.port", "only 2379 is supported");
}

function checkEtcd({ etcd }: Values): void {
  if (etcd.replicaCount % 2 === 0 || etcd.replicaCount > MEMBERS_MAX) {
    refuse(`etcd.replicaCount=${etcd.replicaCount}`, "a quorum needs 1, 3 or 5 members");
  }
  if (!etcd.persistence.enabled && etcd.replicaCount > 1) {
    refuse(
      `etcd.persistence.enabled=false with etcd.replicaCount=${etcd.replicaCount}`,
      "each pod that is deleted would cost a member for good, and two of them the quorum; set etcd.replicaCount=1",
    );
  }
  if (etcd.podLabels["app"] !== "etcd") {
    refuse("etcd.podLabels", "app must be etcd: Services and policies select it");
  }
}

function checkLogs(values: Values): void {
  const { loki, promtail } = values["loki-stack"];
  const { runAsNonRoot } = loki.securityContext;
  if (runAsNonRoot && loki.initContainers.length > 0) {
    refuse("loki-stack.loki.securityContext.runAsNonRoot=true", "initContainers run as root");
  }
  if (values["loki-stack"].enabled && promtail.enabled && !promtail.rbac.create) {
    refuse("loki-stack.promtail.rbac.create=false", "promtail must find the pods");
  }
}

function checkEngine({ io_engine: { resources } }: Values): void {
  const { limits, requests } = resources;
  if (limits.hugepages2Mi !== requests.hugepages2Mi) {
    refuse("io_engine.resources", "hugepages2Mi must be the same in limits and requests");
  }
}

function checkOwnObjects(values: Values): void {
  const { components, diskPools, storageClasses } = values;
  if (diskPools.length > 0 && !components.diskpoolOperator) {
    refuse("diskPools", "nothing would act on them without components.diskpoolOperator");
  }
  if (storageClasses.length > 0 && !components.csi) {
    refuse("storageClasses", "nothing would provision volumes without components.csi");
  }
  const defaults = storageClasses.filter((entry) => entry.default === true).length;
  if (defaults + Number(values.storageClass.enabled && values.storageClass.default) > 1) {
    refuse("storageClasses", "only one class can be the default");
  }
  for (const [what, names] of [
    ["diskPools", diskPools.map(({ name }) => name)],
    ["storageClasses", storageClasses.map(({ name }) => name)],
  ] as const) {
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) refuse(what, `"${twice}" is there twice`);
  }
}

/** @throws {SvcError} `invalid-argument`, naming the value */
export function checkValues(values: Values): void {
  checkMissingFeatures(values);
  checkEtcd(values);
  checkLogs(values);
  checkEngine(values);
  checkOwnObjects(values);
}
