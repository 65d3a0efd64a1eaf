/**
 * What is on the nodes of ssh_node.ts: the files that Debian and Rocky Linux nodes show to node-prep, and
 * stand-ins for the tools that would change a real boot loader, kernel or firewall.
 *
 * Invariant: the stand-ins change files the way the real tools do (grub.cfg and boot entries written in place),
 * since those bytes are what undo must restore.
 */
/** rocky8: the kernels' arguments are in GRUB's environment block, which is a link to the EFI partition. */
export type Distribution = "debian" | "ubuntu" | "rocky" | "rocky8";

/**
 * Commands of the node scripts where a crash can be placed: before each, and for stand-ins after it too, with
 * its work done and nothing of it recorded. Before `base64` what it is to write is an empty file.
 */
export const crashable = [
  ...["cp", "mv", "mkdir", "rm", "rmdir", "chmod", "base64"],
  ...["sync", "modprobe", "update-grub", "grubby", "ufw", "firewall-cmd", "nft", "apt-get"],
];

const KERNEL = "6.1.0-18-amd64";
export const UBUNTU_KERNEL = "6.8.0-31-generic";

/** Files by path below the root. */
export function baseTree(kind: Distribution): Record<string, string> {
  const kernel = kind === "ubuntu" ? UBUNTU_KERNEL : KERNEL;
  return {
    "etc/passwd":
      "root:x:0:0:root:/root:/bin/sh\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "proc/sys/kernel/osrelease": `${kernel}\n`,
    "proc/sys/kernel/hostname": `${kind}-1\n`,
    "proc/cmdline": `BOOT_IMAGE=/boot/vmlinuz-${kernel} root=/dev/sda1 ro quiet\n`,
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
    [`boot/vmlinuz-${kernel}`]: "kernel",
    [`lib/modules/${kernel}/modules.dep`]:
      "kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-core.ko\n",
    "etc/sysctl.d/10-other.conf": "kernel.panic = 10\n",
    "etc/modules-load.d/other.conf": "loop\n",
    "etc/modprobe.d/other.conf": "blacklist pcspkr\n",
    ...{ debian, ubuntu, rocky, rocky8 }[kind],
  };
}

/** Links below the root: where each one leads. */
export function baseLinks(kind: Distribution): Record<string, string> {
  return kind === "rocky8" ? { "boot/grub2/grubenv": "../efi/EFI/rocky/grubenv" } : {};
}

const entryOf = (title: string, line: string) => `menuentry '${title}' {\n\t${line}\n}\n`;
/** As update-grub makes it where memtest86+ is installed and another disk has a Debian of its own. */
const grubConfig = (kernel: string, args: string) => {
  const system = `/boot/vmlinuz-${kernel} root=/dev/sda1 ro`;
  return [
    "### generated\n",
    "### BEGIN /etc/grub.d/10_linux ###\n",
    entryOf("Linux", `linux\t${system} ${args}`),
    entryOf("Linux (recovery mode)", `linux\t${system} recovery`),
    "### END /etc/grub.d/10_linux ###\n",
    entryOf("Memory test", "linux16\t/boot/memtest86+x64.bin"),
    "### BEGIN /etc/grub.d/30_os-prober ###\n",
    entryOf("Debian (on /dev/sdz1)", `linux /boot/vmlinuz-${kernel} root=/dev/sdz1 ro splash`),
    "### END /etc/grub.d/30_os-prober ###\n",
  ].join("");
};
/** And what stands for the scripts that update-grub runs; @: the arguments. */
const grubFiles = (kernel: string, args: string) => ({
  "boot/grub/grub.cfg": grubConfig(kernel, args),
  "opt/fake/grub.cfg": grubConfig(kernel, "@"),
});

const debian: Record<string, string> = {
  "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
  "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
  ...grubFiles(KERNEL, "quiet"),
  "boot/memtest86+x64.bin": "memtest",
  "etc/ufw/user.rules": "*filter\n### RULES ###\n### END RULES ###\n",
  "etc/ufw/user6.rules": "*filter\n### RULES ###\n### END RULES ###\n",
  "opt/fake/firewall": "ufw\n",
};

/**
 * A cloud image: its drop-in sets the kernel's arguments anew, so only a later one is heard; nvme-tcp comes with
 * linux-modules-extra, which is not installed.
 */
