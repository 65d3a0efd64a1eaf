# Node side of node-prep: prints what this node is, as `key=value` lines. POSIX sh; runs as root.
# Why facts and no verdicts: what they mean is decided by plan.ts, which is pure and tested without a node.
# Invariants: reads only, and never writes a byte to the node; a fact that cannot be read is not printed.
# Values are one line each; files travel as base64.

fact() { printf '%s=%s\n' "$1" "$2"; }

# fact_of KEY FILE: the first line of FILE
fact_of() {
  [ -r "$2" ] || return 0
  value=$(head -n 1 "$2" 2>/dev/null | tr -d '\0') || return 0
  fact "$1" "$value"
}

# fact_file FILE: its bytes, or that it is not there
fact_file() {
  if [ -f "$1" ]; then fact "file.$1" "$(base64 "$1" | tr -d '\n')"; else fact "file.$1" -; fi
}

has() { command -v "$1" >/dev/null 2>&1; }

probe_os() {
  if [ -r /etc/os-release ]; then
    fact os.id "$(. /etc/os-release && printf %s "${ID:-}")"
    fact os.like "$(. /etc/os-release && printf %s "${ID_LIKE:-}")"
    fact os.version "$(. /etc/os-release && printf %s "${VERSION_ID:-}")"
  fi
  if [ -e /run/ostree-booted ]; then fact os.ostree yes; fi
  fact_of kernel /proc/sys/kernel/osrelease
  fact_of hostname /proc/sys/kernel/hostname
  fact arch "$(uname -m)"
  fact_of cmdline /proc/cmdline
  fact cpu.flags "$(sed -n 's/^\(flags\|Features\)[[:space:]]*:[[:space:]]*//p' /proc/cpuinfo | head -n 1)"
  fact_of cpu.possible /sys/devices/system/cpu/possible
  fact_of cpu.isolated /sys/devices/system/cpu/isolated
  fact memory.kib "$(sed -n 's/^MemTotal:[[:space:]]*\([0-9]*\).*/\1/p' /proc/meminfo)"
}

probe_hugepages() {
  fact_of hugepages.total /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
  fact_of hugepages.free /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages
  for file in /etc/sysctl.conf /etc/sysctl.d/*.conf; do
    [ -f "$file" ] || continue
    pages=$(sed -n 's/^[[:space:]]*vm[.\/]nr_hugepages[[:space:]]*=[[:space:]]*\([0-9]*\).*/\1/p' "$file" | tail -n 1)
    if [ -n "$pages" ]; then fact "sysctl.$file" "$pages"; fi
  done
}

probe_modules() {
  kernel=$(cat /proc/sys/kernel/osrelease)
  if [ -d /sys/module/nvme_tcp ]; then
    fact nvme_tcp loaded
  elif grep -qs '/nvme-tcp\.ko' "/lib/modules/$kernel/modules.builtin"; then
    fact nvme_tcp builtin
  elif grep -qs '/nvme-tcp\.ko' "/lib/modules/$kernel/modules.dep"; then
    fact nvme_tcp available
  else
    fact nvme_tcp missing
  fi
  for system in ext4 xfs; do
    if grep -qsw "$system" /proc/filesystems ||
      grep -qs "/$system\.ko" "/lib/modules/$kernel/modules.builtin" "/lib/modules/$kernel/modules.dep"; then
      fact "fs.$system" yes
    fi
  done
  if [ -d /sys/module/nvme_core ]; then fact nvme_core loaded; fi
  fact_of multipath /sys/module/nvme_core/parameters/multipath
  # Kernels that cannot switch it off have no such parameter, only the policy between paths.
  if [ ! -e /sys/module/nvme_core/parameters/multipath ] &&
    { [ -e /sys/module/nvme_core/parameters/iopolicy ] ||
      { [ ! -d /sys/module/nvme_core ] && parameters=$(modinfo -F parm nvme_core 2>/dev/null) &&
        printf '%s\n' "$parameters" | grep -q '^iopolicy:' &&
        ! printf '%s\n' "$parameters" | grep -q '^multipath:'; }; }; then
    fact multipath builtin
  fi
}

