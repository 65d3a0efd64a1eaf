/**
 * Kubernetes objects, typed against the current API.
 *
 * Why not cdk8s-plus: it stops at Kubernetes 1.27, drops fields it does not know and adds some nobody
 * asked for (tokens off, probes, names with hashes). Here an unknown field is a compile error, newer
 * fields are there, and what is written is what is applied. @kubernetes/client-node is used for its
 * types alone: nothing of it is loaded.
 * Invariants: names are fixed; namespaced kinds get the install namespace and no other; every object
 * carries the release and version labels.
 */
import type * as k8s from "@kubernetes/client-node";
import { ApiObject, type App, Chart } from "cdk8s";
import type { DiskPoolSpec } from "#common/types/diskpool.ts";
import type { Install } from "../config.ts";
import type { PrometheusRuleSpec, ServiceMonitorSpec } from "../monitoring/types.ts";
import { type Component, RELEASE_LABEL, VERSION_LABEL } from "../names.ts";

/** The generated classes spell reserved words `_from`; in JSON they have no underscore. */
type JsonKey<K> = K extends `_${infer Name}`
  ? Name
  : K extends `x_kubernetes_${string}`
    ? never
    : K;
export type Json<T> = T extends Date
  ? string
  : T extends (infer Item)[]
    ? readonly Json<Item>[]
    : T extends object
      ? { readonly [K in keyof T as JsonKey<K>]: Json<T[K]> }
      : T;

export type PodSpec = Json<k8s.V1PodSpec>;
export type Container = Json<k8s.V1Container>;
export type Volume = Json<k8s.V1Volume>;
export type VolumeMount = Json<k8s.V1VolumeMount>;
export type EnvVar = Json<k8s.V1EnvVar>;
export type Probe = Json<k8s.V1Probe>;
export type ServicePort = Json<k8s.V1ServicePort>;
export type Toleration = Json<k8s.V1Toleration>;
export type ResourceRequirements = Json<k8s.V1ResourceRequirements>;
export type SecurityContext = Json<k8s.V1SecurityContext>;
export type IngressRule = Json<k8s.V1NetworkPolicyIngressRule>;
export type JsonSchema = Json<k8s.V1JSONSchemaProps>;
export type Labels = Readonly<Record<string, string>>;

type Models = {
  ClusterRole: k8s.V1ClusterRole;
  ClusterRoleBinding: k8s.V1ClusterRoleBinding;
  ConfigMap: k8s.V1ConfigMap;
  CSIDriver: k8s.V1CSIDriver;
  CustomResourceDefinition: k8s.V1CustomResourceDefinition;
  DaemonSet: k8s.V1DaemonSet;
  Deployment: k8s.V1Deployment;
  DiskPool: { spec: DiskPoolSpec };
  Namespace: k8s.V1Namespace;
  NetworkPolicy: k8s.V1NetworkPolicy;
  PersistentVolume: k8s.V1PersistentVolume;
  PodDisruptionBudget: k8s.V1PodDisruptionBudget;
  PriorityClass: k8s.V1PriorityClass;
  PrometheusRule: { spec: PrometheusRuleSpec };
  Role: k8s.V1Role;
  RoleBinding: k8s.V1RoleBinding;
  Service: k8s.V1Service;
  ServiceAccount: k8s.V1ServiceAccount;
  ServiceMonitor: { spec: ServiceMonitorSpec };
  StatefulSet: k8s.V1StatefulSet;
  StorageClass: k8s.V1StorageClass;
};
export type Kind = keyof Models;

type KindFacts = { readonly apiVersion: string; readonly namespaced: boolean };
export const KINDS: { readonly [K in Kind]: KindFacts } = {
  ClusterRole: { apiVersion: "rbac.authorization.k8s.io/v1", namespaced: false },
  ClusterRoleBinding: { apiVersion: "rbac.authorization.k8s.io/v1", namespaced: false },
  ConfigMap: { apiVersion: "v1", namespaced: true },
  CSIDriver: { apiVersion: "storage.k8s.io/v1", namespaced: false },
  CustomResourceDefinition: { apiVersion: "apiextensions.k8s.io/v1", namespaced: false },
  DaemonSet: { apiVersion: "apps/v1", namespaced: true },
  Deployment: { apiVersion: "apps/v1", namespaced: true },
  DiskPool: { apiVersion: "openebs.io/v1alpha1", namespaced: true },
  Namespace: { apiVersion: "v1", namespaced: false },
  NetworkPolicy: { apiVersion: "networking.k8s.io/v1", namespaced: true },
  PersistentVolume: { apiVersion: "v1", namespaced: false },
  PodDisruptionBudget: { apiVersion: "policy/v1", namespaced: true },
  PriorityClass: { apiVersion: "scheduling.k8s.io/v1", namespaced: false },
  PrometheusRule: { apiVersion: "monitoring.coreos.com/v1", namespaced: true },
  Role: { apiVersion: "rbac.authorization.k8s.io/v1", namespaced: true },
  RoleBinding: { apiVersion: "rbac.authorization.k8s.io/v1", namespaced: true },
  Service: { apiVersion: "v1", namespaced: true },
  ServiceAccount: { apiVersion: "v1", namespaced: true },
  ServiceMonitor: { apiVersion: "monitoring.coreos.com/v1", namespaced: true },
  StatefulSet: { apiVersion: "apps/v1", namespaced: true },
  StorageClass: { apiVersion: "storage.k8s.io/v1", namespaced: false },
};

type Body<K extends Kind> = Omit<Json<Models[K]>, "apiVersion" | "kind" | "metadata" | "status">;

export type Meta = {
  readonly name: string;
  /** The label `app`; absent where the published object has none. */
  readonly component?: Component;
  readonly labels?: Labels;
  readonly annotations?: Labels;
};

/** A chart of one installation; its id is the name of its file, and files are applied in that order. */
export class InstallChart extends Chart {
  readonly install: Install;

  constructor(app: App, id: string, install: Install) {
    super(app, id, { disableResourceNameHashes: true });
    this.install = install;
  }

  /** `<release>-<suffix>`. */
  named(suffix: string): string {
    return `${this.install.release}-${suffix}`;
  }

  /** Labels that never change, so that selectors can use them. */
  selector(component: Component): Labels {
    return { app: component, [RELEASE_LABEL]: this.install.release };
  }

  add<K extends Kind>(kind: K, meta: Meta, body: Body<K>): void {
    const { apiVersion, namespaced } = KINDS[kind];
    new ApiObject(this, `${kind}-${meta.name}`, {
      apiVersion,
      kind,
      metadata: {
        name: meta.name,
        ...(namespaced ? { namespace: this.install.namespace } : {}),
        labels: {
          ...(meta.component === undefined ? {} : { app: meta.component }),
          [RELEASE_LABEL]: this.install.release,
          [VERSION_LABEL]: this.install.version,
          ...meta.labels,
        },
        ...(meta.annotations === undefined ? {} : { annotations: meta.annotations }),
      },
      ...body,
    });
  }
}