const ubuntu: Record<string, string> = {
  ...debian,
  "etc/os-release": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
  "etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\n',
  "etc/default/grub.d/50-cloudimg-settings.cfg":
    'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=ttyS0"\n',
  ...grubFiles(UBUNTU_KERNEL, "console=tty1 console=ttyS0"),
  [`lib/modules/${UBUNTU_KERNEL}/modules.dep`]: "kernel/drivers/nvme/host/nvme-core.ko:\n",
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

const { "boot/grub2/grubenv": _, ...rocky9 } = rocky;
const rocky8: Record<string, string> = {
  ...rocky9,
  "etc/os-release": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"\n',
  "boot/efi/EFI/rocky/grubenv":
    "# GRUB Environment Block\nkernelopts=root=/dev/sda1 ro crashkernel=auto\n",
  "boot/loader/entries/1-5.14.conf":
    "title Rocky Linux (5.14.0-362)\nlinux /vmlinuz-5.14.0-362\noptions $kernelopts\n",
  "boot/loader/entries/0-rescue.conf":
    "title Rocky Linux (0-rescue)\nlinux /vmlinuz-0-rescue\noptions $kernelopts\n",
};

/** Programs for the front of PATH. */
export function fakeTools(): Record<string, string> {
  const tools: Record<string, string> = {
    sync: "/usr/bin/touch /opt/fake/synced\n",
    modprobe: `case $1 in
  -r) [ ! -d /sys/module/nvme_tcp ] || rmdir /sys/module/nvme_tcp
    # As the kernel does: in use or not, every controller goes with the module.
    for transport in /sys/class/nvme/*/transport; do
      [ "$(/usr/bin/cat "$transport" 2>/dev/null)" != tcp ] || /usr/bin/rm -r "\${transport%/*}"
    done ;;
  nvme-tcp) [ -d /sys/module/nvme_tcp ] || /usr/bin/mkdir /sys/module/nvme_tcp ;;
  *) exit 1 ;;
esac
`,
    "update-grub": `. /etc/default/grub
for file in /etc/default/grub.d/*.cfg; do [ -e "$file" ] && . "$file"; done
# Generated from nothing of its own output: whatever is left of that.
/usr/bin/sed "s|@|$GRUB_CMDLINE_LINUX_DEFAULT|" /opt/fake/grub.cfg >/boot/grub/grub.cfg.new
cat /boot/grub/grub.cfg.new >/boot/grub/grub.cfg
/usr/bin/rm /boot/grub/grub.cfg.new
`,
    grubby: `add= remove= block=/boot/grub2/grubenv
grep -qs '^options \\$kernelopts' /boot/loader/entries/*.conf || block=
for word in "$@"; do
  case $word in
    --info=ALL)
      if [ -n "$block" ]; then /usr/bin/sed -n 's/^kernelopts=\\(.*\\)/args="\\1"/p' $block; exit; fi
      /usr/bin/sed -n 's/^options \\(.*\\)/args="\\1"/p' /boot/loader/entries/*.conf; exit ;;
    --args=*) add=\${word#*=} ;;
    --remove-args=*) remove=\${word#*=} ;;
  esac
done
# Edited in place: through the link.
edit() { /usr/bin/sed "$2" "$1" >/tmp/grubby.new && cat /tmp/grubby.new >"$1"; }
for file in \${block:-/boot/loader/entries/*.conf}; do
  for key in $remove; do edit "$file" "/^options\\|^kernelopts/s| $key=[^ ]*||"; done
  if [ -n "$add" ]; then edit "$file" "/^options\\|^kernelopts/s|\\$| $add|"; fi
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
    // The running rules are a file; a rule is added to, listed and taken from a chain by a handle, its line's number.
    nft: `rules=/opt/fake/nft
case "$*" in
  "list ruleset") /usr/bin/cat $rules 2>/dev/null ;;
  "-a list chain "*) /usr/bin/awk '/comment/ { print $0 " # handle " NR }' $rules ;;
  "insert rule "*)
    /usr/bin/awk -v rule="\${1#insert rule * * * }" '{ print } /hook input/ { print rule }' $rules >$rules.new
    /usr/bin/mv $rules.new $rules ;;
  "delete rule "*) /usr/bin/sed "\${7}d" $rules >$rules.new; /usr/bin/mv $rules.new $rules ;;
  "-c -f "*)
    /usr/bin/awk '$1 == "table" { table = $2 " " $3 } $1 == "chain" { made[table " " $2] = 1 }
      $1 == "insert" && !made[$3 " " $4 " " $5] { exit 1 } /no such word/ { exit 1 }' "$3" ;;
  *) exit 1 ;;
esac
`,
    "apt-get": "[ ! -e /opt/fake/apt-fails ]\n",
  };
  return Object.fromEntries(
    Object.entries(tools).map(([name, body]) => [`opt/fake/bin/${name}`, `#!/bin/sh\n${body}`]),
  );
}
