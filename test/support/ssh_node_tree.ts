/**
 * What is on the nodes of ssh_node.ts: the files a Debian and a Rocky Linux node show to node-prep, and
 * stand-ins for the tools that would change a real boot loader, kernel or firewall.
 *
 * Invariant: the stand-ins change files the way the real tools do (grub.cfg rewritten by rename, boot
 * entries edited in place), since those bytes are what undo must restore.
 */
export type Distribution = "debian" | "rocky";

/** Changing commands of the node scripts: where a crash can be placed. */
export const crashable = [
  "cp",
  "mv",
  "mkdir",
  "rm",
  "rmdir",
  "chmod",
  "sync",
  "modprobe",
  "update-grub",
  "grubby",
];

const KERNEL = "6.1.0-18-amd64";

/** Files by path below the root. */
export function baseTree(kind: Distribution): Record<string, string> {
  return {
    "etc/passwd":
      "root:x:0:0:root:/root:/bin/sh\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "proc/sys/kernel/osrelease": `${KERNEL}\n`,
    "proc/sys/kernel/hostname": `${kind}-1\n`,
    "proc/cmdline": `BOOT_IMAGE=/boot/vmlinuz-${KERNEL} root=/dev/sda1 ro quiet\n`,
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse sse2 sse4_1 sse4_2 avx\n",
    "proc/meminfo": "MemTotal:       16384000 kB\n",
    "proc/mounts": "/dev/sda1 / ext4 rw 0 0\n",
    "proc/swaps": "Filename Type Size Used Priority\n",
    "proc/net/tcp":
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1000 1\n",
    "sys/devices/system/cpu/possible": "0-3\n",
    "sys/devices/system/cpu/isolated": "\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0\n",
    "sys/module/nvme_core/parameters/multipath": "N\n",
    "sys/block/sda/size": "131072\n",
    "sys/block/sda/sda1/partition": "1\n",
    "sys/block/sdb/size": "131072\n",
    "sys/block/sdc/size": "131072\n",
    "dev/sda": "",
    "dev/sdb": "",
    "dev/sdc": "some file system",
    [`boot/vmlinuz-${KERNEL}`]: "kernel",
    [`lib/modules/${KERNEL}/modules.dep`]:
      "kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-core.ko\n",
    "etc/sysctl.d/10-other.conf": "kernel.panic = 10\n",
    "etc/modules-load.d/other.conf": "loop\n",
    "etc/modprobe.d/other.conf": "blacklist pcspkr\n",
    ...(kind === "debian" ? debian : rocky),
  };
}

const grubConfig = (args: string) =>
  `### generated\nmenuentry 'Debian' {\n\tlinux\t/boot/vmlinuz-${KERNEL} root=/dev/sda1 ro ${args}\n}\nmenuentry 'Debian (recovery mode)' {\n\tlinux\t/boot/vmlinuz-${KERNEL} root=/dev/sda1 ro recovery\n}\n`;

const debian: Record<string, string> = {
  "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
  "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
  "boot/grub/grub.cfg": grubConfig("quiet"),
  "etc/ufw/user.rules": "*filter\n### RULES ###\n### END RULES ###\n",
  "etc/ufw/user6.rules": "*filter\n### RULES ###\n### END RULES ###\n",
  "opt/fake/firewall": "ufw\n",
};

const entry = (version: string) =>
  `title Rocky Linux (${version})\nlinux /vmlinuz-${version}\noptions root=/dev/sda1 ro crashkernel=auto\n`;

const rocky: Record<string, string> = {
  "etc/os-release": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.3"\n',
  "etc/default/grub": 'GRUB_CMDLINE_LINUX="crashkernel=auto"\nGRUB_ENABLE_BLSCFG=true\n',
  "boot/grub2/grub.cfg": "# blscfg\n",
  "boot/grub2/grubenv": "# GRUB Environment Block\n",
  "boot/loader/entries/1-5.14.conf": entry("5.14.0-362"),
  "boot/loader/entries/0-rescue.conf": entry("0-rescue"),
  "etc/firewalld/zones/public.xml": '<zone target="default">\n</zone>\n',
  "opt/fake/firewall": "firewalld\n",
};

/** Programs for the front of PATH. */
export function fakeTools(): Record<string, string> {
  const tools: Record<string, string> = {
    sync: "exit 0\n",
    modprobe: `case $1 in
  -r) rmdir /sys/module/nvme_tcp ;;
  nvme-tcp) [ -d /sys/module/nvme_tcp ] || /usr/bin/mkdir /sys/module/nvme_tcp ;;
  *) exit 1 ;;
esac
`,
    "update-grub": `. /etc/default/grub
for file in /etc/default/grub.d/*.cfg; do [ -e "$file" ] && . "$file"; done
/usr/bin/sed "s|^\\(\\tlinux.* ro \\)quiet.*|\\1$GRUB_CMDLINE_LINUX_DEFAULT|" /boot/grub/grub.cfg >/boot/grub/grub.cfg.new
/usr/bin/mv /boot/grub/grub.cfg.new /boot/grub/grub.cfg
`,
    grubby: `add= remove=
for word in "$@"; do
  case $word in
    --info=ALL) /usr/bin/sed -n 's/^options \\(.*\\)/args="\\1"/p' /boot/loader/entries/*.conf; exit ;;
    --args=*) add=\${word#*=} ;;
    --remove-args=*) remove=\${word#*=} ;;
  esac
done
for file in /boot/loader/entries/*.conf; do
  for key in $remove; do /usr/bin/sed -i "/^options/s| $key=[^ ]*||" "$file"; done
  if [ -n "$add" ]; then /usr/bin/sed -i "/^options/s|\\$| $add|" "$file"; fi
done
`,
    ufw: `if [ "$(/usr/bin/cat /opt/fake/firewall)" != ufw ]; then echo 'Status: inactive'; exit; fi
case $1 in
  status)
    echo 'Status: active'; echo; echo 'To   Action   From'; echo '--   ------   ----'
    /usr/bin/sed -n 's|^### tuple ### allow \\([0-9,]*\\) \\([^ ]*\\)|\\1/tcp   ALLOW   \\2|p' /etc/ufw/user.rules ;;
  allow) /usr/bin/sed -i "s|^### END|### tuple ### allow $9 $5\\n### END|" /etc/ufw/user.rules ;;
  delete) /usr/bin/sed -i "\\|tuple ### allow \${10} $6|d" /etc/ufw/user.rules ;;
  reload) exit 0 ;;
  *) exit 1 ;;
esac
`,
    "firewall-cmd": `[ "$(/usr/bin/cat /opt/fake/firewall)" = firewalld ] || exit 252
zone=/etc/firewalld/zones/public.xml
for word in "$@"; do
  case $word in
    --state) echo running ;;
    --get-default-zone) echo public ;;
    --get-target) echo default ;;
    --list-rich-rules) /usr/bin/sed -n 's|^  <!-- \\(.*\\) -->|\\1|p' $zone ;;
    --add-rich-rule=*) /usr/bin/cp $zone $zone.old; rule=\${word#*=}
      /usr/bin/grep -qF "$rule" $zone || /usr/bin/sed -i "s|^</zone>|  <!-- $rule -->\\n</zone>|" $zone ;;
  esac
done
`,
    nft: "exit 0\n",
    "apt-get": "exit 0\n",
  };
  return Object.fromEntries(
    Object.entries(tools).map(([name, body]) => [`opt/fake/bin/${name}`, `#!/bin/sh\n${body}`]),
  );
}