probe_boot() {
  for dir in /etc/default/grub.d /etc/modules-load.d /etc/modprobe.d /etc/sysctl.d; do
    if [ -d "$dir" ]; then fact "dir.$dir" yes; fi
  done
  for file in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do
    [ -f "$file" ] || continue
    fact "grub.cfg" "$file"
    # update-grub and grub2-mkconfig write it in place, a section for each of their scripts.
    if [ ! -s "$file" ] || [ -n "$(tail -c 1 "$file")" ] ||
      [ "$(grep -c '^### BEGIN ' "$file")" != "$(grep -c '^### END ' "$file")" ]; then
      fact grub.torn "$file"
    fi
  done
  for tool in update-grub grub2-mkconfig grubby; do
    if has "$tool"; then fact "tool.$tool" yes; fi
  done
  # What the next boot's kernels are given: each distinct command line once.
  if has grubby && [ -d /boot/loader/entries ]; then
    grubby --info=ALL 2>/dev/null | sed -n 's/^args="\(.*\)"$/\1/p'
  else
    # Kernels of this system: neither memtest nor what os-prober found on other disks.
    cat /boot/grub/grub.cfg /boot/grub2/grub.cfg 2>/dev/null |
      sed '/^### BEGIN .*os-prober/,/^### END .*os-prober/d' |
      sed -n 's/^[[:space:]]*linux[a-z0-9]*[[:space:]]\{1,\}//p' | grep -v -w -e recovery -e single |
      while read -r image args; do
        [ -e "/boot/${image##*/}" ] || continue
        case ${image##*/} in vmlinu*) printf '%s %s\n' "$image" "$args" ;; esac
      done
  fi | sort -u | awk '{ printf "boot.args.%d=%s\n", NR, $0 }'
  if grep -qs '^options.*\$kernelopts' /boot/loader/entries/*.conf; then fact boot.grubenv yes; fi
  for file in /etc/default/grub /etc/default/grub.d/*.cfg; do
    [ -f "$file" ] || continue
    if grep -q '^[^#]*isolcpus=' "$file"; then fact "isolcpus.$file" yes; fi
  done
}

# Who listens: /proc/net/tcp and tcp6 (state 0A), the owner through its socket's inode.
probe_ports() {
  for port in $PORTS; do
    hex=$(printf '%04X' "$port")
    inodes=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
      awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }')
    if [ -z "$inodes" ]; then
      fact "port.$port" free
      continue
    fi
    owner=unknown
    for inode in $inodes; do
      link=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1)
      [ -n "$link" ] || continue
      pid=${link#/proc/}
      owner=$(tr '\0\n' '  ' <"/proc/${pid%%/*}/cmdline" 2>/dev/null) || owner=unknown
    done
    fact "port.$port" "$owner"
  done
}

probe_firewall() {
  if has ufw && LC_ALL=C ufw status 2>/dev/null | grep -q '^Status: active'; then
    fact firewall ufw
    LC_ALL=C ufw status 2>/dev/null | sed -n '/^--/,$p' | sed 1d | grep . |
      awk '{ printf "firewall.rule.%d=%s\n", NR, $0 }'
  elif has firewall-cmd && [ "$(firewall-cmd --state 2>/dev/null)" = running ]; then
    fact firewall firewalld
    zone=$(firewall-cmd --get-default-zone 2>/dev/null)
    fact firewall.zone "$zone"
    fact firewall.zones "$(firewall-cmd --get-active-zones 2>/dev/null | awk '/^[^ \t]/ { print $1 }' | grep -vxF -e "$zone" | tr '\n' ' ')"
    fact firewall.target "$(firewall-cmd --permanent --zone="$zone" --get-target 2>/dev/null)"
    { firewall-cmd --zone="$zone" --list-rich-rules 2>/dev/null
      firewall-cmd --zone="$zone" --list-ports 2>/dev/null; } | grep . |
      awk '{ printf "firewall.rule.%d=%s\n", NR, $0 }'
  elif has nft; then
    # The first chain that drops on input what nothing let in: by its policy, or by a last rule for everything.
    # Printed as "family table chain".
    rules=$(nft list ruleset 2>/dev/null) || rules=
    chain=$(printf '%s\n' "$rules" | awk '
      $1 == "table" { family = $2; table = $3 }
      $1 == "chain" { chain = $2; input = 0 }
      /hook input/ { input = 1 }
      input && (/hook input.*policy drop/ || everything($0)) { print family " " table " " chain; exit }
      function everything(rule) {
        sub(/ comment ".*"$/, "", rule); sub(/log( prefix "[^"]*")?( level [a-z]+)?( flags [a-z ]+)?/, "", rule)
        sub(/limit rate [^ ]+( burst [0-9]+ packets)?/, "limited", rule)
        return rule ~ /^[ \t]*(counter( packets [0-9]+ bytes [0-9]+)?)?[ \t]*(drop|reject( with .*)?)[ \t]*$/
      }')
    if [ -n "$chain" ]; then
      fact firewall nftables
      fact firewall.chain "$chain"
      printf '%s\n' "$rules" | grep -E 'dport' |
        awk '{ sub(/^[ \t]+/, ""); printf "firewall.rule.%d=%s\n", NR, $0 }'
      for file in /etc/nftables.conf /etc/sysconfig/nftables.conf; do
        if [ -f "$file" ]; then fact firewall.conf "$file"; fact_file "$file"; fi
      done
    fi
  fi
}

# Rules of the older kind, which nft doesn't list.
probe_iptables() {
  has iptables-legacy && grep -qsx filter /proc/net/ip_tables_names || return 0
  if iptables-legacy -S INPUT 2>/dev/null | grep -q -e '^-P INPUT DROP' -e '^-A INPUT -j DROP' -e '^-A INPUT -j REJECT'; then
    fact firewall.legacy yes
  fi
}

# A disk is empty when nothing uses it and nothing is on it; only then it is a candidate for a pool.
probe_disks() {
  for sys in /sys/block/*; do
    [ -e "$sys/size" ] || continue
    name=${sys##*/}
    case $name in loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd* | nullb*) continue ;; esac
    sectors=$(cat "$sys/size")
    [ "$sectors" -gt 0 ] || continue
    dev=/dev/$(printf %s "$name" | tr '!' /)
    state=$(disk_state "$sys" "$name" "$dev")
    stable=$dev
    for link in /dev/disk/by-id/*; do
      [ -h "$link" ] && [ "$(readlink -f "$link")" = "$dev" ] || continue
      stable=$link
      break
    done
    fact "disk.$name" "$state $((sectors / 2048)) $stable"
  done
}

disk_state() {
  if [ "$(cat "$1/ro" 2>/dev/null)" = 1 ]; then echo read-only; return; fi
  if [ "$(cat "$1/removable" 2>/dev/null)" = 1 ]; then echo removable; return; fi
  for part in "$1/$2"*; do
    if [ -e "$part/partition" ]; then echo partitioned; return; fi
  done
  for holder in "$1"/holders/*; do
    if [ -e "$holder" ]; then echo held; return; fi
  done
  if awk -v dev="$3" '$1 == dev { found = 1 } END { exit !found }' /proc/mounts; then echo mounted; return; fi
  if awk -v dev="$3" '$1 == dev { found = 1 } END { exit !found }' /proc/swaps 2>/dev/null; then echo swap; return; fi
  if [ ! -r "$3" ]; then echo unreadable; return; fi
  if [ "$(head -c 8 "$3" | tr -d '\0')" = SPDKBLOB ]; then echo pool; return; fi
  # Any byte that is not zero near the start or the end counts: a label, a RAID superblock, a file system.
  mib=$(($(cat "$1/size") / 2048))
  tail_mib=$((mib > 1 ? mib - 1 : 0))
  for skip in 0 "$tail_mib"; do
    bytes=$(dd if="$3" bs=1048576 skip="$skip" count=1 2>/dev/null | tr -d '\0' | head -c 1 | wc -c)
    if [ "$bytes" -ne 0 ]; then echo data; return; fi
  done
  echo empty
}

probe_tools() {
  if has mkfs.xfs; then fact xfsprogs yes; fi
  for tool in apt-get dnf yum; do
    if has "$tool"; then fact package.tool "$tool"; break; fi
  done
}

probe_journal() {
  for entry in "$JOURNAL"/*; do
    [ -d "$entry" ] || continue
    case $entry in *.new | *.undone) fact "journal.${entry##*/}" leftover; continue ;; esac
    if [ "$(cat "$entry/kind")" = file ] && [ "$(file_is "$entry")" = other ]; then
      fact "journal.${entry##*/}" changed
    elif [ -e "$entry/done" ]; then
      fact "journal.${entry##*/}" done
    else
      fact "journal.${entry##*/}" pending
    fi
    if [ -f "$entry/label" ]; then fact "label.${entry##*/}" "$(cat "$entry/label")"; fi
  done
}

probe() {
  probe_os
  probe_hugepages
  probe_modules
  probe_boot
  for file in $FILES; do fact_file "$file"; done
  probe_ports
  probe_firewall
  probe_iptables
  probe_disks
  probe_tools
  probe_journal
  fact end yes
}
