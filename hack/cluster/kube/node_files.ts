/**
 * What a node is configured with: the script that makes it a machine of its own, containerd, the pod network, kubelet.
 * Invariant: everything a node writes is below its folder or in its own tmpfs: /etc, /var, /opt and /srv are overlays,
 * /run and /dev/shm are its own, and kernel settings that the kubelet wants are shown to it, not set on the host.
 */

/** Host folders below which pods may write by hostPath: each node sees its own copy on top. */
export const OVERLAYS = ["etc", "var", "opt", "srv"] as const;
export const CONTAINERD_SOCKET = "/run/containerd/containerd.sock";
export const PAUSE_IMAGE = "registry.k8s.io/pause:3.10";
const CNI_FOLDER = "/etc/cni/net.d";

/** Kernel settings the kubelet insists on; it would change them for the whole machine. */
const TUNABLES: Readonly<Record<string, string>> = {
  "vm/overcommit_memory": "1",
  "vm/panic_on_oom": "0",
  "kernel/panic": "10",
  "kernel/panic_on_oops": "1",
  "kernel/keys/root_maxkeys": "1000000",
  "kernel/keys/root_maxbytes": "25000000",
};

export interface NodeFacts {
  readonly name: string;
  readonly folder: string;
  readonly address: string;
  readonly podCidr: string;
  readonly cgroup: string;
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** Runs as the first process of the node's namespaces: sets the machine up, says so, then only reaps orphans. */
export function initScript(
  { name, folder, address, podCidr }: NodeFacts,
  cgroupHierarchies: readonly string[],
): string {
  const overlays = OVERLAYS.map(
    (top) => `if [ -d /${top} ]; then
  mkdir -p ${folder}/fs/${top} ${folder}/work/${top}
  mount -t overlay -o lowerdir=/${top},upperdir=${folder}/fs/${top},workdir=${folder}/work/${top} overlay /${top}
fi`,
  );
  const tunables = Object.entries(TUNABLES).map(
    ([setting, value]) => `if [ -e /proc/sys/${setting} ]; then
  mkdir -p /run/tunables; echo ${value} > /run/tunables/${setting.replaceAll("/", ".")}
  mount --bind /run/tunables/${setting.replaceAll("/", ".")} /proc/sys/${setting}
fi`,
  );
  const cgroups = cgroupHierarchies.map((hierarchy) => `echo 0 > ${hierarchy}/cgroup.procs`);
  return `set -eu
${cgroups.join("\n")}
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
${overlays.join("\n")}
mkdir -p /var/lib/kubelet ${folder}/kubelet
mount --bind ${folder}/kubelet /var/lib/kubelet
hostname ${name}
echo ${name} > /etc/hostname
[ -e ${folder}/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > ${folder}/machine-id
cat ${folder}/machine-id > /etc/machine-id
printf '127.0.0.1 localhost\\n::1 localhost\\n${address} ${name}\\n' > /etc/hosts
# Nothing answers there: as on a real machine, the host itself cannot look up names of the cluster.
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
mkdir -p ${CNI_FOLDER}
rm -f ${CNI_FOLDER}/*
cat > ${CNI_FOLDER}/10-bridge.conflist <<'EOF'
${podNetwork(podCidr)}
EOF
echo 1 > /proc/sys/net/ipv4/ip_forward
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
${tunables.join("\n")}
mount --make-rshared /
touch ${folder}/ready
# bash reaps whatever ends below it.
while :; do sleep 3600 & wait $!; done
`;
}

/** Pods get addresses of the node's range; they are routed, never translated, between nodes. */
function podNetwork(podCidr: string): string {
  const ipam = {
    ...{ type: "host-local", dataDir: "/run/cni-ipam", ranges: [[{ subnet: podCidr }]] },
    routes: [{ dst: "0.0.0.0/0" }],
  };
  const bridge = { type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true, ipam };
  const plugins = [bridge, { type: "portmap", capabilities: { portMappings: true } }];
  return JSON.stringify({ cniVersion: "0.4.0", name: "pods", plugins });
}

/** containerd of a node (with the CRI plugin), or one that only imports images into `root`. */
export function containerdConfig(at: { root: string; state: string; socket: string }): string {
  const disabled = ["snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.aufs"];
  return `version = 2
root = "${at.root}"
state = "${at.state}"
disabled_plugins = [${disabled.map((name) => `"io.containerd.${name}"`).join(", ")}]
[grpc]
  address = "${at.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${at.root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "${PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${CNI_FOLDER}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`;
}

export function kubeletConfig(facts: NodeFacts, clusterDns: string): string {
  const config = {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: facts.address,
    port: 10250,
    healthzPort: 10248,
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: facts.caFile },
    },
    authorization: { mode: "Webhook" },
    tlsCertFile: facts.certFile,
    tlsPrivateKeyFile: facts.keyFile,
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${facts.cgroup}`,
    cgroupsPerQOS: true,
    enforceNodeAllocatable: [],
    failSwapOn: false,
    oomScoreAdj: 0,
    clusterDNS: [clusterDns],
    clusterDomain: "cluster.local",
    evictionHard: {
      "nodefs.available": "1%",
      "imagefs.available": "1%",
      "memory.available": "100Mi",
    },
    imageGCHighThresholdPercent: 100, // there is no registry to pull from again
    imageGCLowThresholdPercent: 99,
    maxPods: 110,
    nodeStatusUpdateFrequency: "5s",
    resolvConf: "/etc/resolv.conf",
    volumePluginDir: "/var/lib/kubelet/volumeplugins",
  };
  return `${JSON.stringify(config, null, 1)}\n`;
}
