# Second stage of the test VM, inside the overlay root: network, modules, then one job after another
# from the control port. A job is a folder in /run/vm: cmd in, out, err and rc back.
B=/run/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
$B hostname guest
$B ln -sf /proc/self/fd /dev/fd
$B ln -sf /proc/self/fd/0 /dev/stdin
$B ln -sf /proc/self/fd/1 /dev/stdout
$B ln -sf /proc/self/fd/2 /dev/stderr
$B mount --make-rshared /
$B ip link set lo up
i=0
for d in /sys/class/net/*; do
  [ -e "$d/device" ] || continue
  n=${d##*/}
  $B ip link set "$n" up
  $B ip addr add 10.0.$((2 + i)).15/24 dev "$n"
  [ $i = 0 ] && $B ip route add default via 10.0.2.2
  i=$((i + 1))
done
. /run/vm/options
for m in $VM_MODULES; do modprobe "$m" || echo "VM: modprobe $m failed"; done
$B mkdir -p /etc/nvme
echo "nqn.2014-08.org.nvmexpress:uuid:$($B cat /proc/sys/kernel/random/uuid)" >/etc/nvme/hostnqn
$B cat /proc/sys/kernel/random/uuid >/etc/nvme/hostid
for f in /dev/vport*p1; do control=$f; done
: >/run/vm/ready
while read -r job; do
  [ "$job" = quit ] && break
  (
    (
      cd / && /bin/bash "/run/vm/$job/cmd"
    ) </dev/null >"/run/vm/$job/out" 2>"/run/vm/$job/err"
    echo $? >"/run/vm/$job/rc.part"
    $B mv "/run/vm/$job/rc.part" "/run/vm/$job/rc"
  ) &
done <"$control"
$B poweroff -f
