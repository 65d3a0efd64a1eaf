#!/bin/busybox sh
# First program of the test VM. Its root becomes an overlay: a tmpfs on top (writes stay in the guest),
# the kernel's modules, then the host's own file system through 9p, read-only. So every program of
# the host runs in the guest under its own path.
B=/bin/busybox
export PATH=/bin:/sbin
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
die() {
  echo "VM: $*"
  $B dmesg | $B tail -n 5
  $B poweroff -f
}
while read -r module; do
  $B insmod "$module" || echo "VM: insmod $module failed"
done </modules
P=trans=virtio,version=9p2000.L,msize=512000
$B mount -t 9p -o $P,ro,cache=loose host /m/host || die "no host root over 9p"
$B mount -t 9p -o $P,ro,cache=loose kernel /m/kernel || die "no module layer over 9p"
$B mount -t tmpfs -o size=75% tmpfs /m/rw
$B mkdir -p /m/rw/upper /m/rw/work
$B mount -t overlay -o lowerdir=/m/kernel:/m/host,upperdir=/m/rw/upper,workdir=/m/rw/work overlay /new ||
  die "no overlay"
for d in dev proc sys run; do $B mkdir -p /new/$d; done
$B mount --move /dev /new/dev
$B mount --move /proc /new/proc
$B mount --move /sys /new/sys
$B mount -t tmpfs -o mode=755 run /new/run
$B mkdir -p /new/dev/pts /new/dev/shm /new/run/vm /new/run/lock
$B mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
$B mount -t tmpfs shm /new/dev/shm
$B mount -t 9p -o $P,cache=none spool /new/run/vm || die "no spool folder"
$B cp /bin/busybox /new/run/busybox
exec $B switch_root /new /run/busybox sh /run/vm/guest_main.sh
