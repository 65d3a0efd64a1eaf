/**
 * The same preparation as a machine-config patch for Talos Linux, which has no shell and no ssh.
 *
 * Sources: Talos' v1alpha1 machine configuration (sysctls, kernel.modules, nodeLabels, kubelet.extraMounts,
 * install.extraKernelArgs, NetworkRuleConfig) and the documented pod-security exemption.
 */
import { stringify } from "yaml";
import { PORTS, type Wanted } from "./options.ts";

export const ENGINE_LABEL = "openebs.io/engine";
export const ENGINE_LABEL_VALUE = "mayastor";

/** Two patches as one YAML text: workers first, then the control plane's. */
export function talosPatch(wanted: Wanted, namespace: string): string {
  const kernelArgs = [
    "nvme_core.multipath=Y",
    ...(wanted.isolateCpus ? [`isolcpus=${wanted.isolateCpus.join(",")}`] : []),
  ];
  const worker = {
    machine: {
      ...(wanted.hugepages === undefined
        ? {}
        : { sysctls: { "vm.nr_hugepages": String(wanted.hugepages) } }),
      kernel: { modules: [{ name: "nvme_tcp" }] },
      nodeLabels: { [ENGINE_LABEL]: ENGINE_LABEL_VALUE },
      kubelet: {
        extraMounts: [
          {
            destination: "/var/local",
            type: "bind",
            source: "/var/local",
            options: ["bind", "rshared", "rw"],
          },
        ],
      },
      install: { extraKernelArgs: kernelArgs },
    },
  };
  const firewall =
    wanted.openFirewall === undefined
      ? []
      : [
          {
            apiVersion: "v1alpha1",
            kind: "NetworkRuleConfig",
            name: "mayastor",
            portSelector: { ports: [...PORTS], protocol: "tcp" },
            ingress: [{ subnet: wanted.openFirewall }],
          },
        ];
  const controlPlane = {
    cluster: {
      apiServer: {
        admissionControl: [
          {
            name: "PodSecurity",
            configuration: {
              apiVersion: "pod-security.admission.config.k8s.io/v1beta1",
              kind: "PodSecurityConfiguration",
              exemptions: { namespaces: [namespace] },
            },
          },
        ],
      },
    },
  };
  return [
    "# Storage nodes: talosctl patch machineconfig --nodes=NODE --patch=@FILE (documents up to the next comment).",
    "# install.extraKernelArgs counts after the next `talosctl upgrade`; hugepages after a reboot.",
    ...[worker, ...firewall].map((document) => `---\n${stringify(document).trimEnd()}`),
    "# Control-plane nodes: a patch of its own.",
    `---\n${stringify(controlPlane).trimEnd()}`,
    "",
  ].join("\n");
}
